"""Timing functions against each other on a shared machine."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_SHORTEST = 0.01  # seconds that one sample lasts at least
_LONGEST = 1.0  # a call that takes this many seconds is timed only once


def median_seconds(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds per call of each function.

    The functions take turns, so that other load on the machine slows all of them alike: compare
    the numbers of one call with each other, not with those of another call. As in `timeit`, garbage
    collection is off meanwhile: with all that Paddle imports, it takes Python a while.
    """
    with _no_collection():
        return _medians(functions, rounds)


def _medians(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    samples = {name: [_seconds(function, 1)] for name, function in functions.items()}
    again = {name: function for name, function in functions.items() if samples[name][0] < _LONGEST}
    repeats = {}
    for name, function in again.items():
        samples[name] = []  # drops the first call, which is slower than the others
        repeats[name] = max(1, int(_SHORTEST / max(_seconds(function, 1), 1e-9)))
    for _ in range(rounds):
        for name, function in again.items():
            samples[name].append(_seconds(function, repeats[name]))
    return {name: statistics.median(values) for name, values in samples.items()}


def _seconds(function: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


@contextmanager
def _no_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
