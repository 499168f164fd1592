"""Weights as integers behind ``DequantizeLinear``.

ONNX Runtime makes a ``MatMulNBits`` of a product and of the integers in front of it: pyquant does
not write that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from .. import proto
from ..grouped_weights import PACKED_BITS, AnyWeight, GroupedWeight, unpack
from ..parameters import Array, DerivedTensor
from .builder import Attribute, Step
from .dtypes import Int4Tensor

OPSET = 21
"""The first in which ``DequantizeLinear`` takes blocks, 4 bits, and 16 bits."""


def dequantized(step: Step, weight: AnyWeight) -> str:
    """Store a weight as integers, and return its float values."""
    if isinstance(weight, GroupedWeight):
        found = _of_groups(step, weight)
    else:
        channels = replace(weight.scale, shape=() if weight.axis < 0 else weight.step.shape)
        axis: dict[str, Attribute] = {} if weight.axis < 0 else {"axis": weight.axis}
        found = _linear(step, weight, weight.values, channels, **axis)
    if weight.stored.dtype != np.float32:
        found = step.cast(found, proto.paddle_dtype(weight.stored.dtype))
    return found


def _linear(
    step: Step,
    weight: AnyWeight,
    values: DerivedTensor,
    scale: DerivedTensor,
    **attributes: Attribute,
) -> str:
    stored = [
        step.builder.store(f"{weight.name}.{part}", tensor)
        for part, tensor in (("integers", values), ("scale", scale))
    ]
    return step("DequantizeLinear", *stored, **attributes)


def _of_groups(step: Step, weight: GroupedWeight) -> str:
    outer, size, inner = weight.groups
    shape: Sequence[int] = weight.stored.shape
    if inner > 1:  # the inputs of a channel lie along the last axis but one
        axis = len(shape) - 2
    elif shape[-1] % size == 0:
        axis = len(shape) - 1
    else:  # along several axes, as those of a filter
        shape, axis = (outer, size), 1
    blocks = [length // size if at == axis else length for at, length in enumerate(shape)]
    values, scale = replace(weight.values, shape=tuple(shape)), weight.scale
    if weight.bits == PACKED_BITS:
        values = Int4Tensor(tuple(shape), values.dtype, lambda: _pairs(weight))
    scale = replace(scale, shape=tuple(blocks))
    found = _linear(step, weight, values, scale, axis=axis, block_size=size)
    if math.prod(shape) == 0 or tuple(shape) == weight.stored.shape:
        return found
    return step("Reshape", found, step.ints(weight.stored.shape))


def _pairs(weight: GroupedWeight) -> Iterator[Array]:
    """Yield neighbouring integers in a byte, the first one in its lower half."""
    for packed in weight.values.chunks():
        integers = np.concatenate(unpack(packed), axis=1).reshape(-1, 2)
        yield (integers[:, 0] & 15) | (integers[:, 1] << 4)
