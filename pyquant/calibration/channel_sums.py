"""Sums over the channels of activations, exact: the mean of a channel is that of all the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import kernels

# The sum of a sample is kept in whole numbers and in fractions of 2^-40, as integers: what is added
# up does not depend on the order.
_FRACTION_BITS = 40
_LARGEST = 2.0**45  # 2^18 of them can be added up


@dataclass
class ChannelSums:
    """The sum of each channel of an activation, and of how many positions it is.

    Attributes:
        axis: of the channels; negative from the end.
        positions: that were seen.
        whole: int64[channels], the whole part of the sums; empty while nothing was seen.
        fraction: int64[channels], the rest in units of 2^-40.
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
        sums = np.clip(sums, -_LARGEST, _LARGEST)
        whole = np.floor(sums)
        fraction = np.ldexp(sums - whole, _FRACTION_BITS)
        self._add(size // sums.shape[1], _total(whole), _total(fraction))

    def merge(self, other: ChannelSums) -> None:
        """Add those of the same activation over other data."""
        self._add(other.positions, other.whole, other.fraction)

    def _add(self, positions: int, whole: NDArray[np.int64], fraction: NDArray[np.int64]) -> None:
        self.positions += positions
        if not self.whole.size:
            self.whole, self.fraction = whole, fraction
        elif whole.size:
            self.whole, self.fraction = self.whole + whole, self.fraction + fraction


def _total(parts: NDArray[np.float64]) -> NDArray[np.int64]:
    total: NDArray[np.int64] = parts.astype(np.int64).sum(axis=0)
    return total
