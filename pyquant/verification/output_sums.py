"""How far an output is from what it should be, over any number of batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..comparison.similarity import ErrorSums, Similarity, as_float
from ..program.parameters import Array
from .compared import Compared
from .outcome import OutputDifference

_LEAST_VARIATION = 0.01  # of an output, as a share of its power


class OutputSums:
    """Sums over an output of a float model and of an int8 model.

    ``least`` is the power that each value counts as at least.
    """

    def __init__(self, least: float) -> None:
        self._least, self._sums = least, ErrorSums()
        self._columns: list[_Columns] = []  # of each batch

    def add(self, expected: Array, found: Array) -> None:
        """Add a batch of float outputs and of int8 ones."""
        if expected.shape != found.shape:
            self._sums.noise = math.nan
        elif np.isfinite(expected).all():  # otherwise nothing is known
            self._sums.add(expected, found)
            self._columns.append(_Columns.of(expected))

    @property
    def similarity(self) -> Similarity | None:
        """Of the two; None if nothing was added."""
        return self._sums.similarity

    @property
    def power(self) -> float:
        """The power of the error as a share of the output's variation.

        The mean says nothing where all scores lie between 3 and 4. A signal that hardly varies
        counts as one that varies by a tenth of its magnitude.
        """
        sums = self._sums
        signal = max(self._variation(), _LEAST_VARIATION * sums.signal, self._least * sums.values)
        if math.isnan(sums.noise) or signal > 0:
            return sums.noise / (signal or 1.0)
        return float(sums.noise > 0)

    def _variation(self) -> float:
        """Return the sum of squares around the mean: of each column, if there are columns."""
        rows = sum(one.rows for one in self._columns)
        if rows < 2 or len({one.totals.size for one in self._columns}) > 1:
            return self._sums.variation
        totals = np.sum([one.totals for one in self._columns], axis=0)
        squares = np.sum([one.squares for one in self._columns], axis=0)
        return float((squares - totals**2 / rows).sum()) * rows / (rows - 1)


def differences(
    parts: Sequence[Compared], expected: Iterable[list[Array]], found: Iterable[list[Array]]
) -> list[OutputDifference]:
    """Return how far the parts of outputs are from what they should be, over all batches."""
    sums = [OutputSums(part.least) for part in parts]
    for outputs, references in zip(found, expected):
        for one, reference, output in zip(sums, references, outputs):
            one.add(as_float(reference), as_float(output))
    return [
        OutputDifference(str(part), one.similarity, one.power) for part, one in zip(parts, sums)
    ]


class _Columns(NamedTuple):
    """Sums over the rows of a batch of scores or features; no rows if it has no two dimensions."""

    rows: int
    totals: Array  # float64[columns]
    squares: Array

    @classmethod
    def of(cls, batch: Array) -> _Columns:
        if batch.ndim != 2:
            return cls(0, np.zeros(0), np.zeros(0))
        values = batch.astype(np.float64)
        return cls(len(values), values.sum(axis=0), np.square(values).sum(axis=0))
