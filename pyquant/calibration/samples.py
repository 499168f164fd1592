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
from .positions import spread

_BYTES = 1 << 20  # of each activation are kept


class ActivationSample:
    """Some positions of each sample of an activation, of the first samples, and each channel's max.

    Attributes:
        abs_max: float32[channels], the largest magnitude of all values.
    """

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

    def observe(self, array: Array) -> None:
        """Add one batch, [samples, ...] float32."""
        axis = self._channel_axis % array.ndim
        abs_max = kernels.channel_abs_max(array, axis)
        self.abs_max = np.maximum(self.abs_max, abs_max) if self.abs_max.size else abs_max
        if self._left <= 0:
            return
        parts = array.reshape(len(array), math.prod(array.shape[1:axis]), len(abs_max), -1)
        outer, inner = np.divmod(spread(parts.shape[1] * parts.shape[3]), parts.shape[3])
        chosen = parts[:, outer, :, inner].swapaxes(0, 1).reshape(-1, len(abs_max))
        chosen = chosen[: max(1, self._left // chosen[0].nbytes)]
        self._rows.append(np.ascontiguousarray(chosen))
        self._left -= chosen.nbytes


Samples = Mapping[str, ActivationSample]
"""By the name of the activation."""


def samples_of(model: Model, ops: Iterable[WeightedOp]) -> dict[str, ActivationSample]:
    """Return the samples to collect of what ``ops`` read, if all of them read the same channels."""
    return {name: ActivationSample(axis) for name, axis in channel_axes(model, ops).items()}
