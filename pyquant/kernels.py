"""The arithmetic of quantization, in native code.

Values (`x`) may be float32, float16 or bfloat16, in one of these forms. None of them is copied if
its memory is contiguous:

- a numpy array; bfloat16 as its raw bits in uint16, with `dtype="bfloat16"`;
- a `paddle.Tensor` on the CPU, bfloat16 included;
- any other object with `__dlpack__` that numpy can import.

Other types raise a `TypeError` and are never converted. Results are bit-identical on every
instruction set and for every `num_threads`; None is OpenMP's default, and small arrays stay on one
thread. A `threshold` is the absolute value that the greatest integer stands for, in the unit of
`x`. With `bits` bits there are 2^(bits-1) - 1 levels above zero.

The environment variable `PYQUANT_ISA` (portable, avx2, avx512 or neon) forces an instruction set;
one that is not available raises a `RuntimeError` at the first call.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _native
from ._native import FRACTION_BITS as FRACTION_BITS
from .arrays import Values, view_values

_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Sums(NamedTuple):
    """Sums in float64 over a reference x and another array y; see `error_sums`.

    Attributes:
        total: of x.
        signal: of x^2.
        noise: of (x - y)^2.
        other: of y^2.
        product: of x y.
    """

    total: float
    signal: float
    noise: float
    other: float
    product: float


class Observation(NamedTuple):
    """What `observe` returns; a NaN among the values makes minimum and maximum NaN."""

    minimum: float
    maximum: float
    zeros: int
    non_finite: int
    sample_abs_max: NDArray[np.float32]
    counted: bool
    channel_sums: NDArray[np.float64] | None
    channel_abs_max: NDArray[np.float32] | None


class Maxima(NamedTuple):
    """What `sample_maxima` returns."""

    sample_abs_max: NDArray[np.float32]
    channel_sums: NDArray[np.float64] | None
    channel_abs_max: NDArray[np.float32] | None


def join_openmp(library: Path) -> bool:
    """Run the kernels on another OpenMP runtime's threads from now on; return whether this worked.

    A runtime's threads spin for a while after each parallel region and occupy the cores. So kernels
    that run between the ops of a network are faster on the network's own threads. No thread of a
    runtime survives a fork: in a forked process, the kernels have threads of their own, and join
    none.

    Args:
        library: the runtime's shared library, such as Paddle's ``libiomp5.so``. It must be loaded
            already and have GCC's interface (``GOMP_parallel``).
    """
    return _native.join_openmp(str(library))


def leave_openmp() -> None:
    """Run the kernels on threads of their own again; call it when the network has run."""
    _native.leave_openmp()


def watch_mapping(mapped: NDArray[np.uint8]) -> int:
    """Watch the memory of a mapped file; return a number for `is_mapping_cut`.

    Where the file has been truncated meanwhile, the memory reads as zeros instead of ending the
    process (SIGBUS). It must be forgotten (`forget_mapping`) before it is unmapped.
    """
    return _native.watch_mapping(mapped.__array_interface__["data"][0], mapped.nbytes)


def is_mapping_cut(number: int) -> bool:
    """Return whether something was read behind the end of a watched file."""
    return _native.is_mapping_cut(number)


def forget_mapping(number: int) -> None:
    """Stop watching."""
    _native.forget_mapping(number)


def abs_max(x: Values, *, dtype: str | None = None, num_threads: int | None = None) -> float:
    """Return the greatest |x|: 0.0 for an empty array, NaN if any value is NaN.

    Example:
        >>> abs_max(np.float32([1, -3, 2]))
        3.0
    """
    return _native.abs_max(_in_memory_order(view_values(x, dtype)), num_threads)


def min_max(
    x: Values, *, dtype: str | None = None, num_threads: int | None = None
) -> tuple[float, float]:
    """Return the least and the greatest value, both NaN if any value is; -0.0 is below 0.0.

    Raises:
        ValueError: `x` is empty.

    Example:
        >>> min_max(np.float32([1, -3, 2]))
        (-3.0, 2.0)
    """
    return _native.min_max(_in_memory_order(view_values(x, dtype)), num_threads)


def channel_abs_max(
    x: Values, axis: int, *, dtype: str | None = None, num_threads: int | None = None
) -> NDArray[np.float32]:
    """Return the greatest |x| of every channel along `axis`, float32[channels].

    It is 0 for channels without values, NaN for those with a NaN.

    Raises:
        ValueError: `axis` is out of range.

    Example:
        >>> channel_abs_max(np.float32([[1, -3], [2, 0]]), axis=0)
        array([3., 2.], dtype=float32)
    """
    return _native.channel_abs_max(_contiguous(view_values(x, dtype)), axis, num_threads)


def channel_pair_max(
    x: Values,
    axis: int,
    pairs_along: int,
    *,
    dtype: str | None = None,
    num_threads: int | None = None,
) -> NDArray[np.float32]:
    """Return the greatest magnitude of a pair in each channel along `axis`, float32[channels].

    The neighbours (0, 1), (2, 3) and so on along `pairs_along` are pairs; a last odd one stands
    alone. A channel's result is the greatest of |a|, |b| and |a + b| over its pairs, with the sum
    in float32 for every type of `x`. It is 0 for channels without values, NaN for those with a NaN.
    It bounds the magnitude of a * u + b * v for inputs u and v from 0 to 1.

    Raises:
        ValueError: `axis` or `pairs_along` is out of range, or both are the same.
    """
    values = _contiguous(view_values(x, dtype))
    return _native.channel_pair_max(values, axis, pairs_along, num_threads)


def sample_maxima(x: Values, *, dtype: str | None = None, num_threads: int | None = None) -> Maxima:
    """Return the greatest |x| of every sample, float32[samples], and channel sums and maxima.

    `x` is as in `observe`. A sample's greatest |x| is NaN if it has a NaN.

    Raises:
        ValueError: `x` is empty or has other dimensions.
    """
    return Maxima(*_native.sample_maxima(_contiguous(view_values(x, dtype)), num_threads))


def sample_rows(
    x: Values,
    positions: Sequence[int],
    *,
    dtype: str | None = None,
    num_threads: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
    """Return all channels of every sample at some positions, and a hash of each row's bits.

    `x` is [samples, blocks, positions, channels of a block]. The rows are float32[samples *
    len(positions), channels]. The hashes are uint64 and depend on the values alone, not on where
    they lie.

    Raises:
        ValueError: `x` is empty or has other dimensions, or a position is out of range.
    """
    return _native.sample_rows(_contiguous(view_values(x, dtype)), positions, num_threads)


def channel_sums(
    x: Values, axis: int, *, dtype: str | None = None, num_threads: int | None = None
) -> NDArray[np.float64]:
    """Return the sum of every channel along `axis` of each sample, float64[samples, channels].

    Samples lie along axis 0. Eight values of a channel at a time are added up in float32, these
    sums over 128 positions in float64, and those in float64 again, each in the order of the
    positions, so a transposed array gives the same result.

    Raises:
        ValueError: `axis` is 0 or out of range.
    """
    return _native.channel_sums(_contiguous(view_values(x, dtype)), axis, num_threads)


def add_exactly(
    sums: NDArray[np.float64], whole: NDArray[np.int64], fraction: NDArray[np.int64]
) -> None:
    """Add sums to totals that do not depend on the order of addition.

    Args:
        sums: float64[samples, channels]; clipped to a magnitude of 2^45.
        whole: int64[channels], the whole part of each total; added to in place.
        fraction: int64[channels], the rest, below one, in units of 2^-`FRACTION_BITS`; likewise.

    Raises:
        ValueError: the shapes do not fit.
    """
    _native.add_exactly(_contiguous(sums), whole, fraction)


def histogram(
    x: Values,
    bins: int,
    bin_width: float,
    *,
    dtype: str | None = None,
    num_threads: int | None = None,
) -> NDArray[np.uint64]:
    """Return the histogram of |x|, uint64[bins].

    Bin i counts i * bin_width <= |x| < (i + 1) * bin_width, in exact arithmetic. The last bin also
    counts |x| == bins * bin_width, as in `numpy.histogram`. Larger values and NaN are not counted.

    Raises:
        ValueError: `bins` is not in [1, 2^20], or `bin_width` is not finite and positive.

    Example:
        >>> histogram(np.float32([0.1, -0.2, 0.7]), bins=2, bin_width=0.5)
        array([2, 1], dtype=uint64)
    """
    return _native.histogram(_in_memory_order(view_values(x, dtype)), bins, bin_width, num_threads)


def observe(
    x: Values,
    counts: NDArray[np.uint64],
    width_exponent: int,
    *,
    dtype: str | None = None,
    num_threads: int | None = None,
) -> Observation:
    """Summarize `x` and add its histogram to `counts`, in one pass.

    `x` is [samples, values] or [samples, blocks, positions, channels of a block]. The latter also
    gives the sums of its channels as in `channel_sums`, float64[samples, channels], and their
    maxima as in `channel_abs_max`, float32[channels].

    The bins of `counts` (uint64[bins], changed in place) are 2.0**width_exponent wide. If any
    finite |x| lies beyond them (|x| >= bins * 2.0**width_exponent), `counts` stays unchanged and
    `counted` is False: widen the bins and call again. Non-finite values are never counted.

    Raises:
        ValueError: `x` is empty or has other dimensions, `counts` is not 1-D, contiguous and
            writable, or `width_exponent` is not in [-120, 120].
        TypeError: `counts` is not an array of uint64.
    """
    values = _contiguous(view_values(x, dtype))
    return Observation(*_native.observe(values, counts, width_exponent, num_threads))


def kl_threshold(
    counts: NDArray[Any], bin_width: float, bits: int = 8, start: int | None = None
) -> float:
    """Return the threshold of least Kullback-Leibler divergence from the histogram `counts`.

    The result equals that of Paddle's `cal_kl_threshold` (2.6 to 3.3, as Python up to 3.11 computes
    it) over the same candidates: each number of bins i from `start` on whose last bin is not
    empty. The threshold is (i + 0.5) * bin_width. `start` defaults to the number of levels;
    Paddle's own is `int((bins - 1) * 0.5)`, which never goes below half of the range.

    Raises:
        TypeError: `counts` does not hold integers.
        ValueError: `counts` is not 1-D, is negative, all zero or adds up to 2^63 or more,
            `bin_width` is not finite and positive, `bits` is not in [2, 16], or `start` is not in
            [0, bins).
    """
    return _native.kl_threshold(_counts(counts), bin_width, bits, start)


def mse_threshold(counts: NDArray[Any], bin_width: float, bits: int = 8) -> float:
    """Return the threshold of least mean squared quantization error.

    It tries i * bin_width up to the upper edge of the last bin that is not empty, and prefers the
    smallest of equals. A value counts as its bin's centre; beyond the threshold it is clipped. See
    arXiv 1810.05723 and 2206.06501. Raises as `kl_threshold`.

    Example:
        >>> counts = np.array([10**6, 10**6, 0, 0, 0, 0, 0, 0, 0, 1])
        >>> mse_threshold(counts, bin_width=0.5, bits=8)  # the value far off is clipped
        1.0
    """
    return _native.mse_threshold(_counts(counts), bin_width, bits)


def emd_threshold(counts: NDArray[Any], bin_width: float, bits: int = 8) -> float:
    """Return the threshold of least earth mover's distance to the quantized distribution.

    Like `mse_threshold`, with the mean of |x - quantized x|. Raises as `kl_threshold`.
    """
    return _native.emd_threshold(_counts(counts), bin_width, bits)


def percentile_threshold(counts: NDArray[Any], bin_width: float, percent: float) -> float:
    """Return the upper edge of the first bin at which the share of the counts reaches `percent`.

    `percent` is a fraction in (0, 1], as Paddle's `hist_percent`: 0.9999 means 99.99 %. The
    comparison is exact, so 1.0 gives the upper edge of the last bin that is not empty.

    Raises:
        TypeError: `counts` does not hold integers.
        ValueError: `percent` is not in (0, 1], or as `kl_threshold`.

    Example:
        >>> percentile_threshold(np.array([90, 9, 1]), bin_width=0.5, percent=0.99)
        1.0
    """
    return _native.percentile_threshold(_counts(counts), bin_width, percent)


def quantize(
    x: Values,
    threshold: float | NDArray[np.float32],
    axis: int | None = None,
    bits: int = 8,
    *,
    dtype: str | None = None,
    num_threads: int | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Quantize symmetrically to int8 for up to 8 bits, else to int16, in the shape of `x`.

    The threshold is a single one, or float32[channels] with `axis`. The result equals, bit for bit,
    Paddle's `quantize_linear` (round_type 0): round half to even of x * (levels * (1 / threshold)),
    each operation rounded to float32, clipped to [-levels - 1, levels]. NaN becomes 0, and so do
    the zeros of an all-zero channel with threshold 0. If `out` is given, the result is written to
    it and `out` is returned. It must not overlap `x`. Reusing memory saves the time that the system
    takes for new memory.

    Raises:
        ValueError: a threshold is negative or not finite, their number differs from that of the
            channels, `axis` is out of range, `bits` is not in [2, 16], or `out` has another shape
            than `x` or is not writable.
        TypeError: `out` is not C-contiguous or has another type than the result.

    Example:
        >>> quantize(np.float32([0.5, -1, 3]), threshold=1.0)
        array([  64, -127,  127], dtype=int8)
    """
    values = _contiguous(view_values(x, dtype))
    return _native.quantize(values, _thresholds(threshold), axis, bits, num_threads, out)


