"""Sums over the channels of activations, exact: the mean of a channel is that of all the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import kernels

# The sum of a sample is kept in whole numbers and in fractions of 2^-40, as integers: what is added
# up does not depend on the order.
_FRACTION_BITS = 40
_LARGEST = 2.0**45  # 2^17 of them can be added up
_AT_ONCE = 2**20  # samples, of which each adds less than 2^40 fractions


@dataclass
class ChannelSums:
    """The sum of each channel of an activation, and of how many positions it is.

    Attributes:
        axis: of the channels; negative from the end.
        positions: that were seen.
        whole: int64[channels], the whole part of the sums; empty while nothing was seen.
        fraction: int64[channels], the rest in units of 2^-40, less than one.
    """

    axis: int
    positions: int
    whole: NDArray[np.int64]
    fraction: NDArray[np.int64]

    @classmethod
    def empty(cls, axis: int) -> ChannelSums:
        """Return the sums of nothing."""
        return cls(axis, 0, np.zeros(0, np.int64), np.zeros(0, np.int64))

    @property
    def means(self) -> NDArray[np.float64]:
        """The mean of each channel: float64[channels]."""
        means: NDArray[np.float64] = (
            self.whole + np.ldexp(self.fraction.astype(np.float64), -_FRACTION_BITS)
        ) / self.positions
        return means

    def observe(self, array: NDArray[np.generic], dtype: str | None = None) -> None:
        """Add one batch, [samples, ...]; ``dtype`` is ``"bfloat16"`` for raw ``uint16``."""
        self.add(kernels.channel_sums(array, self.axis % array.ndim, dtype=dtype), array.size)

    def add(self, sums: NDArray[np.float64], size: int) -> None:
        """Add one batch by its sums, [samples, channels], of ``size`` values."""
        self.positions += size // sums.shape[1]
        for start in range(0, len(sums), _AT_ONCE):
            part = np.clip(sums[start : start + _AT_ONCE], -_LARGEST, _LARGEST)
            whole = np.floor(part)
            fraction = np.ldexp(part - whole, _FRACTION_BITS)
            self._add(_total(whole), _total(fraction))

    def merge(self, other: ChannelSums) -> None:
        """Add those of the same activation over other data."""
        self.positions += other.positions
        self._add(other.whole, other.fraction)

    def _add(self, whole: NDArray[np.int64], fraction: NDArray[np.int64]) -> None:
        if self.whole.size and whole.size:
            whole, fraction = self.whole + whole, self.fraction + fraction
        if whole.size:
            carried = fraction >> _FRACTION_BITS
            self.whole, self.fraction = whole + carried, fraction - (carried << _FRACTION_BITS)


def _total(parts: NDArray[np.float64]) -> NDArray[np.int64]:
    total: NDArray[np.int64] = parts.astype(np.int64).sum(axis=0)
    return total
