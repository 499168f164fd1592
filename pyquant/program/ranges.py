"""What quantizing a tensor has to cover."""

from __future__ import annotations

from typing import NamedTuple


class Range(NamedTuple):
    """The values of a tensor.

    Attributes:
        threshold: the largest magnitude that is not cut.
        minimum: the least value seen.
        maximum: the greatest value seen.
    """

    threshold: float
    minimum: float
    maximum: float

    def up_to(self, threshold: float) -> Range:
        """Return the same values, cut beyond another threshold."""
        return self._replace(threshold=threshold)
