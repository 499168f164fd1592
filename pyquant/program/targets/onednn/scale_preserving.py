"""Scale-preserving ops: they move integers without looking at their scale and zero point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ...op import Op


class Carrier(NamedTuple):
    """What an op that moves integers reads and writes."""

    inputs: list[str]
    output: str
    enlarges: bool  # whether it is quicker to quantize all inputs than the output


def carrier(op: Op) -> Carrier | None:
    """Return what ``op`` moves, if oneDNN has a kernel for it that takes integers."""
    found = _CARRIERS.get(op.type)
    if found is None or not found.takes(op):
        return None
    inputs = op.inputs("X")
    if len(inputs) != len(op.reads()):
        return None  # a size or an axis is computed, and may be read in another place
    return Carrier(inputs, op.output("Out"), found.enlarges)


class _Kind(NamedTuple):
    takes: Callable[[Op], bool]
    enlarges: bool


def _is_max_pooling(op: Op) -> bool:
    return op.attr("pooling_type", "max") == "max"


def _is_plain_upsampling(op: Op) -> bool:
    """Return whether interpolate_kernel.cc, which ignores ``align_corners``, computes it."""
    return (
        not op.attr("align_corners", True)
        and op.attr("data_layout", "NCHW") == "NCHW"
        and op.attr("interp_method", "bilinear") == "nearest"
    )


# The kernels of phi/kernels/onednn that are registered for int8 and uint8.
_CARRIERS: Mapping[str, _Kind] = {
    "pool2d": _Kind(_is_max_pooling, enlarges=False),
    "nearest_interp": _Kind(_is_plain_upsampling, enlarges=True),
    "nearest_interp_v2": _Kind(_is_plain_upsampling, enlarges=True),
    "concat": _Kind(lambda op: True, enlarges=True),
}

CARRIER_OP_TYPES = tuple(_CARRIERS)
