"""In which order images lie in memory.

oneDNN chooses the order for each op, and Paddle does not tell it: it is found by a plain copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..program.parameters import Array
from .positions import spread


@dataclass(frozen=True)
class Layout:
    """An order of [samples, channels, ...].

    Attributes:
        block: so many channels lie beside one another at each position; 0 stands for all.
    """

    block: int

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether images of a shape can lie so."""
        return shape[1] % (self.block or shape[1]) == 0

    def blocks(self, array: Array) -> Array:
        """Return what lies so as [samples, blocks, positions, channels of a block].

        Args:
            array: of the shape [samples, channels, ...], with its values as they lie in memory.
        """
        samples, channels, *sizes = array.shape
        block = self.block or channels
        return array.reshape(samples, channels // block, math.prod(sizes), block)

    def in_order(self, array: Array, positions: Array | slice) -> Array:
        """Return what lies so in memory at some positions: [samples, channels, positions]."""
        chosen = self.blocks(array)[:, :, positions].swapaxes(2, 3)
        ordered: Array = chosen.reshape(*array.shape[:2], -1)
        return ordered


LAYOUTS: Mapping[str, Layout] = {
    "nchw": Layout(1),
    "nChw16c": Layout(16),
    "nChw8c": Layout(8),
    "nhwc": Layout(0),
}
"""By oneDNN's names."""


def found_layout(array: Array, plain: Array) -> Layout | None:
    """Return how values lie in memory, None if that cannot be told.

    Args:
        array: [samples, channels, ...], with its values as they lie in memory.
        plain: the same in order.
    """
    channels = array.shape[1]
    # Of one block, two of them are the same.
    fitting = {one.block or channels: one for one in LAYOUTS.values() if one.fits(array.shape)}
    in_order = plain.reshape(*plain.shape[:2], -1)
    found = list(fitting.values())
    for positions in (spread(in_order.shape[2]), slice(None)):
        there = in_order[:, :, positions]
        found = [one for one in found if np.array_equal(one.in_order(array, positions), there)]
        if len(found) <= 1:
            break
    return found[0] if len(found) == 1 else None
