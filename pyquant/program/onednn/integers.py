"""Which tensors of a program of oneDNN's int8 ops hold integers, and what these stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import proto
from ..model import Model
from ..parameters import Array

CARRIERS = (*("pool2d", "concat", "nearest_interp", "nearest_interp_v2", "reshape2", "transpose2"),)
"""The op types that move integers without a look at what they stand for."""


class Scale(NamedTuple):
    """integer = round(value * factor + zero_point), of 8 bits, ties to even."""

    factor: float
    zero_point: int
    unsigned: bool

    @property
    def limits(self) -> tuple[int, int]:
        """The least integer and the greatest one."""
        return (0, 255) if self.unsigned else (-128, 127)

    @property
    def least(self) -> float:
        """The least value that an integer stands for."""
        return (self.limits[0] - self.zero_point) / self.factor

    @property
    def greatest(self) -> float:
        """The greatest value that an integer stands for."""
        return (self.limits[1] - self.zero_point) / self.factor

    def rounded(self, values: Array) -> Array:
        """Return the float32 values that the integers of ``values`` stand for."""
        factor, zero_point = np.float32(self.factor), np.float32(self.zero_point)
        integers = np.clip(np.rint(values * factor + zero_point), *map(np.float32, self.limits))
        found: Array = (integers - zero_point) / factor
        return found


Scales = dict[str, Scale]
"""By the name of the tensor."""


def read_scales(model: Model) -> Scales:
    """Return what the integers of each tensor that holds some stand for."""
    scales: Scales = {}
    for op in model.program.blocks[0].ops:
        read = _READERS.get(op.type)
        scale = None if read is None else read(op, scales)
        if scale is not None:
            scales[next(proto.names(op.outputs))] = scale
    return scales


def _quantize(op: Any, scales: Mapping[str, Scale]) -> Scale:
    """As ``quantize_kernel.cc`` chooses the type."""
    zero_point = int(proto.attribute(op, "Shift", 0.0))
    signed = proto.attribute(op, "is_negative_input", False) and not zero_point
    return Scale(proto.attribute(op, "Scale", 1.0), zero_point, not signed)


def _linear(
    op: Any, scales: Mapping[str, Scale], activation: str, unsigned: tuple[str, ...]
) -> Scale | None:
    """As GetDstType in ``conv_function.h`` and ``fc_kernel.cc`` choose the type."""
    reads_integers = proto.arguments(op.inputs, "Input")[0] in scales
    if not reads_integers or proto.attribute(op, "force_fp32_output", False):
        return None
    is_unsigned = proto.attribute(op, activation, "") in unsigned
    for residual in proto.arguments(op.inputs, "ResidualData"):
        if residual not in scales:
            return None
        is_unsigned = scales[residual].unsigned
    return Scale(proto.attribute(op, "Scale_out", 1.0), 0, is_unsigned)


def _carry(op: Any, scales: Mapping[str, Scale]) -> Scale | None:
    is_average = proto.attribute(op, "pooling_type", "max") != "max"
    found = {scales.get(name) for name in proto.arguments(op.inputs, "X")}
    return found.pop() if len(found) == 1 and not is_average else None


_READERS: Mapping[str, Callable[[Any, Mapping[str, Scale]], Scale | None]] = {
    "quantize": _quantize,
    "fused_conv2d": partial(_linear, activation="fuse_activation", unsigned=("relu", "relu6")),
    "fc": partial(_linear, activation="activation_type", unsigned=("relu",)),
    **dict.fromkeys(CARRIERS, _carry),
}
