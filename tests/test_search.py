"""The search for the ops to keep in float."""

from __future__ import annotations

import math

import pytest

from pyquant.static_mode.search import cheapest_in_float

pytestmark = pytest.mark.any_isa

ERRORS = [0.5, 0.2, *[0.1] * 20, *[0.01] * 40]
SAVED = [4.0, *[1.0, 2.0, 5.0] * 20, 3.0]
BOUND = 0.01


def left(kept: frozenset[int]) -> float:
    return sum(error**2 for position, error in enumerate(ERRORS) if position not in kept)


def lost(kept: frozenset[int]) -> float:
    return sum(SAVED[position] for position in kept)


def least_loss(most: float) -> float:
    """Return what is lost at least by what leaves errors that are not above ``most``."""
    ranked = sorted(range(len(ERRORS)), key=lambda one: -(ERRORS[one] ** 2) / SAVED[one])
    return next(
        (lost(kept) for n in range(len(ERRORS)) if left(kept := frozenset(ranked[:n])) <= most),
        lost(frozenset(ranked)),
    )


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("exponent", [0.5, 1, 2])
@pytest.mark.parametrize("scale", [0.05, 0.3, 3])
def test_few_trials_lose_little_time(scale: float, exponent: float, known: bool) -> None:
    tried = list[frozenset[int]]()

    def power_with(kept: frozenset[int]) -> float:
        tried.append(kept)
        return float(scale * left(kept) ** exponent)

    power = scale * left(frozenset()) ** exponent if known else math.nan
    kept, is_near = cheapest_in_float(power_with, ERRORS, SAVED, power, BOUND)
    assert is_near
    assert scale * left(kept) ** exponent <= BOUND
    assert lost(kept) <= 1.3 * least_loss((BOUND / scale) ** (1 / exponent)) + 2
    assert len(tried) <= 6
    assert len(set(tried)) == len(tried)


def test_one_that_decides_is_kept_alone() -> None:
    """It costs more than all others, and so comes last by what its error is for that."""
    errors, saved = [0.01] * 30 + [0.1], [1.0] * 30 + [1000.0]

    def power_with(kept: frozenset[int]) -> float:
        return sum(errors[position] ** 2 for position in range(31) if position not in kept)

    kept, is_near = cheapest_in_float(power_with, errors, saved, power_with(frozenset()), 0.006)
    assert (kept, is_near) == (frozenset([30]), True)


def test_one_that_takes_most_of_the_budget_and_saves_most() -> None:
    """The last product of a decoder: each of the others saves more for its error."""
    errors, saved = [*[0.1] * 10, 0.45], [*[1.0] * 10, 18.0]

    def power_with(kept: frozenset[int]) -> float:
        return sum(errors[position] ** 2 for position in range(11) if position not in kept)

    kept, is_near = cheapest_in_float(power_with, errors, saved, power_with(frozenset()), 0.25)
    assert is_near
    assert 10 not in kept


def test_what_cannot_be_met() -> None:
    every, tried = frozenset(range(len(ERRORS))), list[frozenset[int]]()

    def power_with(kept: frozenset[int]) -> float:
        tried.append(kept)
        return 0.02

    assert cheapest_in_float(power_with, ERRORS, SAVED, 1.0, BOUND) == (every, False)
    assert tried[-1] == every
    assert len(tried) < 20
    nothing_runs = cheapest_in_float(lambda _: math.nan, ERRORS, SAVED, math.nan, BOUND)
    assert nothing_runs == (every, False)


def test_what_does_not_run_as_int8() -> None:
    def power_with(kept: frozenset[int]) -> float:
        return 0.0 if 1 in kept else math.nan

    kept, is_near = cheapest_in_float(power_with, ERRORS, SAVED, math.nan, BOUND)
    assert is_near
    assert 1 in kept
    assert len(kept) < len(ERRORS) / 2


def test_nothing_known_of_the_ops() -> None:
    def power_with(kept: frozenset[int]) -> float:
        return float(len(kept) < 5)

    kept, is_near = cheapest_in_float(power_with, [0.0] * 20, [1.0] * 20, 1.0, BOUND)
    assert is_near
    assert 5 <= len(kept) < 10
