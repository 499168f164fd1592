"""Searches for the ops to keep in float."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# The search ends if the last set that is near loses at most this much more than one that is not.
_SLACK = 1 / 8
_ENOUGH_TRIALS = 6
# Errors do not quite add up as predicted, so the prediction is to be met with something to spare.
_AIM = 0.8
# By what the budget of errors is divided, if nothing predicts it, and at least.
_STEP, _LEAST_STEP = 4.0, 1.5
# An op counts as erring by this share of what all do at least.
_LEAST_SHARE = 1e-6
# A budget of errors is spent in this many parts. Each op's error is rounded up to whole ones.
_PARTS = 4096


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


@dataclass(frozen=True)
class _Trial:
    """A set of ops in float that was tried.

    Attributes:
        budget: the sum of squared errors that the ops in int8 may have.
        kept: the positions of those in float.
        lost: the time that they do not save.
        power: of the outputs' error.
    """

    budget: float
    kept: frozenset[int]
    lost: float
    power: float


def cheapest_in_float(
    power_with: Callable[[frozenset[int]], float],
    errors: Sequence[float],
    saved: Sequence[float],
    power: float,
    bound: float,
) -> tuple[frozenset[int], bool]:
    """Return the positions of the ops to keep in float, and whether that meets a bound.

    ``errors`` are what the ops do to the outputs, as rms, and ``saved`` is the time that int8 saves
    for each: as little as possible of it is lost. ``power_with`` tells the power of the outputs'
    error, given which ops are in float; ``power`` is that with none, NaN if it is not known. It is
    taken to grow with the sum of the squared errors of the ops in int8: what was tried last
    predicts what to try next.
    """
    squares = [error**2 for error in errors]
    least = max(_LEAST_SHARE * sum(squares), 1e-30)
    squares = [max(square, least) for square in squares]
    every = frozenset(range(len(squares)))
    failed = _Trial(sum(squares), frozenset(), 0.0, power)
    held: _Trial | None = None
    trials = list[_Trial]()
    while held is None or (len(trials) < _ENOUGH_TRIALS and _differ(held, failed)):
        budget = _below(failed, bound) if held is None else _between(held, failed, trials, bound)
        kept = every - _that_fit(squares, saved, budget)
        known = [trial for trial in (failed, held) if trial is not None and trial.kept == kept]
        now = power_with(kept) if not known else known[0].power
        trial = _Trial(budget, kept, sum(saved[position] for position in kept), now)
        trials += [] if known else [trial]
        if now <= bound:  # which NaN is not
            held = trial
        elif kept == every:
            return every, False
        else:
            failed = trial
    near = [trial for trial in trials if trial.power <= bound]
    return min(near, key=lambda trial: trial.lost).kept, True


def _that_fit(squares: Sequence[float], saved: Sequence[float], budget: float) -> set[int]:
    """Return the positions of ops whose errors fit in a budget, and that save most in all.

    This is the knapsack problem, solved by dynamic programming. A greedy choice leaves out an op
    that takes most of the budget and saves more than all that would be chosen in its place.
    """
    parts = [math.ceil(_PARTS * square / budget) for square in squares]
    most = np.zeros(_PARTS + 1)  # that the ops looked at so far save, for each number of parts
    taken = np.zeros((len(squares), _PARTS + 1), np.bool_)
    for position, (size, worth) in enumerate(zip(parts, saved)):
        if size <= _PARTS:
            with_op = most[: _PARTS + 1 - size] + worth
            taken[position, size:] = with_op > most[size:]
            most[size:] = np.maximum(most[size:], with_op)
    fitting, left = set[int](), _PARTS
    for position in reversed(range(len(squares))):
        if taken[position, left]:
            fitting.add(position)
            left -= parts[position]
    return fitting


def _differ(held: _Trial, failed: _Trial) -> bool:
    """Return whether a trial between two might lose much less time than the one that is near."""
    return held.lost - failed.lost > _SLACK * held.lost and failed.budget > 1.01 * held.budget


def _below(failed: _Trial, bound: float) -> float:
    """Return a budget with which the outputs should be near, where one is too large."""
    share = _AIM * bound / failed.power
    return failed.budget * (1 / _STEP if math.isnan(share) else min(share, 1 / _LEAST_STEP))


def _between(held: _Trial, failed: _Trial, trials: Sequence[_Trial], bound: float) -> float:
    """Return a budget between one with which the outputs are near and a larger one."""
    last = [trial.power <= bound for trial in trials[-2:]]
    share = 0.5
    if last not in ([True] * 2, [False] * 2) and held.power > 0:  # else it predicts badly
        predicted = math.log(_AIM * bound / held.power) / math.log(failed.power / held.power)
        share = predicted if 0.1 < predicted < 0.9 else 0.5
    return float(held.budget * (failed.budget / held.budget) ** share)
