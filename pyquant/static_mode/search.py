"""Searches for the fewest ops to keep in float, of ops that are ranked by their errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

# A few ops more than are needed may stay in float: finding the fewest takes more trials.
_SLACK = 1 / 8
_ENOUGH_TRIALS = 6
# Errors do not quite add up as predicted, so the prediction is to be met with something to spare.
_AIM = 0.8


def fewest(holds: Callable[[int], bool], most: int) -> int:
    """Return the least number from 0 to ``most`` that holds, if all greater ones do.

    It is doubled until it holds, and then halved in between. It is ``most`` if none holds.
    """
    too_few, enough = -1, 0
    while not holds(enough) and enough < most:
        too_few, enough = enough, min(most, max(1, 2 * enough))
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if holds(middle) else (middle, enough)
    return enough


def fewest_in_float(
    power_with: Callable[[int], float], errors: Sequence[float], power: float, bound: float
) -> tuple[int, bool]:
    """Return how many of the worst ops to keep in float, and whether that meets a bound.

    ``power_with`` tells the power of the outputs' error, given how many are in float; ``power`` is
    that with none, NaN if it is not known. It is taken to grow linearly with the sum of the squared
    errors of the ops that are left: what was tried last predicts what to try next.
    """
    squares = [error**2 for error in errors]
    left = [*accumulate(reversed(squares), initial=0.0)][::-1]
    most, tried, too_few = len(errors), {0: power}, 0
    enough: int | None = None
    held = list[bool]()

    def with_left(sum_of_squares: float) -> int:
        return next((kept for kept, rest in enumerate(left) if rest <= sum_of_squares), most)

    def beyond() -> int:
        share = _AIM * bound / tried[too_few]
        predicted = 1 if math.isnan(share) else with_left(share * left[too_few])
        return min(most, max(predicted, too_few + 1, 3 * too_few // 2))

    def between(few: int, many: int) -> int:
        share = (_AIM * bound - tried[many]) / (tried[few] - tried[many])
        if not 0 < share < 1 or held[-2:] in ([True] * 2, [False] * 2):  # it predicts badly
            return (few + many) // 2
        predicted = with_left(left[many] + share * (left[few] - left[many]))
        return min(many - 1, max(few + 1, predicted))

    while too_few < most:
        kept = beyond() if enough is None else between(too_few, enough)
        tried[kept] = power_with(kept)
        held.append(tried[kept] <= bound)  # not if it is NaN
        enough, too_few = (kept, too_few) if held[-1] else (enough, kept)
        if enough is not None and (
            enough - too_few <= 1 + int(_SLACK * enough) or len(tried) > _ENOUGH_TRIALS
        ):
            return enough, True
    return most, False
