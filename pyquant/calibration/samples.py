"""Samples of activations, channel by channel: by them the error that integers cause is judged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from copy import copy

import numpy as np

from .. import kernels
from ..program.channels import channel_axes
from ..program.model import Model
from ..program.parameters import Array
from ..program.quantizable import WeightedOp
from .layouts import Layout
from .positions import spread

_BYTES = 1 << 20  # of each activation are kept
_BYTES_TO_COMPARE = 1 << 18  # of these are looked at for each of several choices


class ActivationSample:
    """Some positions of each sample of an activation, of the first samples, and each channel's max.

    Attributes:
        abs_max: float32[channels], the largest magnitude of all values.
        takes_layouts: whether values need not be in order.
    """

    takes_layouts = True

    def __init__(self, channel_axis: int) -> None:
        """Take the axis of the channels."""
        self.abs_max: Array = np.zeros(0, np.float32)
        self._channel_axis = channel_axis
        self._rows: list[Array] = []
        self._left = _BYTES

    @property
    def rows(self) -> Array:
        """What was kept: float32[positions, channels]."""
        return np.concatenate(self._rows)

    def divided(self, factors: Array) -> ActivationSample:
        """Return the sample of the activation divided by factors, one per channel."""
        divided = copy(self)
        divided.abs_max = self.abs_max / factors
        divided._rows = [rows / factors for rows in self._rows]
        return divided

    def thinned(self) -> ActivationSample:
        """Return fewer of the positions, enough to compare errors by."""
        thinned = copy(self)
        rows = self.rows
        thinned._rows = [rows[:: -(-rows.nbytes // _BYTES_TO_COMPARE)]]
        return thinned

    def observe(self, array: Array, layout: Layout | None = None) -> None:
        """Add one batch, [samples, ...] float32, its values in order unless a layout is given."""
        axis = self._channel_axis % array.ndim
        abs_max = _abs_max(array, axis, layout)
        self.abs_max = np.maximum(self.abs_max, abs_max) if self.abs_max.size else abs_max
        if self._left <= 0:
            return
        chosen = _chosen(array, axis, layout)
        chosen = chosen[: max(1, self._left // chosen[0].nbytes)]
        self._rows.append(np.ascontiguousarray(chosen))
        self._left -= chosen.nbytes


def _abs_max(array: Array, axis: int, layout: Layout | None) -> Array:
    """Return the largest magnitude of each channel: float32[channels]."""
    if layout is None or layout.is_plain:
        return kernels.channel_abs_max(array, axis)
    blocks = layout.blocks(array)
    maxima = [
        kernels.channel_abs_max(np.ascontiguousarray(blocks[:, block]), 2)
        for block in range(blocks.shape[1])
    ]
    return np.concatenate(maxima)


def _chosen(array: Array, axis: int, layout: Layout | None) -> Array:
    """Return some positions of each sample: [samples * positions, channels]."""
    channels = array.shape[axis]
    if layout is not None:
        positions = spread(math.prod(array.shape[2:]))
        in_order = layout.in_order(array, positions)
        return np.reshape(in_order.swapaxes(1, 2), (-1, channels))
    parts = array.reshape(len(array), math.prod(array.shape[1:axis]), channels, -1)
    outer, inner = np.divmod(spread(parts.shape[1] * parts.shape[3]), parts.shape[3])
    chosen: Array = parts[:, outer, :, inner].swapaxes(0, 1).reshape(-1, channels)
    return chosen


Samples = Mapping[str, ActivationSample]
"""By the name of the activation."""


def samples_of(model: Model, ops: Iterable[WeightedOp]) -> dict[str, ActivationSample]:
    """Return the samples to collect of what ``ops`` read, if all of them read the same channels."""
    return {name: ActivationSample(axis) for name, axis in channel_axes(model, ops).items()}
