"""Statistics of one activation, whose size does not grow with the data.

Both kinds depend on the data alone: not on its order, nor on how it is split into batches, nor on
how it is split among statistics that are merged later.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..program.ranges import Range
from .channel_statistics import ActivationChannels

BINS = 4096
"""Bins of every histogram; at least half of them lie within [0, abs max]."""

_SMALLEST_EXPONENT = -120

UNITS_PER_ONE = 149
"""Every float32 is a whole multiple of 2 to minus this, so integers hold exact sums."""


def width_exponent_for(magnitude: float) -> int:
    """Return the least e with ``magnitude`` < BINS * 2^e."""
    return max(math.frexp(magnitude)[1] - BINS.bit_length() + 1, _SMALLEST_EXPONENT)


@dataclass
class ActivationMaxima:
    """The largest magnitude of all values, and the sum of each sample's largest magnitude."""

    abs_max: float = 0.0
    values: int = 0  # how many were seen
    samples: int = 0  # how many entries along axis 0 were seen
    sample_abs_max_sum: int = 0  # exact, in units of 2^-149
    non_finite: int = 0  # NaN or infinite values; nothing else of their batches is counted
    channels: ActivationChannels | None = None  # if they are asked for

    @property
    def mean_abs_max(self) -> float:
        """The mean of every sample's largest magnitude, rounded once."""
        unit = Fraction(1, 2**UNITS_PER_ONE)
        return float(self.sample_abs_max_sum * unit / self.samples)

    def range(self, threshold: float) -> Range:
        """Return the range of the values; ``threshold`` is the largest magnitude not clipped."""
        return Range(threshold, -self.abs_max, self.abs_max)

    def observe(self, samples: NDArray[np.generic], dtype: str | None = None) -> int:
        """Add the values of one batch unless some are NaN or infinite; return how many are.

        ``samples`` is contiguous, [samples, values], or with ``channels`` [samples, blocks,
        positions, channels of a block]. It is read only once if the channels are interleaved.
        ``dtype`` is ``"bfloat16"`` for raw ``uint16``.
        """
        seen = kernels.sample_maxima(_joined(samples), dtype=dtype)
        if not np.isfinite(seen.sample_abs_max).all():
            counted = np.zeros(BINS, np.uint64)
            non_finite = kernels.observe(_rows(samples), counted, 0, dtype=dtype).non_finite
            self.non_finite += non_finite
            return non_finite
        self._add(samples, seen, dtype)
        return 0

    def merge(self, other: ActivationMaxima) -> None:
        """Add what ``other``, of the same tensor, has seen."""
        self.abs_max = max(self.abs_max, other.abs_max)
        self.values += other.values
        self.samples += other.samples
        self.sample_abs_max_sum += other.sample_abs_max_sum
        self.non_finite += other.non_finite
        if self.channels is not None and other.channels is not None:
            self.channels.merge(other.channels)

    def _add(
        self,
        samples: NDArray[np.generic],
        seen: kernels.Maxima | kernels.Observation,
        dtype: str | None,
    ) -> None:
        self.values += samples.size
        self.samples += seen.sample_abs_max.size
        self.abs_max = max(self.abs_max, float(seen.sample_abs_max.max()))
        for value in seen.sample_abs_max.tolist():
            self.sample_abs_max_sum += int(math.ldexp(value, UNITS_PER_ONE))
        if self.channels is not None:
            self.channels.add(samples, seen.channel_sums, seen.channel_abs_max, dtype)


