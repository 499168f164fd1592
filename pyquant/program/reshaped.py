"""Parameters that ops only reshape before others read them, as ``conv1d``'s filters.

Paddle's ``conv1d`` is ``assign`` and ``unsqueeze2`` of the filter, followed by a ``conv2d``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple, Optional

from . import proto
from .model import Model
from .op import Op
from .op_facts import Fact, has

Axes = Sequence[Optional[int]]


class ReshapedParameter(NamedTuple):
    """A tensor that has the values of a parameter, in another shape or of another type."""

    name: str  # of the parameter
    position: int  # of the op that reads the parameter, in the block of the tensor
    axes: Axes  # for each axis of the tensor, the parameter's axis, or None if it has none


def reshaped_parameters(model: Model) -> dict[tuple[int, str], ReshapedParameter]:
    """Return the tensors that have the values of a parameter, by block and name.

    Only the next step may read a step's output. So replacing the parameter changes nothing but the
    input of the op that reads the last output.
    """
    reads, writes, dims = model.reads(), model.writes(), model.dims()
    found: dict[tuple[int, str], ReshapedParameter] = {}
    for block, position, op in model.numbered_ops():
        if not has(op.type, Fact.RESHAPES) or not _stays_float(op):
            continue
        (name,), (output,) = op.inputs("X"), op.outputs("Out")
        source = found.get((block, name))
        if source is None and name in model.parameters:
            array = model.parameters[name]
            source = ReshapedParameter(name, position, range(array.ndim))
            old = list(array.shape)
        else:
            old = dims.get(name, [])
        new = dims.get(output, [])
        is_plain = reads[output] == writes[output] == 1 and output not in model.parameters
        if source is None or not is_plain or min(new, default=1) < 0 or prod(new) != prod(old):
            continue
        axes = axes_after(op, old, new)
        kept = [None if axis is None else source.axes[axis] for axis in axes]
        found[block, output] = source._replace(axes=kept)
    return found


def _stays_float(op: Op) -> bool:
    return op.type != "cast" or proto.is_float(op.attr("out_dtype", proto.FP32))


def axes_after(op: Op, old: Sequence[int], new: Sequence[int]) -> Axes:
    """Return the input's axis for each axis of a reshaping op's output, or None.

    ``old`` and ``new`` are the dimensions of the two.
    """
    if op.type == "transpose2":
        return list(op.ints("axis", range(len(old))))
    places = {(prod(old[:axis]), size): axis for axis, size in enumerate(old)}
    return [places.get((prod(new[:axis]), size)) for axis, size in enumerate(new)]
