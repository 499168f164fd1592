"""Kernels over tensors: reductions, histogram, observe; what they accept and refuse."""

import ctypes
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyquant import _native, kernels
from pyquant.calibration.statistic import ActivationHistogram

pytestmark = pytest.mark.any_isa

ELEMENTS = ["float32", "float16", "bfloat16"]
SPECIAL_BITS = {
    "float32": [0, 1, 0x007FFFFF, 0x00800000, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000],
    "float16": [0, 1, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0x7C00, 0x7E00, 0x7C01],
    "bfloat16": [0, 1, 0x007F, 0x0080, 0x3F80, 0x7F7F, 0x7F80, 0x7FC0, 0x7F81],
}


def bits_type(element):
    return np.uint32 if element == "float32" else np.uint16


def from_bits(bits, element):
    """The array to hand to a kernel, and its `dtype` argument."""
    if element == "bfloat16":
        return {"x": bits, "dtype": "bfloat16"}
    return {"x": bits.view(element)}


def exact(bits, element):
    """The values as float64."""
    with np.errstate(invalid="ignore"):  # signaling NaN
        if element == "bfloat16":
            return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return bits.view(element).astype(np.float64)


def all_bits(element, shape, seed=0):
    rng = np.random.default_rng(seed)
    dtype = bits_type(element)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def finite_bits(element, shape, seed=0):
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(shape) * 10.0 ** rng.integers(-4, 2, shape)).astype(np.float32)
    if element == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(element).view(bits_type(element))


@st.composite
def tensors(draw, max_dims=4):
    element = draw(st.sampled_from(ELEMENTS))
    dtype = bits_type(element)
    sign = 1 << (8 * np.dtype(dtype).itemsize - 1)
    special = SPECIAL_BITS[element] + [bits | sign for bits in SPECIAL_BITS[element]]
    values = st.one_of(st.sampled_from(special), st.integers(0, np.iinfo(dtype).max))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=max_dims, min_side=1, max_side=9))
    return draw(hnp.arrays(dtype, shape, elements=values)), element


def same(actual, expected):
    np.testing.assert_array_equal(np.asarray(actual, np.float64), np.asarray(expected, np.float64))


def slow_histogram(values, bins, bin_width):
    """The definition in rational arithmetic."""
    counts = np.zeros(bins, np.uint64)
    width = Fraction(bin_width)
    for value in np.abs(values[np.isfinite(values)]).ravel():
        quotient = Fraction(float(value)) / width
        if quotient == bins:
            counts[-1] += np.uint64(1)
        elif quotient < bins:
            counts[int(quotient)] += np.uint64(1)
    return counts


def slow_channel_pair_max(values, axis, pairs_along):
    """The definition, in float32; values that are float32 in float64."""
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32; unlike infinities; NaN
        values = np.moveaxis(values.astype(np.float32), (axis, pairs_along), (0, 1))
        alone = np.zeros_like(values[:, values.shape[1] - values.shape[1] % 2 :])
        one, other = values[:, ::2], np.concatenate([values[:, 1::2], alone], axis=1)
        sums = np.where(np.signbit(one) == np.signbit(other), np.abs(one + other), 0)
    every = np.maximum(np.maximum(np.abs(one), np.abs(other)), sums)
    return every.reshape(len(every), -1).max(axis=1)


@given(tensors())
@settings(deadline=None)
def test_channel_pair_max_of_any_values(tensor):
    bits, element = tensor
    values = exact(bits, element)
    for axis in range(bits.ndim):
        for pairs_along in set(range(bits.ndim)) - {axis}:
            for axes in ((axis, pairs_along), (axis - bits.ndim, pairs_along - bits.ndim)):
                found = kernels.channel_pair_max(
                    axis=axes[0], pairs_along=axes[1], **from_bits(bits, element)
                )
                same(found, slow_channel_pair_max(values, axis, pairs_along))


