"""Kernels over more than 2^31 and 2^32 values: pytest -m large tests/test_large_sizes.py.

Arrays lie in memory that is mapped again and again, so they take little of it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pyquant import kernels

pytestmark = [pytest.mark.any_isa, pytest.mark.large]

# What repeats has a size that divides neither 2^31 nor 2^32, or 32 bits of an index would do.
PERIOD = 3 << 20
TAIL = 3 * 4099
SIZES = [PERIOD * ((1 << 31) // PERIOD + 1) + TAIL, PERIOD * ((1 << 32) // PERIOD + 1) + TAIL]
LIBRARY = ctypes.CDLL(None, use_errno=True)
LIBRARY.mmap.restype = ctypes.c_void_p
LIBRARY.mmap.argtypes = [
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
]
MAP_FIXED, MAP_NORESERVE = 0x10, 0x4000


class Long:
    """An array whose first PERIOD values repeat, up to a tail of its own."""

    def __init__(self, dtype: Any, size: int, values: Any = 0, tail: Any = 0) -> None:
        item = np.dtype(dtype).itemsize
        period, times = PERIOD * item, size // PERIOD
        # Memory that is only reserved, of which nothing is left in its place.
        memory = _mapped(None, times * period + TAIL * item, -1, mmap.MAP_PRIVATE)
        repeated = os.memfd_create("repeated")
        os.ftruncate(repeated, period)
        for number in range(times):
            _mapped(memory + number * period, period, repeated, mmap.MAP_SHARED)
        os.close(repeated)
        data = (ctypes.c_char * (size * item)).from_address(memory)
        self.array = np.frombuffer(data, dtype)
        self.head, self.tail = self.array[:PERIOD], self.array[-TAIL:]
        self.head[:], self.tail[:] = values, tail

    def close(self) -> None:
        LIBRARY.munmap(ctypes.c_void_p(self.array.ctypes.data), ctypes.c_size_t(self.array.nbytes))

    def parts(self, begin: int, end: int) -> Iterator[tuple[Any, int]]:
        """Yield the values of a part of the array, and how often they come."""
        tail = len(self.array) - TAIL
        first, last = min(-(-begin // PERIOD), tail // PERIOD), min(end, tail) // PERIOD
        yield self.array[begin : min(first * PERIOD, end)], 1
        yield self.head, max(last - first, 0)
        yield self.array[max(last * PERIOD, begin) : end], 1


def _mapped(address: int | None, size: int, file: int, flags: int) -> int:
    if file < 0:
        flags |= mmap.MAP_ANONYMOUS | MAP_NORESERVE
    if address is not None:
        flags |= MAP_FIXED
    at = LIBRARY.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, file, 0)
    assert at != ctypes.c_void_p(-1).value, os.strerror(ctypes.get_errno())
    return int(at)


@pytest.fixture(params=SIZES, ids=["2^31", "2^32"])
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def long() -> Iterator[Any]:
    """Return a function that makes a Long of small integers, whose tail has the largest."""
    made: list[Long] = []

    def make(dtype: Any, size: int, empty: bool = False) -> Long:
        random = np.random.default_rng(len(made))
        of_head, of_tail = random.integers(-7, 8, PERIOD), random.integers(-90, 91, TAIL)
        made.append(Long(dtype, size, *((0, 0) if empty else (of_head, of_tail))))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_reductions(long: Any, size: int, dtype: str) -> None:
    of = long(dtype, size)
    assert kernels.abs_max(of.array) == np.abs(of.tail).max()
    assert kernels.min_max(of.array) == (of.tail.min(), of.tail.max())


def test_bfloat16(long: Any, size: int) -> None:
    of = long("uint16", size, empty=True)
    of.tail[-1] = 0xC2B4
    assert kernels.abs_max(of.array, dtype="bfloat16") == 90
    assert kernels.min_max(of.array, dtype="bfloat16") == (-90, 0)


def test_long_channels(long: Any, size: int) -> None:
    """The first channel ends, and the last begins, in the middle of a period."""
    of = long("float16", size)
    x, length = of.array.reshape(3, -1), size // 3
    parts = [[*of.parts(begin, begin + length)] for begin in (0, length, 2 * length)]
    assert all(sum(len(values) * times for values, times in part) == length for part in parts)
    maxima = [max(np.abs(v).max() for v, times in part if v.size and times) for part in parts]
    np.testing.assert_array_equal(kernels.channel_abs_max(x, 0), maxima)
    sums = [sum(v.sum(dtype="f8") * times for v, times in part) for part in parts]
    np.testing.assert_array_equal(kernels.channel_sums(x[None], 1), [sums])
    x[-1, -3:] = 100  # three in a row: two of them are a pair, at any length
    assert kernels.channel_pair_max(x, 0, 1)[2] == 200


def test_many_positions(long: Any, size: int) -> None:
    """Channels lie side by side."""
    of = long("float16", size)
    x, times = of.array.reshape(-1, 3), size // PERIOD
    head, tail = of.head.reshape(-1, 3), of.tail.reshape(-1, 3)
    sums = head.sum(0, dtype="f8") * times + tail.sum(0, dtype="f8")
    maxima = np.abs(tail).max(0)
    np.testing.assert_array_equal(kernels.channel_abs_max(x, 1), maxima)
    np.testing.assert_array_equal(kernels.channel_sums(x[None], 2), [sums])
    seen = kernels.sample_maxima(x[None, None])
    np.testing.assert_array_equal(seen.channel_sums, [sums])
    np.testing.assert_array_equal(seen.channel_abs_max, maxima)
    assert seen.sample_abs_max == [maxima.max()]
    rows, _ = kernels.sample_rows(x[None, None], [0, len(x) - 2, len(x) - 1])
    np.testing.assert_array_equal(rows, x[[0, -2, -1]])
    x[-3:] = 100
    np.testing.assert_array_equal(kernels.channel_pair_max(x, 1, 0), [200, 200, 200])


@pytest.mark.parametrize("crowded", [False, True])
def test_counts(long: Any, size: int, crowded: bool) -> None:
    """One thread counts more than 2^32 values: of one bin, or of many."""
    of = long("float32", size)
    if crowded:
        of.head[:] = 0
    expected = sum(
        times * np.bincount(np.abs(values).astype(int), minlength=128)
        for values, times in of.parts(0, size)
    )
    found = kernels.histogram(of.array, 128, 1.0, num_threads=1)
    np.testing.assert_array_equal(found, expected)
    for x in (of.array[None], of.array.reshape(1, 1, -1, 3)):
        counts = np.zeros(128, np.uint64)
        seen = kernels.observe(x, counts, 0, num_threads=1)
        assert seen.maximum == of.tail.max()
        assert seen.zeros == expected[0]
        assert seen.counted
        np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("bits", [8, 16])
def test_quantize(long: Any, size: int, bits: int) -> None:
    of, integers = long("float16", size), long(f"int{bits}", size, empty=True)
    floats = long("float32", size, empty=True)
    thresholds = np.array([90, 50, 5], np.float32)
    for axis, threshold in ((None, np.float32(90)), (1, thresholds)):
        x, q, values = (one.array.reshape(-1, 3) for one in (of, integers, floats))
        kernels.quantize(x, threshold, axis, bits, out=q)
        kernels.dequantize(q, threshold, axis, bits, out=values)
        for found, again, read in zip(
            (integers.head, integers.tail), (floats.head, floats.tail), (of.head, of.tail)
        ):
            expected = kernels.quantize(read.reshape(-1, 3), threshold, axis, bits)
            np.testing.assert_array_equal(found.reshape(-1, 3), expected)
            back = kernels.dequantize(expected, threshold, axis, bits)
            np.testing.assert_array_equal(again.reshape(-1, 3), back)


@pytest.mark.parametrize(("bits", "search"), [(4, False), (8, True)])
@pytest.mark.parametrize("inner", [1, 2**20])
def test_groups(long: Any, size: int, inner: int, bits: int, search: bool) -> None:
    """A group's integers depend on its own values alone."""
    of, group = long("float16", size), 128
    outer = size // group // inner
    x = of.array[-outer * group * inner :].reshape(outer, group, inner)
    integers, steps = kernels.quantize_groups(x, bits, search=search)
    for first in (0, outer - 1):
        expected = kernels.quantize_groups(x[first : first + 1], bits, search=search)
        np.testing.assert_array_equal(integers[first : first + 1], expected[0])
        np.testing.assert_array_equal(steps[first : first + 1], expected[1])


