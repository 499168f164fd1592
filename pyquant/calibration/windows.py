"""The window of a feature map that a convolution reads at each position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..program.op import Geometry, Op, Padding
from ..program.parameters import Array


@dataclass(frozen=True)
class Window:
    """The taps of a convolution, and how they move."""

    kernel: tuple[int, ...]  # the number of taps along height and width
    geometry: Geometry

    @classmethod
    def of(cls, desc: Op, kernel: tuple[int, ...]) -> Window:
        return cls(kernel, desc.geometry())

    def over(self, feature_maps: Array) -> Array:
        """Return the windows of NCHW arrays: [N, C, positions down, across, taps down, across]."""
        padding = [self._padding(axis, size) for axis, size in enumerate(feature_maps.shape[2:])]
        padded = np.pad(feature_maps, ((0, 0), (0, 0), *padding))
        spans = [self._span(axis) for axis in range(2)]
        windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(2, 3))
        windows = windows[:, :, :: self.geometry.strides[0], :: self.geometry.strides[1]]
        return windows[..., :: self.geometry.dilations[0], :: self.geometry.dilations[1]]

    def inside(self, sizes: tuple[int, ...]) -> Array:
        """Return the share of positions at which each tap is inside the feature map: [taps].

        Along an unknown height or width, below 1, every tap counts as inside.
        """
        down, across = (self._inside(axis, size) for axis, size in enumerate(sizes))
        return np.outer(down, across).reshape(-1)

    def _inside(self, axis: int, size: int) -> Array:
        taps = np.arange(self.kernel[axis]) * self.geometry.dilations[axis]
        before, behind = self._padding(axis, size)
        if size < 1 or before == behind == 0:
            return np.ones(len(taps))
        stride = self.geometry.strides[axis]
        positions = (size + before + behind - self._span(axis)) // stride + 1
        if positions < 1:
            return np.ones(len(taps))
        # Position i puts a tap on the place i * stride + tap - before.
        first = np.clip(-((taps - before) // stride), 0, positions)
        end = np.clip((size - 1 + before - taps) // stride + 1, 0, positions)
        inside: Array = (end - first) / positions
        return inside

    def _span(self, axis: int) -> int:
        return (self.kernel[axis] - 1) * self.geometry.dilations[axis] + 1

    def _padding(self, axis: int, size: int) -> Padding:
        if self.geometry.paddings is not None:
            return self.geometry.paddings[axis]
        stride = self.geometry.strides[axis]  # "SAME", for which Paddle sets dilations to 1
        total = max((-(-size // stride) - 1) * stride + self.kernel[axis] - size, 0)
        return total // 2, total - total // 2
