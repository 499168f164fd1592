"""The search for the fewest ops to keep in float."""

from __future__ import annotations

import math

import pytest

from pyquant.static_mode.search import fewest, fewest_in_float

pytestmark = pytest.mark.any_isa

ERRORS = [0.5, 0.2, *[0.1] * 20, *[0.01] * 40]
SQUARES = [error**2 for error in ERRORS]


def searched(scale: float, exponent: float, known: bool = True) -> tuple[int, bool, list[int]]:
    """Search where the outputs' error is a power of the sum of squares that are left."""
    tried = list[int]()

    def power_with(kept: int) -> float:
        tried.append(kept)
        return scale * sum(SQUARES[kept:]) ** exponent

    power = scale * sum(SQUARES) ** exponent if known else math.nan
    return *fewest_in_float(power_with, ERRORS, power, 0.01), tried


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("exponent", [0.5, 1, 2])
@pytest.mark.parametrize("scale", [0.05, 0.3, 3])
def test_few_trials_find_nearly_the_fewest(scale: float, exponent: float, known: bool) -> None:
    kept, is_near, tried = searched(scale, exponent, known)
    fewest_possible = fewest(
        lambda count: scale * sum(SQUARES[count:]) ** exponent <= 0.01, len(ERRORS)
    )
    assert is_near
    assert fewest_possible <= kept <= max(fewest_possible + 2, 1.3 * fewest_possible)
    assert len(tried) <= (6 if known else 9)
    assert len(set(tried)) == len(tried)


def test_what_cannot_be_met() -> None:
    tried = list[int]()

    def power_with(kept: int) -> float:
        tried.append(kept)
        return 0.02

    assert fewest_in_float(power_with, ERRORS, 1.0, 0.01) == (len(ERRORS), False)
    assert tried[-1] == len(ERRORS)
    assert len(tried) < 12
    assert fewest_in_float(lambda _: math.nan, ERRORS, math.nan, 0.01) == (len(ERRORS), False)
    kept, is_near = fewest_in_float(lambda kept: float(kept < 3), ERRORS, math.nan, 0.01)
    assert is_near
    assert 3 <= kept < 10
