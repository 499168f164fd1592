"""Samples of activations, channel by channel: by them the error that integers cause is judged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..arrays import as_float
from ..program.parameters import Array
from .layouts import Layout
from .positions import spread

_BYTES = 1 << 17  # of each activation are kept
_BYTES_WAITING = 1 << 19  # were seen, before it is chosen among them

# Odd, and with no pattern in its bits: 2^64 divided by the golden ratio.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class ActivationSample:
    """Some positions of an activation, and the largest magnitude of each channel.

    Which of the positions are kept is told by their values alone, those of the least hashes: it
    depends neither on their order, nor on which of several samples saw which before they were
    merged (bottom-k sampling, Cohen and Kaplan, 2007).

    Attributes:
        axis: of the channels; negative from the end.
        abs_max: float32[channels], of all values; empty while nothing was seen.
    """

    def __init__(self, axis: int, abs_max: Array | None = None, rows: Array | None = None) -> None:
        """Take what a sample has seen; nothing if only the axis is given."""
        self.axis = axis
        self.abs_max: Array = np.zeros(0, np.float32) if abs_max is None else abs_max
        self._kept: Array = np.zeros((0, self.abs_max.size), np.float32) if rows is None else rows
        self._seen: list[Array] = []

    @property
    def rows(self) -> Array:
        """What is kept: float32[positions, channels]."""
        if self._seen:
            rows = np.concatenate([self._kept, *self._seen] if len(self._kept) else self._seen)
            least = np.argsort(_hashes(rows), kind="stable")
            self._kept, self._seen = rows[least[: max(1, _BYTES // rows[0].nbytes)]], []
        return self._kept

    def divided(self, factors: Array) -> ActivationSample:
        """Return the sample of the activation divided by factors, one per channel."""
        return ActivationSample(self.axis, self.abs_max / factors, self.rows / factors)

    def observe(
        self, array: NDArray[np.generic], layout: Layout | None = None, dtype: str | None = None
    ) -> None:
        """Keep some positions of one batch, [samples, ...], in order unless a layout is given.

        ``dtype`` is ``"bfloat16"`` for raw ``uint16``.
        """
        rows = as_float(_chosen(array, self.axis % array.ndim, layout))
        self._add(np.ascontiguousarray(rows, np.float32))

    def observe_maxima(self, array: NDArray[np.generic], dtype: str | None = None) -> None:
        """Add the maxima of one batch, [samples, ...] in order, to those of the channels."""
        self.raise_maxima(kernels.channel_abs_max(array, self.axis % array.ndim, dtype=dtype))

    def raise_maxima(self, abs_max: Array) -> None:
        """Add the largest magnitudes of the channels of one batch: float32[channels]."""
        self.abs_max = np.maximum(self.abs_max, abs_max) if self.abs_max.size else abs_max

    def merge(self, other: ActivationSample) -> None:
        """Add that of the same activation over other data."""
        if other.abs_max.size:
            self.raise_maxima(other.abs_max)
            self._add(other.rows)

    def _add(self, rows: Array) -> None:
        self._seen = [*self._seen, rows]
        if sum(part.nbytes for part in self._seen) > _BYTES_WAITING:
            _ = self.rows


def _hashes(rows: Array) -> NDArray[np.uint64]:
    """Return a hash of each row's bits: uint64[rows]."""
    even = np.zeros((len(rows), rows.shape[1] + rows.shape[1] % 2), np.float32)
    even[:, : rows.shape[1]] = rows
    words = even.view(np.uint64)
    multipliers = np.arange(1, words.shape[1] + 1, dtype=np.uint64) * _MULTIPLIER
    hashes: NDArray[np.uint64] = np.einsum("rw,w->r", words, multipliers)
    # The low bits of a product know little of the high ones of its factors.
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MULTIPLIER
    hashes ^= hashes >> np.uint64(32)
    return hashes


def _chosen(array: NDArray[np.generic], axis: int, layout: Layout | None) -> NDArray[np.generic]:
    """Return some positions of each sample: [samples * positions, channels]."""
    channels = array.shape[axis]
    if layout is not None:
        positions = _positions(math.prod(array.shape[2:]))
        in_order = layout.in_order(array, positions)
        return np.reshape(in_order.swapaxes(1, 2), (-1, channels))
    parts = array.reshape(len(array), math.prod(array.shape[1:axis]), channels, -1)
    outer, inner = np.divmod(_positions(parts.shape[1] * parts.shape[3]), parts.shape[3])
    chosen: NDArray[np.generic] = parts[:, outer, :, inner].swapaxes(0, 1).reshape(-1, channels)
    return chosen


def _positions(count: int) -> Any:
    """Return which of the positions of a sample are looked at: few, but of every sample."""
    return spread(count)[::2]
