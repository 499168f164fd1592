"""Compares float weights with the dequantized weights of the quantized program."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..program import proto
from ..program.model import Model
from ..program.names import BORDERED, QUANTIZED, WIDENED, stem
from ..program.parameters import Array, row_chunks
from ..program.weights import bfloat16_bits
from .quantization import Weight
from .report import ComparedTensor
from .similarity import ErrorSums, as_float

# Rounding to nearest moves a value by up to half a step, data-driven rounding by up to two.
_FURTHEST_STEPS = np.float32(2)
# What pyquant adds to the name of a weight that it replaces by another.
_SUFFIXES = (QUANTIZED, BORDERED, WIDENED)
_SMALLEST = np.finfo(np.float32).tiny  # a smaller step may be flushed to zero


def compare_weight(model: Model, weight: Weight, op_types: tuple[str, ...]) -> ComparedTensor:
    """Compare ``weight`` with the parameter of the float ``model`` that it was made from."""
    name = float_name(model, weight.name)
    source = model.parameters.get(name)
    is_longer = name != stem(weight.name, QUANTIZED)
    if source is not None and is_longer and source.ndim == weight.integers.ndim:
        weight = _without_added(weight, source.shape)
    is_grouped = source is not None and weight.dims == source.shape != weight.integers.shape
    if source is not None and is_grouped:
        source = source.reshape(weight.integers.shape)
    threshold = np.abs(weight.step.reshape(-1)) * np.float32(weight.levels)
    described: dict[str, Any] = {
        "name": name,
        "kind": "weight",
        "op_types": op_types,
        "bits": weight.bits,
        "axis": None if is_grouped else weight.axis,
        "threshold": float(threshold.max()) if is_grouped or weight.axis is None else threshold,
    }
    if source is None or (source.dtype.kind != "f" and source.dtype != np.uint16):
        return ComparedTensor(**described, error=None, note="not in the float model")
    if source.shape != weight.integers.shape:
        return ComparedTensor(
            **described, error=None, note=f"its shape is {list(source.shape)} in the float model"
        )
    sums, beyond, changed = _compare(source, weight)
    if changed:
        return ComparedTensor(
            **described,
            error=None,
            note="other values in the float model: changed before quantization, as by folding",
        )
    return ComparedTensor(**described, error=sums.similarity, saturation=beyond / source.size)


def float_name(model: Model, name: str) -> str:
    """Return the name in the float ``model`` of the weight that is stored as ``name``."""
    while name not in model.parameters and (shorter := stem(name, *_SUFFIXES)) != name:
        name = shorter
    return name


def _without_added(weight: Weight, shape: tuple[int, ...]) -> Weight:
    """Drop the inputs and outputs beyond those of the float weight, as for borders."""
    part = tuple(map(slice, shape))
    return replace(weight, integers=weight.integers[part], step=weight.step[part])


def _compare(source: Array, weight: Weight) -> tuple[ErrorSums, int, bool]:
    """Return the sums, how many values saturate, and whether others differ by more than rounding.

    A weight may be larger than memory, so it is read in chunks.
    """
    sums, beyond, changed = ErrorSums(), 0, False
    by_row = weight.step.shape[0] > 1
    for rows in row_chunks(source):
        step = weight.step[rows] if by_row else weight.step
        integers = weight.integers[rows]
        x, y = as_float(source[rows]), _floats(integers, step, weight.data_type)
        sums.add(x, y)
        size = np.abs(step)
        saturated = np.abs(x) > size * np.float32(weight.levels + 0.5)
        beyond += int(np.count_nonzero(saturated))
        far = np.abs(x - y) > _FURTHEST_STEPS * size + _SMALLEST
        changed = changed or bool((far & ~saturated).any())
    return sums, beyond, changed


def _floats(integers: Array, step: Array, data_type: int) -> Array:
    values = integers.astype(np.float32) * step
    dtype = proto.numpy_dtype(data_type)
    assert dtype is not None
    return as_float(bfloat16_bits(values)) if dtype == np.uint16 else values.astype(dtype)
