"""Replaces transposed convolutions without overlaps by pointwise ones and a ``pixel_shuffle``.

If the kernel is as large as the stride, each pixel becomes a block of pixels by itself. This equals
a convolution of one tap, with a channel for every pixel of the block, and a ``pixel_shuffle`` that
lays these channels out (arXiv 1609.07009). Ops that compute each value by itself, or with a
constant of its channel, can run before the shuffle. So can another such transposed convolution:
its weight is then applied to each pixel of the block, with zeros between.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .. import proto
from ..graph import Graph
from ..op import Op, make_op
from ..op_facts import Fact, has
from .affine import affine_reader
from .rule import Scope

# Paddle's pixel_shuffle (phi/kernels/impl/pixel_shuffle_kernel_impl.h) transposes plain tensors.
# For each value, it and the reorder before it take about as long as a transposed convolution of
# oneDNN takes for four values that it reads.
_LEAST_READ_PER_SHUFFLED = 4

# In the weights after the first one, only one value in so many is not zero. Groups instead of zeros
# take longer: 1.8 times for 96 to 16 channels in 4 groups, in float and in int8.
_MOST_BLOCKS = 4

_RANK, _CHANNEL_AXIS = 4, 1
_POINTWISE: dict[str, proto.AttributeValue] = {
    "strides": [1, 1],
    "paddings": [0, 0],
    "dilations": [1, 1],
    "groups": 1,
    "data_format": "NCHW",
    "padding_algorithm": "EXPLICIT",
}


class _Link(NamedTuple):
    """An op of a chain that may be computed in blocks, whose pixels are laid out behind the last.

    Attributes:
        inputs: how many channels it reads.
        outputs: how many channels it writes.
        blocks: how many pixels one pixel of the chain's source has become before the op.
        size: the side of the block that it makes of a pixel, if it is a transposed convolution.
    """

    position: int
    source: str
    output: str
    inputs: int
    outputs: int
    blocks: int
    size: int | None

    @property
    def blocks_behind(self) -> int:
        """How many pixels one pixel of the chain's source has become behind the op."""
        return self.blocks * (self.size or 1) ** 2


def use_pixel_shuffle(graph: Graph, scope: Scope) -> set[str]:
    """Replace transposed convolutions where that takes less time; return the new tensors."""
    made: set[str] = set()
    for position in sorted(graph.ops):
        chain = _chain(graph, position, scope)
        if chain and _is_worth_it(chain):
            made.update(_rewrite(graph, chain))
    return made


def _chain(graph: Graph, start: int, scope: Scope) -> list[_Link]:
    """Return the ops from a transposed convolution on that may be computed in blocks."""
    chain: list[_Link] = []
    position: int | None = start
    while position is not None:
        op = graph.ops[position]
        if scope.touches(op):
            break
        link = _link(graph, position, chain[-1] if chain else None)
        if link is None:
            break
        chain.append(link)
        position = graph.only_reader(link.output)
    return chain


def _link(graph: Graph, position: int, before: _Link | None) -> _Link | None:
    op = graph.ops[position]
    output = next(iter(op.writes()), "")
    blocks = 1 if before is None else before.blocks_behind
    if _never_overlaps(graph, op) and blocks <= _MOST_BLOCKS:
        inputs, outputs, size, _ = graph.model.parameters[op.input("Filter")].shape
        return _Link(position, op.input("Input"), output, inputs, outputs, blocks, size)
    if before is None or not _is_per_value(graph, position, before):
        return None
    return _Link(position, before.output, output, before.outputs, before.outputs, blocks, None)


def _never_overlaps(graph: Graph, op: Op) -> bool:
    """Return whether an op is a transposed convolution whose kernel is as large as its strides."""
    if op.type != "conv2d_transpose" or len(op.reads()) != 2:
        return False
    geometry = op.geometry()
    array = graph.model.parameters.get(op.input("Filter"))
    if array is None or array.dtype != np.float32:
        return False
    height, width = array.shape[2:]
    return (
        height == width > 1
        and geometry.strides == (height, width)
        and geometry.dilations == (1, 1)
        and geometry.groups == 1
        and not geometry.pads
        and not geometry.is_channels_last
        and not any(op.ints("output_padding"))
        and not any(op.ints("output_size"))
        and len(graph.dims(op.input("Input")) or ()) == _RANK
    )


def _is_per_value(graph: Graph, position: int, before: _Link) -> bool:
    """Return whether an op computes each value by itself, or with a constant of its channel."""
    op = graph.ops[position]
    if has(op.type, Fact.PER_VALUE):
        return op.reads() == [before.output]
    if not has(op.type, Fact.ARITHMETIC):
        return False
    found = affine_reader(graph, position, before.output, _CHANNEL_AXIS)
    return found is not None and found.affine.fits(before.outputs)


def _is_worth_it(chain: list[_Link]) -> bool:
    read = sum(link.inputs * link.blocks for link in chain if link.size is not None)
    return read >= _LEAST_READ_PER_SHUFFLED * chain[-1].outputs * chain[-1].blocks_behind


def _rewrite(graph: Graph, chain: list[_Link]) -> list[str]:
    """Compute ``chain`` in blocks and then lay out their pixels; return the new tensors."""
    names = [chain[0].source]
    source_dims = graph.dims(names[0])
    assert source_dims is not None
    samples, _, *positions = source_dims
    ops = []
    for link in chain:
        dims = [samples, link.outputs * link.blocks_behind, *positions]
        names.append(graph.add_tensor(f"{link.output}.blocks", dims))
        make = _widened if link.size is None else _pointwise
        ops.append(make(graph, link, names[-2], names[-1]))
    factor = math.isqrt(chain[-1].blocks_behind)
    shuffle = make_op(
        "pixel_shuffle",
        {"X": names[-1:]},
        {"Out": [chain[-1].output]},
        {"upscale_factor": factor, "data_format": "NCHW"},
    )
    for link, op in zip(chain[:-1], ops):
        graph.replace(link.position, op)
    graph.replace(chain[-1].position, ops[-1], shuffle)
    return names[1:]


def _pointwise(graph: Graph, link: _Link, source: str, output: str) -> Op:
    """Return a transposed convolution as a convolution of a single tap, from and to blocks.

    The pixels of a block are channels in the order of pixel_shuffle: channel, row, column.
    """
    name = graph.ops[link.position].input("Filter")
    weight = graph.model.made(name)
    same = np.eye(math.isqrt(link.blocks), dtype=np.float32)
    spread = np.einsum("coij,pa,qb->opiqjcab", weight, same, same)
    shape = (link.outputs * link.blocks_behind, link.inputs * link.blocks, 1, 1)
    spread_name = graph.add_parameter(f"{name}.blocks", spread.reshape(shape))
    inputs = {"Input": [source], "Filter": [spread_name]}
    return make_op("conv2d", inputs, {"Output": [output]}, _POINTWISE)


def _widened(graph: Graph, link: _Link, source: str, output: str) -> Op:
    """Return an op that does in blocks what another one does with each pixel."""
    op = graph.ops[link.position].copy()
    renamed = {link.source: source}
    for name in set(op.reads()) - {link.source}:
        array = graph.model.parameters[name]
        if array.size == link.outputs:
            is_first = op.input("X") == name
            shape = (1, -1, 1, 1) if is_first else (-1,)
            wide = np.repeat(array.reshape(-1), link.blocks).reshape(shape)
            renamed[name] = graph.add_parameter(f"{name}.blocks", wide)
            op.set_attr("axis", -1 if is_first else _CHANNEL_AXIS)
    op.rename_inputs(renamed)
    op.rename_outputs({link.output: output})
    return op
