"""How close one tensor is to another: SQNR and cosine, over any number of batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import kernels
from ..program.parameters import Array
from ..program.weights import float32_of_bfloat16


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
        self.values += reference.size
        if not reference.dtype == other.dtype == np.float32:
            reference, other = reference.astype(np.float64), other.astype(np.float64)
        sums = kernels.error_sums(reference, other)
        self.total += sums.total
        self.signal += sums.signal
        self.noise += sums.noise
        self.other += sums.other
        self.product += sums.product

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


def as_float(array: Array) -> Array:
    """Return values that numpy can compute with: raw bfloat16 (``uint16``) as float32."""
    if array.dtype != np.uint16:
        return array
    return float32_of_bfloat16(array)
