"""The order in which feature maps lie in memory.

oneDNN chooses it for each op, and Paddle does not report it. A plain copy of the values reveals it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..arrays import view_values
from ..program.parameters import Array

_FEATURE_MAP_RANK = 4
# oneDNN stores feature maps in blocks of up to this many channels, the last padded with zeros.
_CHANNELS_PER_BLOCK = 16


def is_dense(shape: Sequence[int]) -> bool:
    """Return whether a tensor in oneDNN's order has no values but its own in its memory."""
    if len(shape) < _FEATURE_MAP_RANK:
        return True
    return len(shape) == _FEATURE_MAP_RANK and shape[1] % _CHANNELS_PER_BLOCK == 0


def plain_tensor(tensor: Any) -> Any:
    """Return a shown tensor with its values in order; Paddle must be in dygraph mode."""
    from paddle import _C_ops

    # assign has no oneDNN kernel: Paddle makes a plain tensor first.
    return _C_ops.assign(tensor)


def plain_copy(tensor: Any) -> Array:
    """Return the values of a float tensor that a hook shows, in order; see `plain_tensor`."""
    return view_values(plain_tensor(tensor))


def first_plain_copy(tensor: Any) -> Array:
    """Return the same of the first sample alone, which is cheaper than one of all samples."""
    from paddle import _C_ops, to_tensor

    return view_values(_C_ops.index_select(tensor, to_tensor([0]), 0))


@dataclass(frozen=True)
class Layout:
    """A memory order of [samples, channels, ...]."""

    block: int  # how many channels lie side by side at each position; 0 stands for all

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether feature maps of this shape can have this layout."""
        return shape[1] % (self.block or shape[1]) == 0

    def blocks(self, array: Array) -> Array:
        """Reshape values from memory to [samples, blocks, positions, channels of a block]."""
        samples, channels, *sizes = array.shape
        block = self.block or channels
        return array.reshape(samples, channels // block, math.prod(sizes), block)

    def in_order(self, array: Array, positions: Array | slice) -> Array:
        """Return some positions of values of this layout: [samples, channels, positions]."""
        chosen = self.blocks(array)[:, :, positions].swapaxes(2, 3)
        ordered: Array = chosen.reshape(*array.shape[:2], -1)
        return ordered


LAYOUTS: Mapping[str, Layout] = {
    "nchw": Layout(1),
    "nChw16c": Layout(16),
    "nChw8c": Layout(8),
    "nhwc": Layout(0),
}
"""The layouts by oneDNN's names."""


def found_layout(array: Array, plain: Array) -> Layout | None:
    """Return the layout of values in memory, or None if it cannot be determined.

    ``array`` is [samples, channels, ...] as in memory; ``plain`` has the same values in order.
    """
    channels = array.shape[1]
    # With a single block, a blocked layout is the same as nhwc.
    fitting = {one.block or channels: one for one in LAYOUTS.values() if one.fits(array.shape)}
    in_order = plain.reshape(*plain.shape[:2], -1)
    found = list(fitting.values())
    for positions in (spread(in_order.shape[2]), slice(None)):
        there = in_order[:, :, positions]
        found = [one for one in found if np.array_equal(one.in_order(array, positions), there)]
        if len(found) <= 1:
            break
    return found[0] if len(found) == 1 else None


@lru_cache
def spread(count: int, most: int = 32) -> Any:
    """Return up to ``most`` of ``count`` positions, spread by the golden ratio."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.floor(np.arange(most) * 0.6180339887498949 % 1 * count).astype(int))
