"""Weights as integers in groups of inputs, each with its own step, in 8 or 4 bits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Union

import numpy as np

from .. import kernels
from ..errors import NonFiniteWeightError
from .parameters import Array, DerivedTensor, row_chunks
from .weights import QuantizedWeight, bfloat16_bits, bfloat16_name

PACKED_BITS = 4
"""Two integers of this many bits share a byte."""

_LEAST_GROUP = 16  # with fewer inputs of one output, the steps would take as much as the integers

_FLOAT32 = np.dtype(np.float32)
_INT8 = np.dtype(np.int8)


class Groups(NamedTuple):
    """How a weight's values are seen as [outer, size, inner], where the middle axis is a group."""

    outer: int
    size: int
    inner: int


def groups_of(shape: Sequence[int], axis: int, size: int) -> Groups | None:
    """Return groups of up to ``size`` inputs of one output channel, along ``axis``.

    Their size is the greatest even divisor of the number of inputs. Returns None if that is below
    16, or if the inputs of a channel do not lie together.
    """
    if len(shape) < 2 or axis < 0 or not math.prod(shape):
        return None
    inner = shape[-1] if axis == len(shape) - 1 else 1
    inputs = shape[-2] if inner > 1 else math.prod(shape[axis + 1 :])
    sizes = (n for n in range(size - size % 2, _LEAST_GROUP - 1, -2) if inputs % n == 0)
    found = next(sizes, None)
    return None if found is None else Groups(math.prod(shape) // found // inner, found, inner)


class Step(NamedTuple):
    """An op of those that dequantize a weight; the modules that write programs know its kinds.

    Attributes:
        kind: "cast", "and", "divide" (rounding down), "add" (a number), "stack", "multiply" or
            "reshape".
        reads: names of constants and of results of earlier steps.
        makes: the name of its result.
        shape: of the result.
        dtype: of the result.
        value: the number, or the axis of a stack.
    """

    kind: str
    reads: tuple[str, ...]
    makes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    value: int = 0


class GroupedWeight:
    """A weight as integers in groups, which are made when they are written.

    Attributes:
        name: of the float parameter.
        stored: the parameter; ``uint16`` is bfloat16.
        groups: how its values form groups.
        bits: of the integers, 8 or 4.
    """

    axis = None

    def __init__(
        self, name: str, stored: Array, groups: Groups, bits: int, searches: bool, file: Path
    ) -> None:
        """Take a parameter of a file; ``searches`` asks for the steps of least squared error."""
        self.name = name
        self.stored = stored
        self.groups = groups
        self.bits = bits
        self._searches = searches
        self._file = file
        self._is_finite: bool | None = None
        self._greatest_step = 0.0
        self._steps: list[Array] = []  # of the groups in order, from reading until writing them

    @property
    def why_float(self) -> str | None:
        """Why the weight cannot become integers, or None; the first call may read the weight."""
        if self._is_finite is None:
            parts = (self.stored[rows] for rows in row_chunks(self.stored))
            largest = [kernels.abs_max(part, dtype=bfloat16_name(part)) for part in parts]
            self._is_finite = bool(np.isfinite(largest).all())
        return None if self._is_finite else f"weight '{self.name}' holds NaN or infinity"

    @property
    def threshold(self) -> float:
        """The greatest step times the greatest integer, once the integers are written."""
        return self._greatest_step * float(2 ** (self.bits - 1) - 1)

    @property
    def values(self) -> DerivedTensor:
        """The integers, int8; with 4 bits, two in a byte, as `kernels.quantize_groups` packs."""
        size = self.groups.size // 2 if self._is_packed else self.groups.size
        return DerivedTensor(self._shape(size), _INT8, self._integers)

    @property
    def scale(self) -> DerivedTensor:
        """The steps, float32, in a shape that multiplies the unpacked integers."""
        return DerivedTensor(self._shape(*(1, 1)[: 1 + self._is_packed]), _FLOAT32, self._scales)

    @property
    def dequantized(self) -> DerivedTensor:
        """The float values that the quantized program computes with, bit for bit."""
        return DerivedTensor(self.stored.shape, self.stored.dtype, self._floats)

    @property
    def constants(self) -> Mapping[str, Array]:
        """What the ops of `dequantization` read besides ``values`` and ``scale``, by name."""
        packed = {"nibble": np.array([15], np.int8), "sixteen": np.array([16], np.int8)}
        return packed if self._is_packed else {}

    def dequantization(self) -> list[Step]:
        """Return the ops that dequantize the weight; the last one makes the float weight.

        They work on integers as long as they can, because Paddle keeps all results in memory where
        it folds constants. Steps in half precision would save a twentieth of the file, but Paddle's
        Predictor leaves out its passes for a program that has such parameters.
        """
        size, integers, ops = self.groups.size, "values", list[Step]()
        shape = self._shape(size)
        if self._is_packed:
            half, shape = self._shape(size // 2), self._shape(2, size // 2)
            ops += [
                Step("divide", ("values", "sixteen"), "high", half, _INT8),
                Step("and", ("values", "nibble"), "unsigned", half, _INT8),
                Step("add", ("unsigned",), "low", half, _INT8, -8),
                Step("stack", ("low", "high"), "integers", shape, _INT8, shape.index(2, 1)),
            ]
            integers = "integers"
        ops += [
            Step("cast", (integers,), "cast", shape, _FLOAT32),
            Step("multiply", ("cast", "scale"), "scaled", shape, _FLOAT32),
            Step("reshape", ("scaled",), "dequantized", self.stored.shape, _FLOAT32),
        ]
        if self.stored.dtype != _FLOAT32:
            dims = self.stored.shape
            ops.append(Step("cast", ("dequantized",), "half", dims, self.stored.dtype))
        return ops

    @property
    def _is_packed(self) -> bool:
        return self.bits == PACKED_BITS

    def _shape(self, *middle: int) -> tuple[int, ...]:
        """Return the shape of a tensor that has ``middle`` in the place of a group's values.

        Groups that lie one behind the other are along axis 1: oneDNN has a fast kernel for a factor
        for each place of that axis.
        """
        outer, _, inner = self.groups
        return (1, outer, *middle) if inner == 1 else (outer, *middle, inner)

    def _quantized(self) -> Iterator[tuple[Array, Array]]:
        """Yield integers and steps of some groups after the others."""
        grouped = self.stored.reshape(self.groups)
        self._steps = []
        for rows in row_chunks(grouped):
            part = grouped[rows]
            integers, steps = kernels.quantize_groups(
                part, self.bits, search=self._searches, dtype=bfloat16_name(part)
            )
            greatest = float(np.abs(steps).max())
            if not np.isfinite(greatest):
                self._is_finite = False
                raise NonFiniteWeightError(
                    f"{self._file}: {self.why_float}. Keep its ops in float by skip_tensor_list."
                )
            self._greatest_step = max(self._greatest_step, greatest)
            self._steps.append(steps)
            yield integers, steps
        self._is_finite = True

    def _integers(self) -> Iterator[Array]:
        for integers, _ in self._quantized():
            yield integers

    def _scales(self) -> Iterator[Array]:
        if not self._steps:
            for _ in self._quantized():
                pass
        yield from self._steps
        self._steps = []

    def _floats(self) -> Iterator[Array]:
        for integers, steps in self._quantized():
            if self._is_packed:
                integers = np.concatenate(unpack(integers), axis=1)
            values = integers.astype(np.float32) * steps
            is_bfloat16 = self.stored.dtype == np.uint16
            yield bfloat16_bits(values) if is_bfloat16 else values.astype(self.stored.dtype)


def unpack(packed: Array) -> tuple[Array, Array]:
    """Return the integers of the first and of the second halves of groups, int8."""
    high = packed >> 4
    return packed - 16 * high - 8, high


AnyWeight = Union[QuantizedWeight, GroupedWeight]
