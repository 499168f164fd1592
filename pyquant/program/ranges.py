"""The range of a tensor's values, and the grid of integers that covers it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .parameters import Array

_UNSIGNED_LEVELS, _SIGNED_LEVELS = 255, 127


class Range(NamedTuple):
    """The range of a tensor's values: the least and the greatest that were seen."""

    threshold: float  # the largest magnitude that is not clipped
    minimum: float
    maximum: float

    def filled(self, threshold: float) -> Range:
        """Return the range of the same signs that reaches as far as a threshold."""
        return Range(threshold, -threshold if self.minimum < 0 else 0.0, threshold)

    def within(self, least: float, greatest: float) -> Range:
        """Return the range of the same values, clipped."""
        minimum, maximum = (min(max(one, least), greatest) for one in self[1:])
        return Range(min(self.threshold, max(-minimum, maximum)), minimum, maximum)

    @property
    def is_one_sided(self) -> bool:
        """Whether a grid with a zero point has steps about half as large as a symmetric one."""
        smaller, larger = sorted((-self.minimum, self.maximum))
        return smaller <= 0 or smaller < larger / 3


class Grid(NamedTuple):
    """integer = round(value * factor + zero_point), of 8 bits, ties to even."""

    factor: float  # integers per unit of the values
    zero_point: int  # the integer of zero
    unsigned: bool  # uint8, otherwise int8

    @property
    def limits(self) -> tuple[int, int]:
        return (0, 255) if self.unsigned else (-128, 127)

    @property
    def least(self) -> float:
        """The least value that an integer stands for."""
        return (self.limits[0] - self.zero_point) / self.factor

    @property
    def greatest(self) -> float:
        """The greatest value that an integer stands for."""
        return (self.limits[1] - self.zero_point) / self.factor

    def as_unsigned(self) -> Grid:
        """Return the unsigned grid of the same values, given a symmetric signed one."""
        return Grid(self.factor, _SIGNED_LEVELS + 1, True)

    def rounded(self, values: Array) -> Array:
        """Return the float32 values that the integers of ``values`` stand for."""
        factor, zero_point = np.float32(self.factor), np.float32(self.zero_point)
        integers = np.clip(np.rint(values * factor + zero_point), *map(np.float32, self.limits))
        found: Array = (integers - zero_point) / factor
        return found


def unit_range(given: Range) -> Range:
    """Return the range of positions divided by their largest magnitudes."""
    return Range(1.0, -1.0 if given.minimum < 0 else 0.0, 1.0 if given.maximum > 0 else 0.0)


def symmetric_grid(given: Range, unsigned: bool) -> Grid:
    """Return the grid that maps the threshold to the largest integer."""
    levels = _UNSIGNED_LEVELS if unsigned else _SIGNED_LEVELS
    return Grid(levels / (given.threshold or 1.0), 0, unsigned)


def fitted_grid(given: Range) -> Grid:
    """Return the grid whose integers span the values from the least to the largest not clipped."""
    least = max(given.minimum, -given.threshold)
    largest = min(given.maximum, given.threshold)
    if least >= 0:
        return symmetric_grid(given, True)
    factor = _UNSIGNED_LEVELS / (max(largest, 0.0) - least)
    return Grid(factor, round(-least * factor), True)
