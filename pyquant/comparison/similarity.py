"""How close one tensor is to another: SQNR and cosine, over any number of batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..program.parameters import Array
from ..program.weights import float32_of_bfloat16

_CHUNK = 1 << 14  # values that become float64 at a time, so that they stay in the cache


class Similarity(NamedTuple):
    """How close a quantized tensor is to the float one.

    Attributes:
        sqnr: signal to quantization noise, 10 log10(sum x^2 / sum (x - y)^2), in dB; infinite if
            all values are equal, NaN if any value is NaN or infinite.
        cosine: of the angle between the two, taken as vectors; NaN likewise.
    """

    sqnr: float
    cosine: float


@dataclass
class ErrorSums:
    """Sums over all values, in float64, of a reference x and of another tensor y."""

    total: float = 0.0  # of x
    signal: float = 0.0  # of x^2
    noise: float = 0.0  # of (x - y)^2
    other: float = 0.0  # of y^2
    product: float = 0.0  # of x y
    values: int = 0  # how many there are

    def add(self, reference: Array, other: Array) -> None:
        """Add two arrays of one shape, of any numeric type."""
        x_values, y_values = reference.reshape(-1), other.reshape(-1)
        self.values += x_values.size
        for start in range(0, x_values.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            with np.errstate(invalid="ignore"):  # infinities show as NaN in the result
                self._add(x_values[part].astype(np.float64), y_values[part].astype(np.float64))

    def _add(self, x: Array, y: Array) -> None:
        self.total += float(x.sum())
        self.signal += _dot(x, x)
        self.other += _dot(y, y)
        self.product += _dot(x, y)
        x -= y
        self.noise += _dot(x, x)

    @property
    def similarity(self) -> Similarity | None:
        """The similarity, or None if nothing was added."""
        if not self.values:
            return None
        return Similarity(self._sqnr(), self._cosine())

    @property
    def variation(self) -> float:
        """The sum of (x - mean)^2."""
        return self.signal - self.total**2 / self.values if self.values else 0.0

    def _sqnr(self) -> float:
        if self.noise == 0:
            return math.inf
        if self.signal == 0:
            return -math.inf
        return 10 * (math.log10(self.signal) - math.log10(self.noise))

    def _cosine(self) -> float:
        if self.noise == 0:
            return 1.0
        lengths = math.sqrt(self.signal) * math.sqrt(self.other)
        return self.product / lengths if lengths else 0.0


def _dot(x: Array, y: Array) -> float:
    # Not by BLAS: its threads would wait for cores on which Paddle's threads spin.
    return float(np.einsum("i,i->", x, y))


def as_float(array: Array) -> Array:
    """Return values that numpy can compute with: raw bfloat16 (``uint16``) as float32."""
    if array.dtype != np.uint16:
        return array
    return float32_of_bfloat16(array)
