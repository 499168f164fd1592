"""A hard_sigmoid that is scaled, as the factors of squeeze-and-excitation with a shortcut are.

a * min(max(s * x + o, 0), 1) + b is a * s * x + a * o + b between b and a + b, and what is linear
in that goes into a convolution in front.
"""

from __future__ import annotations

from .. import proto
from ..graph import Graph
from .affine import AFFINE_OP_TYPES, Affine, AffineOp, affine_op, make_scale
from .linear import LINEAR_OP_TYPES


def clip_scaled(graph: Graph) -> set[str]:
    """Scale what a hard_sigmoid reads, and clip it then, where an op in front can do the first.

    Return the tensors that have other values.
    """
    changed = set()
    for position, op in sorted(graph.ops.items()):
        output = next(proto.names(op.outputs), "")
        reader = graph.only_reader(output)
        if op.type != "hard_sigmoid" or reader is None or graph.ops[reader].type != "scale":
            continue
        scaled = affine_op(graph.ops[reader], 1, 0, {})
        if scaled is not None and _is_of_factors(graph, position, scaled):
            _replace(graph, position, reader, scaled.affine)
            changed.add(output)
    return changed


def _is_of_factors(graph: Graph, position: int, scaled: AffineOp) -> bool:
    """Return whether a linear op is in front of a hard_sigmoid, and products behind its scale.

    Another activation would take the place of the clip: Paddle's passes fuse each kind of them with
    the convolution in front, whatever that has already (conv_activation_onednn_fuse_pass.cc).
    """
    producer = graph.producer(next(proto.names(graph.ops[position].inputs)))
    readers = {graph.ops[reader].type for reader in graph.readers(scaled.output)}
    is_behind = producer is not None and graph.ops[producer].type in _TAKES_SCALE
    return is_behind and readers == {"elementwise_mul"} and scaled.affine.scale[0] != 0


def _replace(graph: Graph, position: int, reader: int, affine: Affine) -> None:
    hard_sigmoid, scale = graph.ops[position], graph.ops[reader]
    slope, offset = (
        float(proto.attribute(hard_sigmoid, name, default))
        for name, default in (("slope", 0.2), ("offset", 0.5))
    )
    factor, shift = float(affine.scale[0]), float(affine.shift[0])
    (source,), (between,), (output,) = (
        proto.names(side) for side in (hard_sigmoid.inputs, hard_sigmoid.outputs, scale.outputs)
    )
    least, greatest = sorted((shift, factor + shift))
    limits = {"min": least, "max": greatest}
    graph.replace(position, make_scale(source, between, factor * slope, factor * offset + shift))
    graph.replace(reader, proto.make_op("clip", {"X": [between]}, {"Out": [output]}, limits))


_TAKES_SCALE = {*AFFINE_OP_TYPES, *LINEAR_OP_TYPES}
