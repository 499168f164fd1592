"""What calibration keeps of one activation tensor, however much data runs through it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .. import kernels

BINS = 4096
"""Bins of every histogram; half of them at least lie within [0, abs max]."""

_SMALLEST_EXPONENT = -120

# A hook runs between two ops of Paddle, whose OpenMP threads still spin for the next one; a second
# OpenMP team beside them costs more than it gains (measured: three times, on two cores).
_THREADS = 1


def width_exponent_for(magnitude: float) -> int:
    """Return the least e with ``magnitude`` < BINS * 2^e."""
    return max(math.frexp(magnitude)[1] - BINS.bit_length() + 1, _SMALLEST_EXPONENT)


@dataclass
class ActivationStatistic:
    """A histogram of |x| with bins of width 2^``width_exponent``, and the true extremes.

    The width is always the least power of two for which BINS bins reach the largest magnitude seen.
    A larger one doubles it and adds neighbouring bins, which is exact. So the statistic depends on
    the data alone: not on their order, nor on how they are split into batches.

    Attributes:
        counts: uint64[BINS]; bin i counts i*w <= |x| < (i+1)*w.
        width_exponent: log2 of the bin width; None while only zeros were seen.
        minimum: the least value.
        maximum: the greatest value.
        values: how many values were seen.
        zeros: how many of them are zero.
        non_finite: how many were NaN or infinite; then the rest of the statistic is void.
        sample_abs_max: float32[samples] per batch, the largest magnitude of each sample (axis 0).
    """

    counts: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(BINS, np.uint64))
    width_exponent: int | None = None
    minimum: float = math.inf
    maximum: float = -math.inf
    values: int = 0
    zeros: int = 0
    non_finite: int = 0
    sample_abs_max: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def abs_max(self) -> float:
        """The largest magnitude."""
        return max(abs(self.minimum), abs(self.maximum)) if self.values else 0.0

    @property
    def bin_width(self) -> float:
        """The width of a bin, in the unit of the values."""
        return math.ldexp(1.0, self.width_exponent or 0)

    def observe(self, samples: NDArray[np.generic], dtype: str | None = None) -> None:
        """Add the values of one batch.

        Args:
            samples: [samples, values], contiguous; read once unless it widens the histogram.
            dtype: ``"bfloat16"`` for raw ``uint16``.
        """
        exponent = self.width_exponent
        if exponent is None:
            largest = kernels.abs_max(samples, dtype=dtype, num_threads=_THREADS)
            exponent = width_exponent_for(largest) if 0 < largest < math.inf else 0
        seen = kernels.observe(samples, self.counts, exponent, dtype=dtype, num_threads=_THREADS)
        self.values += samples.size
        self.zeros += seen.zeros
        self.non_finite += seen.non_finite
        if self.non_finite:
            return
        self.minimum = min(self.minimum, seen.minimum)
        self.maximum = max(self.maximum, seen.maximum)
        self.sample_abs_max.append(seen.sample_abs_max)
        if not seen.counted:
            exponent = width_exponent_for(self.abs_max)
            self._widen(exponent)
            kernels.observe(samples, self.counts, exponent, dtype=dtype, num_threads=_THREADS)
        if self.abs_max > 0:
            self.width_exponent = exponent

    def _widen(self, exponent: int) -> None:
        if self.width_exponent is not None:
            for _ in range(exponent - self.width_exponent):
                pairs = self.counts.reshape(-1, 2).sum(axis=1, dtype=np.uint64)
                self.counts[: pairs.size] = pairs
                self.counts[pairs.size :] = 0
