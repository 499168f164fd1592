"""Along which axis the channels of an activation lie."""

from __future__ import annotations

from collections.abc import Iterable

from .folding.linear import linear_op
from .model import Model
from .quantizable import WeightedOp


def channel_axes(model: Model, ops: Iterable[WeightedOp]) -> dict[str, int]:
    """Return the axes of the channels of what ``ops`` read, if all of them read the same ones.

    They are counted from the end if negative. What has but one axis is no sample of channels.
    """
    dims = model.dims()
    axes: dict[str, set[int | None]] = {}
    for op in ops:
        desc = op.desc(model)
        rank = len(dims.get(op.activation, ()))
        linear = linear_op(desc, rank, model.parameters) if rank > 1 else None
        axis = None if linear is None else linear.channel_axis
        axes.setdefault(op.activation, set()).add(axis)
    return {
        name: axis
        for name, found in axes.items()
        if len(found) == 1 and (axis := next(iter(found))) is not None
    }
