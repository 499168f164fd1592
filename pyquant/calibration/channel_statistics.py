"""Per-channel statistics of an activation; the sums do not depend on the order of the batches."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..kernels import FRACTION_BITS
from ..program.parameters import Array
from .layouts import Layout
from .samples import ActivationSample


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


@dataclass
class ActivationChannels:
    """The sums and maxima of an activation's channels, and a sample of its positions."""

    axis: int  # of the channels; a negative one counts from the end
    sums: ChannelSums = field(default_factory=ChannelSums)
    sample: ActivationSample = field(default_factory=ActivationSample)

    def add(
        self,
        samples: NDArray[np.generic],
        sums: NDArray[np.float64] | None,
        abs_max: NDArray[np.float32] | None,
        dtype: str | None = None,
    ) -> None:
        """Add one batch, in the shape that `by_channel` returns.

        ``sums`` is float64[samples, channels], ``abs_max`` float32[channels]. Both are None if the
        channels are not interleaved.
        """
        if sums is None or abs_max is None:
            sums = kernels.channel_sums(samples, 1, dtype=dtype)
            abs_max = kernels.channel_abs_max(samples, 1, dtype=dtype)
        self.sums.add(sums, samples.size)
        self.sample.raise_maxima(abs_max)
        self.sample.observe(samples, dtype)

    def merge(self, other: ActivationChannels) -> None:
        """Add the statistics of the same activation over other data."""
        self.sums.merge(other.sums)
        self.sample.merge(other.sample)


def by_channel(array: Array, axis: int, layout: Layout | None) -> Array:
    """Return values as [samples, blocks, positions, channels of a block].

    The values lie in memory in ``layout``; if it is None, in order, with channels along ``axis``.
    """
    if layout is not None:
        return layout.blocks(array)
    if axis % array.ndim == array.ndim - 1:
        return array.reshape(array.shape[0], 1, -1, array.shape[-1])
    in_front = np.ascontiguousarray(np.moveaxis(array, axis, 1))
    return in_front.reshape(*in_front.shape[:2], -1, 1)
