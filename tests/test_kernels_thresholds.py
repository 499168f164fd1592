"""Threshold searches against slow, obvious references, and KL against Paddle's own."""

import itertools
import logging
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyquant import _native, kernels

pytestmark = pytest.mark.any_isa


def runs_of(bins, levels):
    """Begin and end of the runs of bins that Paddle merges; only the last may be longer."""
    length = bins // levels
    starts = [run * length for run in range(levels)]
    return list(zip(starts, [*starts[1:], bins]))


def sequential_sum(values):
    """As sum() adds up to Python 3.11; from 3.12 on it compensates rounding."""
    total = 0.0
    for value in values:
        total += value
    return total


def kl_divergence(counts, bins, levels):
    reference = counts[:bins]
    reference[-1] += sum(counts[bins:])
    candidate = [0.0] * bins
    for begin, end in runs_of(bins, levels):
        used = [bin for bin in range(begin, end) if counts[bin] != 0]
        for bin in used:
            candidate[bin] = sum(counts[begin:end]) / float(len(used))
    total, candidate_total = sum(counts), sequential_sum(candidate)
    used = [bin for bin in range(bins) if reference[bin] != 0]
    first = sequential_sum(reference[b] * math.log(candidate_total * reference[b]) for b in used)
    second = sequential_sum(reference[b] * math.log(total * candidate[b]) for b in used)
    return (first - second) / total


def slow_kl_threshold(counts, bin_width, bits, start):
    """The order of operations of Paddle's cal_kl_threshold."""
    counts = [int(count) for count in counts]
    candidates = [i for i in range(max(start, 1), len(counts)) if counts[i - 1] != 0]
    if candidates:
        best = min(candidates, key=lambda i: kl_divergence(counts, i, 2 ** (bits - 1) - 1))
    else:
        best = start
        while best > 0 and counts[best] == 0:
            best -= 1
    return (best + 0.5) * bin_width


def paddle_start(counts):
    return int((len(counts) - 1) * 0.5)


def paddle_kl_threshold(counts, bin_width, bits):
    module = pytest.importorskip("paddle.static.quantization.cal_kl_threshold")
    module._logger.setLevel(logging.CRITICAL)
    return module.cal_kl_threshold(counts.astype(np.int64), bin_width, bits)


def histogram_of(values, bins):
    counts, edges = np.histogram(np.abs(values), bins, (0, np.abs(values).max()))
    return counts, float(edges[1])


def two_spikes(bins, position):
    counts = np.zeros(bins, np.int64)
    counts[1], counts[position] = 10**6, 7
    return counts


