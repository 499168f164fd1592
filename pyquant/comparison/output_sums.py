"""How far an output is from what it should be, over any number of batches."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..program.parameters import Array
from .similarity import ErrorSums, Similarity

_LEAST_VARIATION = 0.01  # of an output, as a share of its power


class OutputSums:
    """Sums over an output of a float model and of an int8 model.

    ``least`` is the power that each value counts as at least.
    """

    def __init__(self, least: float) -> None:
        self._least, self._sums = least, ErrorSums()
        self._columns: _Columns | None = None

    def add(self, expected: Array, found: Array) -> None:
        """Add a batch of float outputs and of int8 ones."""
        if expected.shape != found.shape:
            self._sums.noise = math.nan
        elif np.isfinite(expected).all():  # otherwise nothing is known
            self._sums.add(expected, found)
            columns = _Columns.of(expected)
            self._columns = columns if self._columns is None else self._columns.with_rows(columns)

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
        if self._columns is None or self._columns.rows < 2:
            return self._sums.variation
        rows, totals, squares = self._columns
        return float((squares - totals**2 / rows).sum()) * rows / (rows - 1)


class _Columns(NamedTuple):
    """Sums over rows of scores or features; no rows if they have no two dimensions."""

    rows: int
    totals: Array  # float64[columns]
    squares: Array

    @classmethod
    def of(cls, batch: Array) -> _Columns:
        if batch.ndim != 2:
            return _NO_COLUMNS
        values = batch.astype(np.float64)
        return cls(len(values), values.sum(axis=0), np.square(values).sum(axis=0))

    def with_rows(self, others: _Columns) -> _Columns:
        """Return the sums over these rows and others; no rows if they have other columns."""
        if self.totals.size != others.totals.size:
            return _NO_COLUMNS
        return _Columns(
            self.rows + others.rows, self.totals + others.totals, self.squares + others.squares
        )


_NO_COLUMNS = _Columns(0, np.zeros(0), np.zeros(0))