@given(tensors())
@settings(deadline=None)
def test_reductions_of_any_values(tensor):
    bits, element = tensor
    values = exact(bits, element)
    x = from_bits(bits, element)
    same(kernels.abs_max(**x), np.abs(values).max())
    same(kernels.min_max(**x), (values.min(), values.max()))
    for axis in range(-bits.ndim, bits.ndim):
        others = tuple(i for i in range(bits.ndim) if i != axis % bits.ndim)
        same(kernels.channel_abs_max(axis=axis, **x), np.abs(values).max(axis=others))


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((64, 32, 3, 3), 0),
        ((64, 32, 3, 3), 1),
        ((700, 1, 3, 3), 0),
        ((3000, 300), 1),
        ((300, 3000), 0),
        ((5, 2, 70000), 1),
        ((200000, 3), 1),
        ((200000, 3), 0),
        ((23, 70000), 1),
        ((5, 11, 8000), 0),
        ((40, 513, 31), 1),
    ],
)
def test_channel_abs_max_of_layouts(shape, axis, element):
    bits = finite_bits(element, shape)
    others = tuple(i for i in range(len(shape)) if i != axis)
    expected = np.abs(exact(bits, element)).max(axis=others)
    for threads in (1, 2, 7):
        maxima = kernels.channel_abs_max(axis=axis, num_threads=threads, **from_bits(bits, element))
        assert maxima.dtype == np.float32
        same(maxima, expected)


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(
    ("shape", "axis", "pairs_along"),
    [
        ((64, 32, 3, 3), 0, 1),
        ((64, 33, 3, 3), 1, 0),
        ((700, 1, 3, 3), 0, 1),
        ((129, 515, 1, 1), 0, 1),
        ((24, 9, 7, 7), 0, 1),  # rows of more than one vector
        ((3001, 300), 1, 0),
        ((3000, 301), 0, 1),
        ((23, 70001), 1, 0),  # more columns than are read at a time
        ((20001, 10), 1, 0),
        ((5, 11, 8000), 1, 0),
        ((5, 11, 8000), 0, 1),
        ((5, 11, 8000), 2, 1),
        ((41, 513, 31), 1, 2),
        ((41, 513, 31), 2, 0),
    ],
)
def test_channel_pair_max_of_layouts(shape, axis, pairs_along, element):
    bits = finite_bits(element, shape)
    expected = slow_channel_pair_max(exact(bits, element), axis, pairs_along)
    for threads in (1, 2, 7):
        found = kernels.channel_pair_max(
            axis=axis, pairs_along=pairs_along, num_threads=threads, **from_bits(bits, element)
        )
        assert found.dtype == np.float32
        same(found, expected)