def adversarial_histograms(bins):
    rng = np.random.default_rng(bins)
    empty = np.zeros(bins, np.int64)
    upper_half_empty = rng.integers(1, 1000, bins)
    upper_half_empty[bins // 2 :] = 0
    spike, last_only, few = empty.copy(), empty.copy(), empty.copy()
    spike[bins // 3] = 5
    last_only[-1] = 1
    few[: min(4, bins)] = 10**9
    heavy = (1e12 / (1 + np.arange(bins)) ** 2.5).astype(np.int64)
    yield from (upper_half_empty, spike, last_only, few, heavy)
    yield from (np.full(bins, 17), np.full(bins, 1), np.arange(bins), np.arange(bins)[::-1].copy())
    yield two_spikes(bins, bins - 1)
    yield two_spikes(bins, bins // 2)
    yield rng.integers(0, 10**12, bins)
    yield np.where(rng.random(bins) < 0.03, rng.integers(1, 5, bins), 0) + (np.arange(bins) == 0)
    yield np.where(np.arange(bins) % 2, 0, 100)
    yield np.where(np.arange(bins) % 7, 0, 2**40 + 1)


def random_histogram(seed):
    rng = np.random.default_rng(seed)
    bins = int(rng.choice([4, 50, 127, 128, 200, 255, 256, 300, 400]))
    draw = [
        lambda n: rng.standard_normal(n),
        lambda n: rng.laplace(size=n),
        lambda n: rng.random(n),
        lambda n: rng.standard_cauchy(n),
        lambda n: np.maximum(rng.standard_normal(n), 0),
        lambda n: np.round(rng.standard_normal(n), 1),
        lambda n: rng.lognormal(size=n),
    ][seed % 7]
    counts, _ = histogram_of(draw(int(rng.choice([20, 1000, 50000]))), bins)
    return counts * int(rng.choice([1, 3, 10**6]))


def nothing_to_start_with(counts):
    """Paddle fails on i = 0, its first candidate where there are no more than two bins."""
    return paddle_start(counts) == 0


@pytest.mark.parametrize("seed", range(210))
def test_kl_equals_paddle_on_random_histograms(seed):
    counts = random_histogram(seed)
    bits = (8, 8, 4, 5, 2)[seed % 5]
    start = paddle_start(counts)
    expected = paddle_kl_threshold(counts, 0.37, bits)
    assert kernels.kl_threshold(counts, 0.37, bits, start) == expected
    assert slow_kl_threshold(counts, 0.37, bits, start) == expected


@pytest.mark.parametrize("bins", [3, 5, 100, 127, 128, 129, 254, 300, 381])
@pytest.mark.parametrize("bits", [8, 4])
def test_kl_equals_paddle_on_adversarial_histograms(bins, bits):
    for counts in adversarial_histograms(bins):
        expected = paddle_kl_threshold(counts, 0.25, bits)
        assert kernels.kl_threshold(counts, 0.25, bits, paddle_start(counts)) == expected


@pytest.mark.parametrize("bins", [100, 127, 128, 400])
def test_kl_starts_at_the_number_of_levels(bins):
    for counts in adversarial_histograms(bins):
        start = min(127, bins - 1)
        assert kernels.kl_threshold(counts, 0.25) == slow_kl_threshold(counts, 0.25, 8, start)


def test_kl_of_a_real_size():
    counts, width = histogram_of(np.random.default_rng(0).laplace(size=10**6), 2048)
    assert kernels.kl_threshold(counts, width, 8, 1900) == slow_kl_threshold(counts, width, 8, 1900)
    assert kernels.kl_threshold(counts, width) < 0.8 * 2048 * width


@given(
    st.lists(st.sampled_from([0, 0, 1, 2, 1000, 10**12]), min_size=3, max_size=40).filter(any),
    st.integers(2, 5),
    st.data(),
)
@settings(deadline=None)
def test_kl_of_any_small_histogram(counts, bits, data):
    start = data.draw(st.integers(0, len(counts) - 1))
    expected = slow_kl_threshold(counts, 0.5, bits, start)
    assert kernels.kl_threshold(np.array(counts), 0.5, bits, start) == expected
    if not nothing_to_start_with(counts):
        assert kernels.kl_threshold(
            np.array(counts), 0.5, bits, paddle_start(counts)
        ) == paddle_kl_threshold(np.array(counts), 0.5, bits)


def test_kl_of_one_and_two_bins():
    assert kernels.kl_threshold(np.array([5]), 2.0) == 1.0
    assert kernels.kl_threshold(np.array([5, 1]), 2.0) == 3.0
    assert kernels.kl_threshold(np.array([0, 1]), 2.0) == 3.0


def quantization_error(counts, bins, levels, error_of):
    """In units of the bin width, one bin after the other."""
    step = bins / levels
    total = 0.0
    for bin, count in enumerate(counts):
        if count == 0:
            continue
        value = bin + 0.5
        level = min(round(value / step), levels)
        total += float(count) * error_of(value - level * step)
    return total


def slow_error_threshold(counts, bin_width, bits, error_of):
    counts = [int(count) for count in counts]
    last = max(bin for bin, count in enumerate(counts) if count != 0)
    levels = 2 ** (bits - 1) - 1
    candidates = range(1, last + 2)
    best = min(candidates, key=lambda i: quantization_error(counts, i, levels, error_of))
    return best * bin_width


ERROR_SEARCHES = [
    (kernels.mse_threshold, lambda difference: difference * difference),
    (kernels.emd_threshold, abs),
]


@pytest.mark.parametrize(("search", "error_of"), ERROR_SEARCHES)
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_error_searches_on_random_histograms(search, error_of, bits):
    for seed in range(14):
        counts = random_histogram(seed)
        assert search(counts, 0.37, bits) == slow_error_threshold(counts, 0.37, bits, error_of)


@pytest.mark.parametrize(("search", "error_of"), ERROR_SEARCHES)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("bins", [5, 127, 130, 300])
def test_error_searches_on_adversarial_histograms(search, error_of, bits, bins):
    for counts in adversarial_histograms(bins):
        assert search(counts, 0.25, bits) == slow_error_threshold(counts, 0.25, bits, error_of)


@pytest.mark.parametrize(
    ("search", "power"), [(kernels.mse_threshold, 2), (kernels.emd_threshold, 1)]
)
@pytest.mark.parametrize("bits", [4, 8, 12])
@pytest.mark.parametrize("seed", range(7))
def test_error_searches_of_a_real_size(search, power, bits, seed):
    counts, _ = histogram_of(REAL_SIZED[seed](np.random.default_rng(seed)), 2048)
    values = np.arange(2048) + 0.5
    levels = 2 ** (bits - 1) - 1
    best, least = 0, np.inf
    for candidate in range(1, int(np.flatnonzero(counts)[-1]) + 2):
        step = candidate / levels
        difference = values - np.minimum(np.rint(values / step), levels) * step
        error = (counts * np.abs(difference) ** power).sum()
        if error < least * (1 - 1e-12):
            best, least = candidate, error
    assert search(counts, 1.0, bits) == best


REAL_SIZED = [
    lambda rng: rng.standard_normal(10**6),
    lambda rng: rng.laplace(size=10**6),
    lambda rng: rng.standard_normal(10**6) ** 3,
    lambda rng: rng.random(10**6),
    lambda rng: np.maximum(rng.standard_normal(10**6), 0),
    lambda rng: np.concatenate([rng.standard_normal(10**5), [50.0, 49.0]]),
    lambda rng: np.concatenate([rng.normal(3, 0.1, 10**5), rng.normal(9, 0.1, 10**3)]),
]


@pytest.mark.usefixtures("restored_isa")
@pytest.mark.parametrize(
    "search", [kernels.kl_threshold, *(search for search, _ in ERROR_SEARCHES)]
)
def test_same_threshold_on_every_instruction_set(search):
    for seed in range(28):
        counts = random_histogram(seed)
        thresholds = set()
        for isa in _native.available_isas():
            _native.set_isa(isa)
            thresholds.add(search(counts, 0.37))
        assert len(thresholds) == 1


@pytest.mark.parametrize(("search", "error_of"), ERROR_SEARCHES)
def test_error_searches_take_the_smallest_of_equals(search, error_of):
    counts = np.zeros(300, np.int64)
    counts[0] = 1
    assert search(counts, 1.0, 2) == 1.0  # 0.5 rounds to 0 or 1, both an error of one half
    counts[:] = [bin == 99 for bin in range(300)]
    assert search(counts, 1.0) == slow_error_threshold(counts, 1.0, 8, error_of)


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=50).filter(any),
    st.one_of(st.floats(0, 1, exclude_min=True), st.sampled_from([5e-324, 0.5, 1 - 2**-53, 1.0])),
)
def test_percentile_is_exact(counts, percent):
    shares = [Fraction(reached, sum(counts)) for reached in itertools.accumulate(counts)]
    expected = next(i + 1 for i, share in enumerate(shares) if share >= Fraction(percent)) * 0.3
    assert kernels.percentile_threshold(np.array(counts), 0.3, percent) == expected


def test_percentile_of_all_is_the_last_bin_that_is_not_empty():
    counts = np.array([2**62, 2**61, 1, 0, 0], np.uint64)
    assert kernels.percentile_threshold(counts, 0.5, 1.0) == 1.5
    assert kernels.percentile_threshold(counts, 0.5, 1 - 2**-53) == 1.0


SEARCHES = [
    kernels.kl_threshold,
    kernels.mse_threshold,
    kernels.emd_threshold,
    lambda counts, bin_width: kernels.percentile_threshold(counts, bin_width, 0.9),
]


@pytest.mark.parametrize("search", SEARCHES)
def test_counts_of_every_integer_type(search):
    counts = np.array([9, 4, 0, 2, 1, 0])
    expected = search(counts.astype(np.uint64), 0.5)
    assert isinstance(expected, float)
    for dtype in (np.int8, np.uint8, np.int32, np.uint32, np.int64, ">i4"):
        assert search(counts.astype(dtype), 0.5) == expected
    assert search(np.repeat(counts, 2)[::2], 0.5) == expected


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(
    ("counts", "bin_width", "message"),
    [
        (np.array([1, -1]), 1.0, "negative"),
        (np.zeros(4, np.int64), 1.0, "count"),
        (np.zeros(0, np.int64), 1.0, "empty"),
        (np.ones((2, 2), np.int64), 1.0, "1-D"),
        (np.array([2**62, 2**62], np.uint64), 1.0, "2\\^63"),
        (np.array([2**63, 2**63], np.uint64), 1.0, "2\\^63"),
        (np.ones(4, np.int64), 0.0, "bin_width"),
        (np.ones(4, np.int64), -1.0, "bin_width"),
        (np.ones(4, np.int64), math.nan, "bin_width"),
        (np.ones(4, np.int64), math.inf, "bin_width"),
    ],
)
def test_histograms_that_are_refused(search, counts, bin_width, message):
    with pytest.raises(ValueError, match=message):
        search(counts, bin_width)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("counts", [np.ones(4), np.ones(4, bool), [1, 2], None])
def test_counts_that_are_not_integers(search, counts):
    with pytest.raises(TypeError, match=r"counts .*integers"):
        search(counts, 1.0)


@pytest.mark.parametrize("search", SEARCHES[:3])
@pytest.mark.parametrize("bits", [1, 17, 0, -8])
def test_bits_that_are_refused(search, bits):
    with pytest.raises(ValueError, match=f"bits .*2 to 16.* {bits}"):
        search(np.ones(4, np.int64), 1.0, bits)


@pytest.mark.parametrize("start", [-1, 4])
def test_starts_that_are_refused(start):
    with pytest.raises(ValueError, match=f"start .* {start}"):
        kernels.kl_threshold(np.ones(4, np.int64), 1.0, 8, start)


@pytest.mark.parametrize("percent", [0.0, -0.5, 1.0001, 99.99, math.nan])
def test_percentages_that_are_refused(percent):
    with pytest.raises(ValueError, match=r"percent .*\(0, 1\].*0\.9999"):
        kernels.percentile_threshold(np.ones(4, np.int64), 1.0, percent)
