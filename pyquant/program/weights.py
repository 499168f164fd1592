"""Weights as integers: symmetric, per channel or per tensor, nothing saturated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import kernels
from ..errors import ModelFileError
from .model import Model
from .parameters import Array
from .quantizable import WeightedOp

WEIGHT_QUANTIZE_TYPES = ("channel_wise_abs_max", "abs_max")
"""PaddleSlim's names of one threshold per channel and of one per tensor."""

# Below this, Paddle's kernels no longer divide by a scale (inverse() in fake_quantize_functor.h).
_SMALLEST_THRESHOLD = np.float32(1e-30)


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight as integers.

    Attributes:
        name: the float parameter that it stands for.
        values: int8 or int16, of the weight's shape.
        threshold: float32[channels], or float32[1] for one per tensor; the magnitude that maps to
            2^(bits-1)-1.
        axis: the axis of the channels; -1 for one threshold per tensor.
        bits: 8 or 16.
        float_dtype: of the float parameter; ``uint16`` is raw bfloat16.
    """

    name: str
    values: Array
    threshold: Array
    axis: int
    bits: int
    float_dtype: np.dtype[Any]

    @property
    def scale(self) -> Array:
        """The step, threshold / (2^(bits-1)-1), shaped to multiply the values: float32."""
        step: Array = (self.threshold / np.float32(2 ** (self.bits - 1) - 1)).astype(np.float32)
        shape = [1] * self.values.ndim
        shape[self.axis] = step.size
        return step.reshape(shape)

    def dequantized(self) -> Array:
        """The float values that the quantized program computes with, bit for bit."""
        values = self.values.astype(np.float32) * self.scale
        if self.float_dtype == np.uint16:
            return _bfloat16_bits(values)
        return values.astype(self.float_dtype)


def quantize_weights(
    model: Model, ops: Sequence[WeightedOp], bits: int, per_channel: bool
) -> dict[str, QuantizedWeight]:
    """Quantize the weight of every op of ``ops``, a shared one once, by its first op's axis.

    Raises:
        ModelFileError: a weight holds NaN or infinity.
    """
    weights: dict[str, QuantizedWeight] = {}
    for op in tqdm(ops, desc="quantizing", unit="op", disable=None):
        if op.weight not in weights:
            axis = op.channel_axis if per_channel else None
            weights[op.weight] = _quantize_weight(model, op.weight, axis, bits)
    return weights


def _quantize_weight(model: Model, name: str, axis: int | None, bits: int) -> QuantizedWeight:
    array = model.parameters[name]
    dtype = "bfloat16" if array.dtype == np.uint16 else None
    if axis is None:
        threshold = np.array([kernels.abs_max(array, dtype=dtype)], np.float32)
    else:
        threshold = kernels.channel_abs_max(array, axis, dtype=dtype)
    if not np.isfinite(threshold).all():
        bad = int(np.count_nonzero(~np.isfinite(threshold)))
        raise ModelFileError(
            f"{model.params_path or model.model_path.parent}: weight '{name}' holds NaN or "
            f"infinity in {bad} of {threshold.size} channel(s). Repair or export the model again."
        )
    # A channel of zeros has no scale; any finite one keeps it zero, and kernels divide by it.
    threshold[threshold <= _SMALLEST_THRESHOLD] = 1.0
    values = kernels.quantize(array, threshold, axis, bits, dtype=dtype)
    return QuantizedWeight(name, values, threshold, -1 if axis is None else axis, bits, array.dtype)


def _bfloat16_bits(values: Array) -> Array:
    """Round finite float32 to bfloat16, to nearest even, as raw ``uint16``."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