@dataclass
class ActivationHistogram(ActivationMaxima):
    """A histogram of |x| with bins of width 2^``width_exponent``, and the true extremes.

    The width is always the least power of two for which BINS bins reach the largest magnitude seen.
    A larger magnitude doubles the width and merges neighbouring bins, which is exact. ``counts`` is
    uint64[BINS]; bin i counts i*w <= |x| < (i+1)*w.
    """

    counts: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(BINS, np.uint64))
    width_exponent: int | None = None  # log2 of the bin width; None while only zeros were seen
    minimum: float = math.inf
    maximum: float = -math.inf
    zeros: int = 0

    def range(self, threshold: float) -> Range:
        return Range(threshold, self.minimum, self.maximum)

    @property
    def bin_width(self) -> float:
        """The width of a bin, in the unit of the values."""
        return math.ldexp(1.0, self.width_exponent or 0)

    def observe(self, samples: NDArray[np.generic], dtype: str | None = None) -> int:
        """Add the values of one batch, as `ActivationMaxima.observe` does.

        The values are read a second time only if they widen the histogram.
        """
        exponent = self.width_exponent
        if exponent is None:
            largest = kernels.abs_max(samples, dtype=dtype)
            exponent = width_exponent_for(largest) if 0 < largest < math.inf else 0
        seen = kernels.observe(_joined(samples), self.counts, exponent, dtype=dtype)
        if seen.non_finite:
            if seen.counted:
                self._take_back(samples, exponent, dtype)
            self.non_finite += seen.non_finite
            return seen.non_finite
        self.zeros += seen.zeros
        self._add(samples, seen, dtype)
        self.minimum = min(self.minimum, seen.minimum)
        self.maximum = max(self.maximum, seen.maximum)
        if not seen.counted:
            exponent = width_exponent_for(self.abs_max)
            self._widen(exponent)
            kernels.observe(_rows(samples), self.counts, exponent, dtype=dtype)
        if self.abs_max > 0:
            self.width_exponent = exponent
        return 0

    def merge(self, other: ActivationMaxima) -> None:
        assert isinstance(other, ActivationHistogram)
        super().merge(other)
        self.zeros += other.zeros
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        exponents = [e for e in (self.width_exponent, other.width_exponent) if e is not None]
        counts = other.counts.copy()
        if exponents:
            counts = _widened(counts, other.width_exponent, max(exponents))
            self._widen(max(exponents))
        self.counts += counts

    def _take_back(self, samples: NDArray[np.generic], exponent: int, dtype: str | None) -> None:
        """Subtract the finite values of a batch that was already counted."""
        counted = np.zeros(BINS, np.uint64)
        kernels.observe(_rows(samples), counted, exponent, dtype=dtype)
        self.counts -= counted

    def _widen(self, exponent: int) -> None:
        self.counts = _widened(self.counts, self.width_exponent, exponent)
        self.width_exponent = exponent


Statistics = Mapping[str, ActivationMaxima]
"""Statistics by the name of the tensor."""


def channels_of(statistics: Statistics) -> dict[str, ActivationChannels]:
    """Return the channel statistics of the tensors that have them, by name."""
    channels = {name: statistic.channels for name, statistic in statistics.items()}
    return {name: one for name, one in channels.items() if one is not None}


Kind = TypeVar("Kind", bound=ActivationMaxima)


def empty_statistics(
    names: Collection[str], kind: type[Kind], axes: Mapping[str, int]
) -> dict[str, Kind]:
    """Return an empty statistic for each name, with channels if ``axes`` has their axis."""
    return {name: empty_statistic(kind, axes.get(name)) for name in names}


def empty_statistic(kind: type[Kind], axis: int | None) -> Kind:
    """Return an empty statistic, with channels if their axis is given."""
    return kind() if axis is None else kind(channels=ActivationChannels(axis))


def _rows(samples: NDArray[np.generic]) -> NDArray[np.generic]:
    return samples.reshape(len(samples), -1)


def _joined(samples: NDArray[np.generic]) -> NDArray[np.generic]:
    """Keep the channel axes if channels are interleaved; a separate pass is faster otherwise."""
    return samples if samples.shape[-1] > 1 else _rows(samples)


def _widened(
    counts: NDArray[np.uint64], exponent: int | None, new_exponent: int
) -> NDArray[np.uint64]:
    """Return the histogram with bins of width 2^new_exponent; zeros alone (None) fit any."""
    if exponent is None or exponent == new_exponent:
        return counts
    merged = 1 << min(new_exponent - exponent, BINS.bit_length() - 1)
    wide = np.zeros_like(counts)
    wide[: BINS // merged] = counts.reshape(-1, merged).sum(axis=1, dtype=np.uint64)
    return wide