def test_pairs():
    """Like and unlike signs, infinities and NaN; an odd last value stands alone."""
    largest = np.finfo(np.float32).max
    x = np.array(
        [
            [1, 2, 3, -4, 5],
            [-1, -2, 0, -2.5, 2],
            [-0.0, 2, 1, -1, 0],
            [np.inf, -np.inf, 0, 0, 0],
            [largest, largest, 0, 0, 0],
            [np.nan, 1, 9, 9, 0],
        ],
        np.float32,
    )
    expected = [5, 3, 2, np.inf, np.inf, np.nan]
    same(kernels.channel_pair_max(x, 0, 1), expected)
    same(kernels.channel_pair_max(np.ascontiguousarray(x.T), 1, 0), expected)
    same(kernels.channel_pair_max(np.full((1, 2), 65504, np.float16), 0, 1), [2 * 65504])


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((4, 64, 30, 31), 1),
        ((1, 700, 7, 7), 1),
        ((3, 5, 1, 1), 1),
        ((2, 9, 7, 40), -1),
        ((7, 1300), 1),
        ((2, 6, 5, 4), 2),
        ((1, 3, 70000), 1),
        ((2, 200, 123), -1),  # strips of columns of each width, and some that are left
        ((2, 40, 9001), -1),  # more columns than are summed at a time
        ((3, 0, 5), 2),
    ],
)
def test_channel_sums_of_layouts(shape, axis, element):
    bits = finite_bits(element, shape)
    others = tuple(i for i in range(1, len(shape)) if i != axis % len(shape))
    values = exact(bits, element).astype(np.float64)
    # Eight values are added up in float32, by pairs: three roundings.
    bound = 3 * 2**-24 * np.abs(values).sum(axis=others)
    x = from_bits(bits, element)
    alone = kernels.channel_sums(axis=axis, num_threads=1, **x)
    assert alone.dtype == np.float64
    assert (np.abs(alone - values.sum(axis=others)) <= bound).all()
    for threads in (2, 7):
        same(kernels.channel_sums(axis=axis, num_threads=threads, **x), alone)
    turned = np.ascontiguousarray(np.moveaxis(bits, axis, -1))
    same(kernels.channel_sums(axis=-1, **from_bits(turned, element)), alone)


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(
    "shape", [(4, 1, 3136, 32), (2, 3, 300, 16), (1, 1, 49, 1300), (3, 2, 1, 5), (2, 4, 1000, 1)]
)
def test_samples_with_channels(shape, element):
    """Channels side by side sum up as in an array in order; all else is as without channels."""
    bits = finite_bits(element, shape)
    x, rows = from_bits(bits, element), from_bits(bits.reshape(shape[0], -1), element)
    in_order = np.ascontiguousarray(bits.swapaxes(2, 3)).reshape(shape[0], -1, shape[2])
    sums = kernels.channel_sums(axis=1, **from_bits(in_order, element))
    maxima = kernels.sample_maxima(**x)
    same(maxima.channel_sums, sums)
    same(maxima.channel_abs_max, kernels.channel_abs_max(axis=1, **from_bits(in_order, element)))
    same(maxima.sample_abs_max, kernels.channel_abs_max(axis=0, **rows))
    assert kernels.sample_maxima(**rows)[1:] == (None, None)
    for threads in (1, 2, 7):
        for found, expected in zip(kernels.sample_maxima(num_threads=threads, **x), maxima):
            same(found, expected)
        counts = [np.zeros(2048, np.uint64) for _ in range(2)]
        options = {"width_exponent": -3, "num_threads": threads}
        seen = kernels.observe(counts=counts[0], **options, **x)
        plain = kernels.observe(counts=counts[1], **options, **rows)
        same(seen.channel_sums, sums)
        same(seen.channel_abs_max, maxima.channel_abs_max)
        assert plain[-2:] == (None, None)
        for found, expected in zip(seen[:-2], plain[:-2]):
            same(found, expected)
        same(*counts)


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(
    "shape", [(40, 1, 313, 32), (2, 3, 300, 16), (1, 1, 49, 1301), (3, 2, 1, 5), (2, 7, 900, 1)]
)
def test_rows_of_samples(shape, element):
    """Rows hold the values, and hashes tell rows apart, whatever the layout."""
    bits = finite_bits(element, shape)
    positions = np.unique([0, shape[2] // 3, shape[2] - 1])
    in_order = bits[:, :, positions].swapaxes(1, 2).reshape(shape[0] * len(positions), -1)
    rows, hashes = kernels.sample_rows(positions=positions, **from_bits(bits, element))
    same(rows, exact(in_order, element))
    assert len(set(hashes.tolist())) == len(np.unique(in_order, axis=0)) == len(rows)
    for lying in (in_order[:, :, None, None], in_order[:, None, None]):
        again = kernels.sample_rows(positions=[0], **from_bits(lying.copy(), element))
        same(again[1], hashes)


def test_exact_totals():
    """Also of negative sums and of sums that are too large, in any order."""
    generator = np.random.default_rng(0)
    sums = generator.standard_normal((50, 7)) * 10.0 ** generator.integers(-12, 12, (50, 7))
    totals = []
    for order in (np.arange(50), generator.permutation(50)):
        whole, fraction = np.zeros((2, 7), np.int64)
        for part in np.split(sums[order], 5):
            kernels.add_exactly(part, whole, fraction)
        assert ((fraction >= 0) & (fraction < 2**kernels.FRACTION_BITS)).all()
        totals.append((whole, fraction))
    same(*totals)
    found = totals[0][0] + totals[0][1] * 2.0**-kernels.FRACTION_BITS
    expected = np.array([math.fsum(column) for column in sums.T])
    np.testing.assert_allclose(found, expected, rtol=1e-15, atol=50 * 2.0**-kernels.FRACTION_BITS)
    whole, fraction = np.zeros((2, 3), np.int64)
    kernels.add_exactly(np.array([[np.inf, -1e300, np.nan]]), whole, fraction)
    assert whole.tolist() == [2**45, -(2**45), -(2**45)]
    with pytest.raises(ValueError, match="channel"):
        kernels.add_exactly(np.zeros((2, 4)), whole, fraction)


def test_every_16_bit_pattern_widens_exactly():
    for element in ("float16", "bfloat16"):
        bits = np.arange(1 << 16, dtype=np.uint16)
        same(
            kernels.channel_abs_max(axis=0, **from_bits(bits, element)),
            np.abs(exact(bits, element)),
        )
        # Through the block conversion that histogram and quantize use.
        finite = bits[np.isfinite(exact(bits, element)) & (np.abs(exact(bits, element)) < 60)]
        same(
            kernels.quantize(threshold=32767.0, bits=16, **from_bits(finite, element)),
            np.rint(exact(finite, element)),
        )


def more_than_32_bits_count():
    """Return zeros and one 2.5; untouched, they lie in one page of memory."""
    x = np.zeros(2**32 + 7, np.float16)
    x[-1] = 2.5
    return x


def test_histogram_of_more_values_than_32_bits_count():
    counts = kernels.histogram(more_than_32_bits_count(), 2048, 1.0)
    assert (counts[0], counts[2], counts.sum()) == (2**32 + 6, 1, 2**32 + 7)


def test_abs_max_of_more_values_than_32_bits_count():
    assert kernels.abs_max(more_than_32_bits_count()) == 2.5


def test_statistic_of_more_values_than_32_bits_count():
    statistic = ActivationHistogram()
    statistic.observe(more_than_32_bits_count()[None])
    found = statistic.zeros, statistic.counts[0], statistic.counts.sum()
    assert found == (2**32 + 6, 2**32 + 6, 2**32 + 7)


def test_empty_and_zero_size():
    empty = np.zeros((0, 3), np.float32)
    assert kernels.abs_max(empty) == 0.0
    same(kernels.channel_abs_max(empty, 1), np.zeros(3))
    assert kernels.channel_abs_max(empty, 0).shape == (0,)
    same(kernels.channel_pair_max(empty, 1, 0), np.zeros(3))
    assert kernels.channel_pair_max(empty, 0, 1).shape == (0,)
    assert kernels.histogram(empty, 4, 1.0).sum() == 0
    with pytest.raises(ValueError, match="empty"):
        kernels.min_max(empty)


def test_zero_dimensional():
    x = np.array(-2.0, np.float32)
    assert kernels.abs_max(x) == 2.0
    assert kernels.quantize(x, 2.0).shape == ()
    with pytest.raises(ValueError, match="axis 0"):
        kernels.channel_abs_max(x, 0)


def test_negative_zero_is_below_zero():
    low, high = kernels.min_max(np.array([0.0, -0.0], np.float32))
    assert np.signbit(low)
    assert not np.signbit(high)


WIDTHS = st.one_of(
    st.integers(-20, 4).map(lambda exponent: 2.0**exponent),
    st.sampled_from([0.1, float(np.float32(0.1)), 1 / 3, 3.0, 1e-300, 1e300, 5e-324, 2.0**-149]),
    st.floats(1e-6, 1e3),
    st.floats(2.0**-20, 1024.0, width=32),
)


@given(tensors(max_dims=2), st.integers(1, 300), WIDTHS)
@settings(deadline=None)
def test_histogram_of_any_values(tensor, bins, bin_width):
    bits, element = tensor
    counts = kernels.histogram(bins=bins, bin_width=bin_width, **from_bits(bits, element))
    assert counts.dtype == np.uint64
    same(counts, slow_histogram(exact(bits, element), bins, bin_width))


@given(WIDTHS, st.integers(1, 5000), st.lists(st.integers(0, 5000), min_size=1, max_size=50))
@example(bin_width=0.1, bins=3, edges=[3])
@example(bin_width=float(np.float32(0.1)), bins=1 << 20, edges=[1 << 20, (1 << 20) - 1])
@example(bin_width=float(np.float32(1.1)), bins=1 << 20, edges=list(range((1 << 20) - 99, 1 << 20)))
@settings(deadline=None)
def test_histogram_at_bin_edges(bin_width, bins, edges):
    with np.errstate(over="ignore", under="ignore"):
        at = (np.array(edges, np.float64) * bin_width).astype(np.float32)
    x = np.concatenate([at, np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(np.inf))])
    same(kernels.histogram(x, bins, bin_width), slow_histogram(x, bins, bin_width))


@pytest.mark.parametrize("bins", [1, 1000, 2048, 8192, 1 << 20])
def test_histogram_agrees_with_numpy(bins):
    x = np.random.default_rng(0).standard_normal((3, 50001)).astype(np.float32)
    bin_width = 2.0**-17
    expected, _ = np.histogram(np.abs(x.astype(np.float64)), bins, (0, bins * bin_width))
    same(kernels.histogram(x, bins, bin_width), expected)


@pytest.mark.parametrize("samples", [1, 3, 64])
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_observe(samples, element, threads):
    bits = finite_bits(element, (samples, 700001 // samples))
    bits[0, ::7] = 0
    values = exact(bits, element)
    exponent = int(np.ceil(np.log2(np.abs(values).max() / 2048))) + 1
    counts = np.arange(2048, dtype=np.uint64)
    seen = kernels.observe(
        counts=counts, width_exponent=exponent, num_threads=threads, **from_bits(bits, element)
    )
    same((seen.minimum, seen.maximum), (values.min(), values.max()))
    assert seen.zeros == np.count_nonzero(values == 0)
    assert seen.non_finite == 0
    same(seen.sample_abs_max, np.abs(values).max(axis=1))
    assert seen.sample_abs_max.dtype == np.float32
    assert seen.counted is True
    expected, _ = np.histogram(np.abs(values), 2048, (0, 2048 * 2.0**exponent))
    same(counts, expected + np.arange(2048))


@given(tensors(max_dims=2), st.integers(1, 60), st.integers(-120, 120))
@settings(deadline=None)
def test_observe_any_values(tensor, bins, exponent):
    bits, element = tensor
    bits = bits.reshape(len(bits), -1)
    values = exact(bits, element)
    finite = np.abs(values[np.isfinite(values)])
    fits = bool((finite < bins * 2.0**exponent).all())
    counts = np.ones(bins, np.uint64)
    seen = kernels.observe(counts=counts, width_exponent=exponent, **from_bits(bits, element))
    same((seen.minimum, seen.maximum), (values.min(), values.max()))
    same(seen.sample_abs_max, np.abs(values).max(axis=1))
    assert seen.zeros == np.count_nonzero(values == 0)
    assert seen.non_finite == np.count_nonzero(~np.isfinite(values))
    assert seen.counted == fits
    added = slow_histogram(values, bins, 2.0**exponent) if fits else np.zeros(bins)
    same(counts, 1 + added)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_histogram_of_parts_that_lie_in_one_bin_and_in_many(threads):
    many = np.random.default_rng(0).random((6, 40000), np.float32) * 4
    one = np.repeat(np.float32([0.3, 0.0, 2.7]), 40000).reshape(3, -1)
    x = np.concatenate([many[:2], one[:1], many[2:3], one[1:], many[3:]])[:, :39999]
    expected = np.bincount((x.ravel() * 512).astype(int), minlength=2048)
    same(kernels.histogram(x, 2048, 1 / 512, num_threads=threads), expected)
    counts = np.zeros(2048, np.uint64)
    assert kernels.observe(x, counts, -9, num_threads=threads).counted
    same(counts, expected)


@pytest.mark.parametrize("shape", [(1, 700000), (700000, 1), (3, 200001)])
def test_counts_beyond_16_bits(shape):
    x = np.full(shape, 2.5, np.float32)
    same(kernels.histogram(x, 4, 1.0, num_threads=1), [0, 0, x.size, 0])
    counts = np.zeros(4, np.uint64)
    assert kernels.observe(x, counts, 0, num_threads=1).counted
    same(counts, [0, 0, x.size, 0])


def test_observe_does_not_take_its_upper_edge():
    counts = np.zeros(4, np.uint64)
    assert not kernels.observe(np.array([[4.0]], np.float32), counts, 0).counted
    assert counts.sum() == 0
    assert kernels.observe(np.array([[-3.999]], np.float32), counts, 0).counted
    same(counts, [0, 0, 0, 1])


def test_callers_at_once():
    """Each caller has helpers of its own, or does without."""
    x = np.random.default_rng(0).standard_normal((4, 500_000)).astype(np.float32)
    expected = [kernels.histogram(row, 2048, 1 / 256, num_threads=1) for row in x]
    with ThreadPoolExecutor(4) as callers:
        for threads in (2, 3):
            found = callers.map(
                lambda row, threads=threads: [
                    kernels.histogram(row, 2048, 1 / 256, num_threads=threads) for _ in range(20)
                ],
                x,
            )
            for counts, expected_counts in zip(found, expected):
                for count in counts:
                    same(count, expected_counts)


def test_threads_after_a_fork():
    """A child has none of its parent's threads, and must not wait for them."""
    code = """
import os
import numpy as np
from pyquant import kernels
x = np.arange(300_000, dtype=np.float32)
for turn in range(3):
    assert kernels.abs_max(x, num_threads=3) == 299_999
    child = os.fork()
    if child == 0:
        found = kernels.abs_max(x, num_threads=3)
        os._exit(found != 299_999)
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_threads_of_a_runtime_after_a_fork():
    """A child leaves the runtime, whose threads it lacks, and joins none again."""
    code = """
import ctypes, os
from pathlib import Path
import numpy as np
from pyquant import kernels
ctypes.CDLL("libgomp.so.1")
assert kernels.join_openmp(Path("libgomp.so.1"))
x = np.arange(300_000, dtype=np.float32)
assert kernels.abs_max(x, num_threads=2) == 299_999
child = os.fork()
if child == 0:
    joined = kernels.join_openmp(Path("libgomp.so.1"))
    found = kernels.abs_max(x, num_threads=2)
    os._exit(joined or found != 299_999)
assert os.waitpid(child, 0)[1] == 0
assert kernels.abs_max(x, num_threads=2) == 299_999
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


@pytest.mark.usefixtures("restored_isa")
@pytest.mark.parametrize("make_bits", [all_bits, finite_bits])
@pytest.mark.parametrize("element", ELEMENTS)
def test_bit_identity_of_instruction_sets_and_threads(make_bits, element):
    x = from_bits(make_bits(element, (9, 50021)), element)
    of_images = from_bits(make_bits(element, (3, 5, 91, 101)), element)
    thresholds = np.linspace(0.01, 3, 9).astype(np.float32)

    def results(threads):
        counts = np.zeros(2048, np.uint64)
        observation = kernels.observe(counts=counts, width_exponent=-3, num_threads=threads, **x)
        quantized = kernels.quantize(
            threshold=thresholds, axis=0, bits=12, num_threads=threads, **x
        )
        return [
            kernels.abs_max(num_threads=threads, **x),
            *kernels.min_max(num_threads=threads, **x),
            kernels.channel_abs_max(axis=0, num_threads=threads, **x),
            kernels.channel_abs_max(axis=1, num_threads=threads, **x),
            kernels.channel_pair_max(axis=0, pairs_along=1, num_threads=threads, **x),
            kernels.channel_pair_max(axis=1, pairs_along=0, num_threads=threads, **x),
            kernels.channel_pair_max(axis=0, pairs_along=2, num_threads=threads, **of_images),
            kernels.channel_pair_max(axis=3, pairs_along=0, num_threads=threads, **of_images),
            kernels.channel_sums(axis=1, num_threads=threads, **x),
            kernels.channel_sums(axis=1, num_threads=threads, **of_images),
            *kernels.sample_maxima(num_threads=threads, **of_images),
            *kernels.sample_rows(positions=[0, 7, 8], num_threads=threads, **of_images),
            kernels.quantize(
                threshold=np.linspace(1, 3, 50021).astype(np.float32),
                axis=1,
                num_threads=threads,
                **x,
            ),
            kernels.histogram(bins=2048, bin_width=2.0**-9, num_threads=threads, **x),
            kernels.histogram(bins=9000, bin_width=0.0003, num_threads=threads, **x),
            kernels.histogram(bins=2048, bin_width=1 / 300, num_threads=threads, **x),
            kernels.histogram(
                bins=500, bin_width=float(np.float32(1 / 300)), num_threads=threads, **x
            ),
            *observation,
            counts,
            quantized,
            kernels.quantize(threshold=1.1, num_threads=threads, **x),
            kernels.dequantize(quantized, thresholds, 0, 12, num_threads=threads),
        ]

    _native.set_isa("portable")
    expected = results(1)
    for isa in _native.available_isas():
        _native.set_isa(isa)
        for threads in (1, 2, 7):
            for actual, reference in zip(results(threads), expected):
                assert np.asarray(actual).tobytes() == np.asarray(reference).tobytes()


class FloatEnvironment(ctypes.Structure):
    """glibc's fenv_t on x86-64."""

    _fields_ = (("x87", ctypes.c_uint32 * 7), ("mxcsr", ctypes.c_uint32))


def test_float_mode_of_the_thread_does_not_matter():
    if "avx2" not in _native.available_isas():
        pytest.skip("knows how to flush denormals on x86-64 only")
    libm = ctypes.CDLL(None)
    saved, flushing = FloatEnvironment(), FloatEnvironment()
    libm.fegetenv(ctypes.byref(saved))
    libm.fegetenv(ctypes.byref(flushing))
    flushing.mxcsr |= 0x8040 | 0x6000  # flush to zero, denormals are zero, round towards zero
    x = np.array([1e-40, 2.5, -3.5, 2.51], np.float32)
    denormals = np.array([[-2e-40, 1e-40]], np.float32)
    libm.fesetenv(ctypes.byref(flushing))
    try:
        counts = kernels.histogram(x[:1], 4, 2.0**-134)
        seen = kernels.observe(denormals, np.zeros(4, np.uint64), 0)
        quantized = kernels.quantize(x, 127.0)
    finally:
        libm.fesetenv(ctypes.byref(saved))
    same(counts, slow_histogram(x[:1], 4, 2.0**-134))
    same(quantized, [0, 2, -4, 3])
    assert seen.sample_abs_max[0] == np.float32(2e-40)
    assert seen.zeros == 0


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.T,
        lambda x: x[::2],
        lambda x: x[:, ::-1],
        lambda x: x.transpose(1, 2, 0),
        lambda x: np.asfortranarray(x),
        lambda x: np.broadcast_to(x[:1], x.shape),
        lambda x: x[1:, 2:, 3:],
    ],
)
def test_non_contiguous(view):
    x = view(np.random.default_rng(0).standard_normal((6, 10, 12)).astype(np.float32))
    assert kernels.abs_max(x) == np.abs(x).max()
    assert kernels.min_max(x) == (x.min(), x.max())
    same(kernels.histogram(x, 50, 0.125), slow_histogram(x.astype(np.float64), 50, 0.125))
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        same(kernels.channel_abs_max(x, axis), np.abs(x).max(axis=others))
        pairs = kernels.channel_pair_max(x, axis, others[0])
        same(pairs, slow_channel_pair_max(x, axis, others[0]))
    same(kernels.quantize(x, 127.0), np.rint(x))
    plane = x[0]
    counts = np.zeros(4096, np.uint64)
    same(kernels.observe(plane, counts, -8).sample_abs_max, np.abs(plane).max(axis=1))


class Exporter:
    """Only DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_dlpack():
    assert kernels.abs_max(Exporter(np.array([1, -2], np.float32))) == 2.0

    class Foreign(Exporter):
        def __dlpack__(self, **options):
            raise BufferError("no such type")

    with pytest.raises(TypeError, match=r"Foreign.*DLPack.*bfloat16"):
        kernels.abs_max(Foreign(np.zeros(1)))


@pytest.mark.parametrize("element", ELEMENTS)
def test_paddle_tensors(element):
    paddle = pytest.importorskip("paddle")
    paddle.disable_static()
    values = np.arange(-5, 7, dtype=np.float32).reshape(3, 4)
    tensor = paddle.to_tensor(values).astype(element)
    assert kernels.abs_max(tensor) == 6.0
    assert kernels.min_max(tensor[1:]) == (-1.0, 6.0)
    same(kernels.channel_abs_max(tensor.transpose([1, 0]), 0), np.abs(values).max(axis=0))
    same(kernels.histogram(tensor, 8, 1.0), slow_histogram(values.astype(np.float64), 8, 1.0))
    same(kernels.quantize(tensor, 127.0), values)
    assert kernels.abs_max(paddle.zeros([0, 3]).astype(element)) == 0.0
    assert kernels.abs_max(paddle.to_tensor(-3.0).astype(element)) == 3.0


def test_paddle_tensors_that_are_refused():
    paddle = pytest.importorskip("paddle")
    paddle.disable_static()
    with pytest.raises(TypeError, match=r"float64.*astype\('float32'\)"):
        kernels.abs_max(paddle.zeros([2], "float64"))

    class Elsewhere:
        class place:  # noqa: N801
            @staticmethod
            def is_cpu_place():
                return False

        def data_ptr(self):
            raise AssertionError("must not be asked")

    with pytest.raises(TypeError, match=r"x\.cpu\(\)"):
        kernels.abs_max(Elsewhere())


@pytest.mark.parametrize(
    ("x", "dtype", "message"),
    [
        (np.zeros(2), None, r"float64.*astype\('float32'\)"),
        (np.zeros(2, np.int32), None, "int32"),
        (np.zeros(2, bool), None, "bool"),
        (np.zeros(2, ">f4"), None, "byte order"),
        (np.zeros(2, ">u2"), "bfloat16", "byte order"),
        (np.zeros(2, np.uint16), None, "dtype='bfloat16'"),
        (np.zeros(2, np.float32), "bfloat16", "uint16.*float32"),
        ([1.0, 2.0], None, "list"),
        (1.0, None, "float"),
        (None, None, "NoneType"),
    ],
)
def test_types_that_are_refused(x, dtype, message):
    calls = [
        lambda: kernels.abs_max(x, dtype=dtype),
        lambda: kernels.min_max(x, dtype=dtype),
        lambda: kernels.channel_abs_max(x, 0, dtype=dtype),
        lambda: kernels.channel_pair_max(x, 0, 1, dtype=dtype),
        lambda: kernels.histogram(x, 4, 1.0, dtype=dtype),
        lambda: kernels.observe(x, np.zeros(4, np.uint64), 0, dtype=dtype),
        lambda: kernels.quantize(x, 1.0, dtype=dtype),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=message):
            call()


X = np.zeros((2, 3), np.float32)


def unaligned(x):
    """The same array at an odd address, as arrays lie in a mapped parameter file."""
    memory = bytearray(x.nbytes + 1)
    memory[1:] = x.tobytes()
    return np.frombuffer(memory, np.uint8)[1:].view(x.dtype).reshape(x.shape)


@pytest.mark.usefixtures("restored_isa")
@pytest.mark.parametrize("element", ELEMENTS)
def test_values_may_lie_anywhere(element):
    bits = finite_bits(element, (3, 8, 70, 33))
    for isa in _native.available_isas():
        _native.set_isa(isa)
        found = []
        for x in (bits, unaligned(bits)):
            given = from_bits(x, element)
            counts = np.zeros(64, np.uint64)
            found.append(
                [
                    kernels.abs_max(**given),
                    *kernels.min_max(**given),
                    kernels.channel_abs_max(axis=1, **given),
                    kernels.channel_abs_max(axis=3, **given),
                    kernels.channel_sums(axis=3, **given),
                    kernels.channel_pair_max(axis=0, pairs_along=1, **given),
                    *kernels.sample_rows(positions=[0, 5], **given),
                    kernels.quantize(threshold=2.0, **given),
                    kernels.quantize(threshold=np.ones(33, np.float32), axis=3, **given),
                    kernels.histogram(bins=64, bin_width=0.1, **given),
                    kernels.observe(counts=counts, width_exponent=4, **given).zeros,
                    counts,
                ]
            )
        for one, other in zip(*found):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernels.abs_max(X, dtype="float32"), "dtype"),
        (lambda: kernels.channel_abs_max(X, 2), "axis 2"),
        (lambda: kernels.channel_abs_max(X, -3), "axis -3"),
        (lambda: kernels.channel_pair_max(X, 2, 1), "^axis 2"),
        (lambda: kernels.channel_pair_max(X, 0, -3), "^pairs_along -3"),
        (lambda: kernels.channel_pair_max(X, -1, 1), "axis .* -1 "),
        (lambda: kernels.channel_pair_max(X, 0, 1, num_threads=0), "num_threads"),
        (lambda: kernels.channel_sums(X, 2), "axis 2"),
        (lambda: kernels.channel_sums(X, 0), "axis 0"),
        (lambda: kernels.channel_sums(X, -2), "axis 0"),
        (lambda: kernels.histogram(X, 0, 1.0), r"bins .*2\^20.* 0"),
        (lambda: kernels.histogram(X, (1 << 20) + 1, 1.0), "bins .*1048577"),
        (lambda: kernels.histogram(X, 4, 0.0), "bin_width"),
        (lambda: kernels.histogram(X, 4, -1.0), "bin_width"),
        (lambda: kernels.histogram(X, 4, np.inf), "bin_width"),
        (lambda: kernels.histogram(X, 4, np.nan), "bin_width"),
        (lambda: kernels.observe(X[0], np.zeros(4, np.uint64), 0), r"\[samples, values\]"),
        (lambda: kernels.observe(X[:0], np.zeros(4, np.uint64), 0), "empty"),
        (lambda: kernels.sample_maxima(X[0]), r"\[samples, values\]"),
        (lambda: kernels.sample_maxima(X[:0]), "empty"),
        (lambda: kernels.sample_rows(X, [0]), r"x .*\[samples, blocks, positions"),
        (lambda: kernels.sample_rows(X[None, :0, None], [0]), "empty"),
        (lambda: kernels.sample_rows(X[None, None], [0, 2]), "positions .* 0 to 1, got 2"),
        (lambda: kernels.sample_rows(X[None, None], [-1]), "positions .*got -1"),
        (lambda: kernels.observe(X, np.zeros((2, 2), np.uint64), 0), "1-D"),
        (lambda: kernels.observe(X, np.zeros(8, np.uint64)[::2], 0), "contiguous"),
        (lambda: kernels.observe(X, np.zeros(0, np.uint64), 0), "bins"),
        (lambda: kernels.observe(X, np.zeros(4, np.uint64), 121), "-120 to 120.* 121"),
        (lambda: kernels.observe(X, np.zeros(4, np.uint64), -121), "-120 to 120.* -121"),
        (lambda: kernels.observe(X, np.zeros(4, np.uint64), -(2**31)), "got -2147483648"),
        (lambda: kernels.observe(X, unaligned(np.zeros(4, np.uint64)), 0), "counts .*aligned"),
        (
            lambda: kernels.quantize(X, 1.0, bits=16, out=unaligned(np.zeros((2, 3), np.int16))),
            "out .*aligned",
        ),
        (lambda: kernels.abs_max(X, num_threads=0), "num_threads .*0"),
        (lambda: kernels.min_max(X, num_threads=-1), "num_threads"),
        (lambda: kernels.channel_abs_max(X, 0, num_threads=0), "num_threads"),
        (lambda: kernels.histogram(X, 4, 1.0, num_threads=0), "num_threads"),
        (lambda: kernels.observe(X, np.zeros(4, np.uint64), 0, num_threads=0), "num_threads"),
    ],
)
def test_values_that_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_counts_that_observe_refuses():
    with pytest.raises(TypeError, match="uint64"):
        kernels.observe(X, np.zeros(4, np.int64), 0)
    frozen = np.zeros(4, np.uint64)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        kernels.observe(X, frozen, 0)


def test_instruction_set_that_is_not_available():
    with pytest.raises(RuntimeError, match=r"'sse9'.*portable"):
        _native.set_isa("sse9")
    assert _native.isa() in _native.available_isas()


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


LOAD_NATIVE = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("pyquant._native", {_native.__file__!r})
native = importlib.util.module_from_spec(spec)
spec.loader.exec_module(native)
print(native.isa())
"""


@pytest.mark.parametrize("isa", _native.available_isas())
def test_environment_forces_an_instruction_set(isa):
    assert run_python(LOAD_NATIVE, PYQUANT_ISA=isa).stdout.strip() == isa


def test_environment_with_an_unknown_instruction_set():
    failed = run_python(LOAD_NATIVE, PYQUANT_ISA="mmx")
    assert re.search("RuntimeError: PYQUANT_ISA: .*'mmx'.*portable", failed.stderr)