def test_moments(long: Any, size: int) -> None:
    of, moments = long("float32", size), np.zeros((3, 3))
    kernels.add_moments(of.array.reshape(-1, 3), moments)
    head, tail = (part.reshape(-1, 3).astype("f8") for part in (of.head, of.tail))
    np.testing.assert_array_equal(moments, head.T @ head * (size // PERIOD) + tail.T @ tail)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scaled_columns(long: Any, size: int, dtype: str) -> None:
    """Each row has a factor: 3 in the tail, and 1 before."""
    of, times = long("float32", size), size // PERIOD
    factors = long(dtype, PERIOD * times + TAIL, empty=True)
    factors.head[:], factors.tail[:], factors.tail[-TAIL // 3 :] = 1, 1, 3
    head, tail = (part.reshape(-1, 3).astype("f8") for part in (of.head, of.tail))
    given = of.array.reshape(1, -1, 3), factors.array[-size // 3 :][None]
    if dtype == "float32":
        found = kernels.scaled_maxima(*given)
        expected = np.maximum(np.abs(head).max(0), 3 * np.abs(tail).max(0))
    else:
        found = kernels.scaled_square_sums(*given)
        expected = np.square(head).sum(0) * times + 3 * np.square(tail).sum(0)
    np.testing.assert_array_equal(found[0], expected)


def test_errors_of_products(long: Any, size: int) -> None:
    of, integers, times = long("float32", size), long("int8", size), size // PERIOD
    inputs = long("float64", PERIOD * times + TAIL, empty=True)
    inputs.head[:], inputs.tail[:], inputs.tail[-TAIL // 3 :] = 1, 1, 3
    found = kernels.mean_errors(
        *(one.array.reshape(-1, 3) for one in (of, integers)),
        np.ones((1, 1), np.float32),
        inputs.array[-size // 3 :],
        axis=1,
    )
    head, tail = of.head - integers.head, of.tail - integers.tail
    expected = head.reshape(-1, 3).sum(0, dtype="f8") * times + tail.reshape(-1, 3).sum(0) * 3
    np.testing.assert_array_equal(found, expected)


def test_sums_of_errors(long: Any, size: int) -> None:
    of, times = long("float32", size), size // PERIOD
    other = long("float32", size, empty=True)
    other.head[:], other.tail[:] = 1, 2

    def sums(part: Any, value: int) -> Any:
        x = part.astype("f8")
        terms = (x, x * x, (x - value) ** 2, np.full_like(x, value) ** 2, x * value)
        return np.array([term.sum() for term in terms])

    found = kernels.error_sums(of.array, other.array)
    np.testing.assert_array_equal(found, sums(of.head, 1) * times + sums(of.tail, 2))


def test_rounding(long: Any, size: int) -> None:
    of = long("float32", size)
    steps, moments = long("float32", size), np.ones((1, 1))
    steps.head[:], steps.tail[:] = 1, 2
    found = kernels.round_by_moments(of.array[:, None], steps.array, moments)
    np.testing.assert_array_equal(found[:PERIOD, 0], of.head)
    np.testing.assert_array_equal(found[-TAIL:, 0], np.round(of.tail / 2))


def test_sums(long: Any, size: int) -> None:
    of, whole, fraction = long("float64", size), np.zeros(3, np.int64), np.zeros(3, np.int64)
    kernels.add_exactly(of.array.reshape(-1, 3), whole, fraction)
    head, tail = (part.reshape(-1, 3).sum(0) for part in (of.head, of.tail))
    np.testing.assert_array_equal(whole, head * (size // PERIOD) + tail)
    assert not fraction.any()