def dequantize(
    q: NDArray[Any],
    threshold: float | NDArray[np.float32],
    axis: int | None = None,
    bits: int = 8,
    *,
    num_threads: int | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return q * threshold / levels in float32, bit for bit Paddle's `dequantize_linear`.

    If `out` is given, the result is written to it, as by `quantize`.

    Raises:
        TypeError: `q` is not int8 or int16, or `out` is not C-contiguous float32.
        ValueError: as `quantize`.

    Example:
        >>> dequantize(np.int8([127, -127, 0]), threshold=0.5)
        array([ 0.5, -0.5,  0. ], dtype=float32)
    """
    if not isinstance(q, np.ndarray) or q.dtype not in (np.int8, np.int16):
        raise TypeError(f"q must be a numpy array of int8 or int16, got {_type_name(q)}")
    return _native.dequantize(_contiguous(q), _thresholds(threshold), axis, bits, num_threads, out)


def quantize_groups(
    x: Values,
    bits: int = 4,
    *,
    search: bool = True,
    dtype: str | None = None,
    num_threads: int | None = None,
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize values in groups, each with its own step, in one pass.

    Args:
        x: [outer, size, inner]; the values along the middle axis are a group, of up to 1024.
        bits: 4, for integers from -8 to 7, or 8, for -128 to 127.
        search: take the step of least squared error among a few, where an error weighs the square
            of its value plus the mean of these squares. For the integers that a step gives, the
            best step follows by least squares. Otherwise, the step maps the greatest magnitude to
            7 or 127.
        dtype: as for the other kernels.
        num_threads: None uses OpenMP's default.

    Returns:
        The integers, int8[outer, size, inner], and the steps, float32[outer, 1, inner]. A step may
        be negative. It is 1 for a group of zeros, and NaN for one that holds NaN or infinity. With
        4 bits, a byte has two integers, int8[outer, size / 2, inner]: 16 times the one from the
        second half of its group, plus 8, plus the one from the first half.

    Raises:
        ValueError: `x` has other dimensions or larger groups, `bits` is neither 4 nor 8, or groups
            of 4 bits have an odd size.
    """
    return _native.quantize_groups(_contiguous(view_values(x, dtype)), bits, search, num_threads)


def mean_errors(
    values: NDArray[np.float32],
    integers: NDArray[np.int8],
    steps: NDArray[np.float32],
    inputs: NDArray[np.float64],
    axis: int,
    groups: int = 1,
    *,
    num_threads: int | None = None,
) -> NDArray[np.float64]:
    """Return the error of products with a matrix when integers times steps replace it.

    Args:
        values: the matrix, float32[rows, columns].
        integers: int8 of the same shape.
        steps: float32, [rows or 1, columns or 1].
        inputs: what the matrix is multiplied by: float64[groups * columns] if ``axis`` is 0, else
            float64[rows].
        axis: the axis of the outputs.
        groups: the number of groups of equally many rows. With ``axis`` 0, each group reads its own
            inputs; otherwise the rows of a group are added up.
        num_threads: None uses OpenMP's default.

    Returns:
        The sums of (value - integer * step) * input, with the difference in float32 and all else
        in float64: float64[rows] if ``axis`` is 0, else float64[groups * columns].

    Raises:
        ValueError: the shapes do not fit.
    """
    matrix = _contiguous(values), _contiguous(integers), _aligned(steps)
    return _native.mean_errors(*matrix, _aligned(inputs), axis, groups, num_threads)


def error_sums(
    reference: NDArray[Any], other: NDArray[Any], *, num_threads: int | None = None
) -> Sums:
    """Return the sums of which a similarity is made: errors, powers and products.

    Args:
        reference: x, float32 or float64, of any shape.
        other: y, with as many values of the same type.
        num_threads: None uses OpenMP's default.

    Returns:
        The sums. All values become float64 before anything is computed of them. The sums that a
        NaN enters are NaN.

    Raises:
        TypeError: the arrays are of another type.
        ValueError: they do not have as many values.
    """
    return Sums(*_native.error_sums(_contiguous(reference), _contiguous(other), num_threads))


def scaled_square_sums(
    values: NDArray[np.float32],
    factors: NDArray[np.float64],
    *,
    num_threads: int | None = None,
) -> NDArray[np.float64]:
    """Return the sum of the squares in each column of matrices, times a factor for each row.

    Args:
        values: finite float32[groups, rows, columns].
        factors: float64[groups, rows].
        num_threads: None uses OpenMP's default.

    Returns:
        float64[groups, columns]; the rows are added in their order.

    Raises:
        ValueError: the shapes do not fit.
    """
    return _native.scaled_square_sums(_contiguous(values), _aligned(factors), num_threads)


def scaled_maxima(
    values: NDArray[np.float32],
    factors: NDArray[np.float32],
    *,
    num_threads: int | None = None,
) -> NDArray[np.float32]:
    """Return the greatest magnitude in each column of matrices, times a factor for each row.

    Args:
        values: finite float32[groups, rows, columns].
        factors: finite float32[groups, rows].
        num_threads: None uses OpenMP's default.

    Returns:
        float32[groups, columns].

    Raises:
        ValueError: the shapes do not fit.
    """
    return _native.scaled_maxima(_contiguous(values), _aligned(factors), num_threads)


def add_moments(
    samples: NDArray[np.float32],
    moments: NDArray[np.float64],
    *,
    num_threads: int | None = None,
) -> None:
    """Add the second moments of samples, the sums of samples[n, i] * samples[n, j], to ``moments``.

    Each sum follows the order of the samples, so several calls give the same as one call with all.

    Args:
        samples: float32[samples, size].
        moments: float64[size, size], C-contiguous; added to in place.
        num_threads: None uses OpenMP's default.

    Raises:
        ValueError: the shapes do not fit.
    """
    _native.add_moments(_aligned(samples), moments, num_threads)


def round_by_moments(
    weights: NDArray[np.float32],
    steps: NDArray[np.float32],
    moments: NDArray[np.float64],
    bits: int = 8,
    *,
    sweeps: int = 8,
    num_threads: int | None = None,
) -> NDArray[Any]:
    """Round weights for the least error in their products with inputs of known moments.

    Each starts as its nearest integer. One after the other then becomes whichever of its two
    neighbours gives its row's products the smaller squared error, with all others fixed. This is
    the objective of AdaRound (arXiv 2004.10568) by coordinate descent (arXiv 2309.01885).

    Args:
        weights: float32[rows, size], a row for each output channel.
        steps: float32[rows], the step between integers.
        moments: float64[size, size] of the inputs, symmetric, as from `add_moments`. Weights of an
            input whose moment is zero keep the nearest integers. Nothing is factorised, so a
            singular matrix is as good as any.
        bits: of the integers, 2 to 16.
        sweeps: how many times each integer may move.
        num_threads: None uses OpenMP's default.

    Returns:
        int8[rows, size], or int16 for more than 8 bits.

    Raises:
        ValueError: the shapes do not fit, a step is not finite and positive, or a moment is not
            finite.
    """
    arrays = _aligned(weights), _aligned(steps), _aligned(moments)
    return _native.round_by_moments(*arrays, bits, sweeps, num_threads)


def _contiguous(x: NDArray[Any]) -> NDArray[Any]:
    # ascontiguousarray alone would give a 0-D array a dimension.
    return x if x.flags.c_contiguous else np.ascontiguousarray(x)


def _aligned(x: NDArray[Any]) -> NDArray[Any]:
    return _contiguous(x) if x.flags.aligned else x.copy()


def _in_memory_order(x: NDArray[Any]) -> NDArray[Any]:
    """Sort axes by stride where the order of values is irrelevant: no copy if transposed."""
    if x.flags.c_contiguous:
        return x
    largest_stride_first = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    return np.ascontiguousarray(x.transpose(largest_stride_first))


def _counts(counts: NDArray[Any]) -> NDArray[np.uint64]:
    if not isinstance(counts, np.ndarray) or counts.dtype.kind not in "iu":
        raise TypeError(f"counts must be a numpy array of integers, got {_type_name(counts)}")
    if counts.dtype.kind == "i" and (counts < 0).any():
        raise ValueError("counts must not be negative")
    return _aligned(counts.astype(np.uint64, copy=False))


def _thresholds(threshold: float | NDArray[np.float32]) -> NDArray[np.float32]:
    if isinstance(threshold, np.ndarray) and threshold.dtype == np.float32:
        return _aligned(threshold if threshold.ndim != 0 else threshold.reshape(1))
    if isinstance(threshold, float) and abs(threshold) < _FLOAT32_MAX:
        return np.array((threshold,), np.float32)
    with np.errstate(over="ignore"):  # an overflow gives infinity, which is refused
        return np.atleast_1d(np.asarray(threshold, dtype=np.float32))


def _type_name(x: Any) -> str:
    return str(x.dtype) if isinstance(x, np.ndarray) else type(x).__name__
