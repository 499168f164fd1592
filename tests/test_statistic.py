"""The one-pass activation statistic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pyquant.calibration.statistic import (
    BINS,
    ActivationHistogram,
    ActivationMaxima,
    width_exponent_for,
)

pytestmark = pytest.mark.any_isa

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def observed(*batches: Any) -> ActivationHistogram:
    statistic = ActivationHistogram()
    for batch in batches:
        statistic.observe(np.asarray(batch, np.float32).reshape(len(batch), -1))
    return statistic


@given(arrays(np.float32, st.integers(1, 60), elements=FLOATS), st.randoms())
def test_any_split_in_any_order_gives_the_same(values: Any, random: Any) -> None:
    whole = observed(values)
    shuffled = values.tolist()
    random.shuffle(shuffled)
    cut = random.randint(1, len(shuffled))
    parts = [part for part in (shuffled[:cut], shuffled[cut:]) if part]
    split = observed(*parts)
    np.testing.assert_array_equal(whole.counts, split.counts)
    assert whole.width_exponent == split.width_exponent
    assert (whole.minimum, whole.maximum) == (split.minimum, split.maximum)
    assert (whole.values, whole.zeros) == (split.values, split.zeros)


@given(arrays(np.float32, st.integers(1, 60), elements=FLOATS))
def test_it_counts_as_numpy_does(values: Any) -> None:
    statistic = observed(values)
    assert statistic.abs_max == np.abs(values).max()
    assert statistic.counts.sum() == values.size
    bins = np.floor(np.abs(values.astype(np.float64)) / statistic.bin_width).astype(int)
    np.testing.assert_array_equal(statistic.counts, np.bincount(bins, minlength=BINS))


@given(st.floats(min_value=2.0**-100, max_value=2.0**127, width=32))
def test_half_of_the_bins_lie_within_abs_max(largest: float) -> None:
    statistic = observed([largest])
    position = int(np.flatnonzero(statistic.counts)[0])
    assert BINS // 2 <= position < BINS
    assert statistic.width_exponent == width_exponent_for(largest)


def test_growth_is_exact_over_many_doublings() -> None:
    values = np.logspace(-20, 20, 400, dtype=np.float32)
    grown = observed(*[[value] for value in values])
    np.testing.assert_array_equal(grown.counts, observed(values).counts)


@pytest.mark.parametrize("kind", [ActivationHistogram, ActivationMaxima])
@pytest.mark.parametrize("size", [3, 4 * BINS])
@pytest.mark.parametrize("bad", [[1.0, np.nan, np.inf], [np.nan], [-np.inf, 1e9, 2.0]])
def test_a_batch_with_non_finite_values_is_left_out(kind: Any, size: int, bad: Any) -> None:
    batch = np.resize(np.asarray(bad, np.float32), (1, size))
    good = np.resize(np.array([0.5, -3.0, 0.0], np.float32), (1, size))
    expected, statistic = kind(), kind()
    expected.observe(good)
    for values in (batch, good, batch):
        assert statistic.observe(values) == np.count_nonzero(~np.isfinite(values))
    assert statistic.non_finite == 2 * np.count_nonzero(~np.isfinite(batch))
    for name, value in vars(expected).items():
        if name != "non_finite":
            np.testing.assert_array_equal(getattr(statistic, name), value)


@pytest.mark.parametrize("zeros", [1, 5])
def test_zeros_alone_have_no_width(zeros: int) -> None:
    statistic = observed(np.zeros(zeros))
    assert statistic.width_exponent is None
    assert statistic.abs_max == 0
    statistic.observe(np.array([[8.0]], np.float32))
    assert statistic.counts[0] == zeros
    assert statistic.counts.sum() == zeros + 1
