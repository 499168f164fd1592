"""Samples of activations, channel by channel, for estimating the error of quantization."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..program.parameters import Array
from .layouts import spread

_BYTES = 1 << 19  # kept per activation
_PARTS = 16  # wait at most before the rows to keep are chosen

_Rows = tuple[Array, NDArray[np.uint64]]
"""Positions, float32[positions, channels], and a hash of each."""


class ActivationSample:
    """Some positions of an activation, and the largest magnitude of each channel.

    The positions whose values have the least hashes are kept (bottom-k sampling, Cohen and Kaplan,
    2007). So the choice depends neither on their order, nor on how they were split among samples
    that were merged later. ``abs_max``, float32[channels], covers all values; it is empty until
    something is seen.
    """

    def __init__(self, abs_max: Array | None = None, rows: Array | None = None) -> None:
        self.abs_max: Array = np.zeros(0, np.float32) if abs_max is None else abs_max
        self._kept: _Rows | None = None
        self._waiting: list[_Rows] = []
        if rows is not None and len(rows):
            self._add(*kernels.sample_rows(rows[:, None, None], [0]))

    @property
    def rows(self) -> Array:
        """The kept positions: float32[positions, channels]."""
        if self._waiting:
            self._choose()
        return self._kept[0] if self._kept else np.zeros((0, self.abs_max.size), np.float32)

    def divided(self, factors: Array) -> ActivationSample:
        """Return the sample of the activation divided by factors, one per channel."""
        return ActivationSample(self.abs_max / factors, self.rows / factors)

    def observe(self, samples: NDArray[np.generic], dtype: str | None = None) -> None:
        """Keep some positions of one batch: [samples, blocks, positions, channels of a block]."""
        positions = spread(samples.shape[2])[::2]  # few, but from every sample
        self._add(*kernels.sample_rows(samples, positions, dtype=dtype))

    def raise_maxima(self, abs_max: Array) -> None:
        """Add the largest magnitude of each channel of one batch: float32[channels]."""
        self.abs_max = np.maximum(self.abs_max, abs_max) if self.abs_max.size else abs_max

    def merge(self, other: ActivationSample) -> None:
        """Add the sample of the same activation over other data."""
        if other.abs_max.size:
            self.raise_maxima(other.abs_max)
            for part in other._parts:
                self._add(*part)

    @property
    def _parts(self) -> list[_Rows]:
        return [self._kept, *self._waiting] if self._kept else self._waiting

    def _add(self, rows: Array, hashes: NDArray[np.uint64]) -> None:
        most = _most(rows)
        if self._kept and len(self._kept[0]) == most:
            less = hashes < self._kept[1][-1]
            rows, hashes = rows[less], hashes[less]
        if len(rows):
            self._waiting.append((rows, hashes))
        is_much = sum(len(part) for part, _ in self._waiting) > most
        if is_much or len(self._waiting) == _PARTS:
            self._choose()

    def _choose(self) -> None:
        rows, hashes = (np.concatenate(part) for part in zip(*self._parts))
        least = np.argsort(hashes, kind="stable")[: _most(rows)]
        self._kept, self._waiting = (rows[least], hashes[least]), []


def _most(rows: Array) -> int:
    """Return how many rows of this length are kept."""
    return max(1, _BYTES // int(rows.shape[1] * rows.itemsize))
