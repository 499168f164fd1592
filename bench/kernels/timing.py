"""Timing functions against each other on a shared machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

_SHORTEST = 0.02  # seconds that one sample lasts at least


def median_seconds(functions: Mapping[str, Callable[[], Any]], rounds: int = 7) -> dict[str, float]:
    """Return the median seconds per call of each function.

    The functions take turns, so that what else the machine does slows all of them alike: compare
    the numbers of one call with each other, not with those of another.
    """
    repeats = {name: _repeats(function) for name, function in functions.items()}
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            samples[name].append(_seconds(function, repeats[name]))
    return {name: statistics.median(values) for name, values in samples.items()}


def _repeats(function: Callable[[], Any]) -> int:
    function()
    once = _seconds(function, 1)
    return max(1, int(_SHORTEST / max(once, 1e-9)))


def _seconds(function: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats
