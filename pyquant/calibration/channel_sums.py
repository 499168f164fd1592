"""Per-channel sums of activations that do not depend on the order of the batches."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..kernels import FRACTION_BITS


@dataclass
class ChannelSums:
    """The sum of each channel of an activation, and the number of positions in it.

    ``whole`` is the whole part of the sums, int64[channels], and empty until something is seen.
    ``fraction`` is the rest, which is below one, in units of 2^-40.
    """

    positions: int = 0
    whole: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    fraction: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def means(self) -> NDArray[np.float64]:
        """The mean of each channel: float64[channels]."""
        means: NDArray[np.float64] = (
            self.whole + np.ldexp(self.fraction.astype(np.float64), -FRACTION_BITS)
        ) / self.positions
        return means

    def add(self, sums: NDArray[np.float64], size: int) -> None:
        """Add one batch of ``size`` values, given its sums, [samples, channels]."""
        self.positions += size // sums.shape[1]
        if not self.whole.size:
            self.whole, self.fraction = np.zeros((2, sums.shape[1]), np.int64)
        kernels.add_exactly(sums, self.whole, self.fraction)

    def merge(self, other: ChannelSums) -> None:
        """Add the sums of the same activation over other data."""
        self.positions += other.positions
        if not other.whole.size:
            return
        whole, fraction = other.whole, other.fraction
        if self.whole.size:
            whole, fraction = self.whole + whole, self.fraction + fraction
        carried = fraction >> FRACTION_BITS
        self.whole, self.fraction = whole + carried, fraction - (carried << FRACTION_BITS)
