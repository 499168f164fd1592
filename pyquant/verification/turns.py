"""The times of two models that run in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

# Pairs of runs; fewer if they take longer than this together.
_PAIRS = 7
_SECONDS = 0.3


class Times(NamedTuple):
    """Median seconds of two models, and how many times as fast the second is, by pairs of runs."""

    first: float
    second: float
    ratio: float


def in_turns(first: Callable[[], object], second: Callable[[], object]) -> Times:
    """Time two runs of the same data, which have run before."""
    pairs: list[tuple[float, float]] = []
    began = time.perf_counter()
    while not pairs or (len(pairs) < _PAIRS and time.perf_counter() - began < _SECONDS):
        pairs.append((_seconds(first), _seconds(second)))
    one, other = zip(*pairs)
    return Times(median(one), median(other), median(a / b for a, b in pairs))


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
