"""The measured cases, each with references that must agree before anything is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyquant import kernels

from . import peers
from .peers import (
    Reference,
    counts_within,
    each_exactly,
    exactly,
    nearly,
    nearly_after_maxima,
    within,
)


@dataclass(frozen=True)
class Case:
    """One kernel on one input.

    Attributes:
        name: kernel, type and shape.
        run: calls the kernel; takes ``num_threads`` if ``values`` is not 0.
        references: others that compute the same.
        values: how many values are processed; 0 for a search in a histogram.
        read: bytes read from memory.
        written: bytes written to memory.
    """

    name: str
    run: Callable[..., Any]
    references: list[Reference]
    values: int = 0
    read: int = 0
    written: int = 0


def cases(size: int) -> Iterator[Case]:
    """Yield every case; the arrays have about ``size`` values."""
    gaussian = np.random.default_rng(0).standard_normal(size, np.float32)
    yield from _reductions(gaussian)
    yield from _channel_reductions(gaussian)
    yield from _channel_pairs(gaussian)
    yield from _channel_sums(gaussian)
    yield _error_sums(gaussian)
    yield _rows(gaussian)
    yield from _histograms(gaussian)
    yield from _thresholds(gaussian)
    yield from _quantizing(gaussian)
    yield from _small()


def large_cases(weights: int, shape: tuple[int, int], batches: int) -> Iterator[Case]:
    """Yield the cases of a large model.

    Args:
        weights: the number of bfloat16 weights.
        shape: of each weight.
        batches: the number of batches of activations, of 64 MiB or less if the weights are smaller.
    """
    generator = np.random.default_rng(2)
    first = bfloat16_bits(generator.standard_normal(shape, np.float32))
    yield from _large_weights([first])
    yield from _large_weights([first.copy() for _ in range(weights)])
    activations = [
        generator.standard_normal(min(first.size, 1 << 24), np.float32) for _ in range(batches)
    ]
    yield _large_histogram(activations)


def sized_cases(size: int) -> Iterator[Case]:
    """Yield one case of each kind on ``size`` values, to plot time against size."""
    x = np.random.default_rng(4).standard_normal(size, np.float32)
    integers = kernels.quantize(x, 4.0)
    values = np.empty_like(x)
    cases = (
        ("abs_max", partial(kernels.abs_max, x), partial(_numpy_abs_max, x), 4, 0),
        (
            "histogram 2048",
            partial(kernels.histogram, x, 2048, 2.0**-8),
            partial(_numpy_histogram, x, 2048, 8.0),
            4,
            0,
        ),
        (
            "quantize",
            partial(kernels.quantize, x, 4.0, out=np.empty_like(integers)),
            lambda: np.clip(np.rint(x * np.float32(31.75)), -128, 127).astype(np.int8),
            4,
            1,
        ),
        (
            "dequantize",
            partial(kernels.dequantize, integers, 4.0, out=values),
            lambda: integers * np.float32(4) / np.float32(127),
            1,
            4,
        ),
    )
    for name, run, reference, read, written in cases:
        yield Case(name, run, numpy(reference), size, read * size, written * size)


def numpy(run: Callable[[], Any], agree: Callable[[Any, Any], bool] = exactly) -> list[Reference]:
    """Return a numpy function as the only reference."""
    return [Reference("numpy", run, agree)]


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the upper halves of float32 values: bfloat16, rounded towards zero."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return raw bfloat16 as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def gibibytes(size: int) -> str:
    """Return a size in bytes as text."""
    return f"{size / 2**30:.2g} GiB" if size >= 2**29 else f"{size / 2**20:.2g} MiB"


def _elements(x: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[Any], dict[str, Any]]]:
    """Yield ``x`` in every type, with the keyword that the kernels need."""
    yield "fp32", x, {}
    yield "fp16", x.astype(np.float16), {}
    yield "bf16", bfloat16_bits(x), {"dtype": "bfloat16"}


def _float_values(array: NDArray[Any]) -> NDArray[Any]:
    return widened(array) if array.dtype == np.uint16 else array


def _numpy_abs_max(array: NDArray[Any], axis: tuple[int, ...] | None = None) -> Any:
    return np.abs(_float_values(array)).max(axis=axis)


def _numpy_min_max(array: NDArray[Any]) -> Any:
    values = _float_values(array)
    return values.min(), values.max()


def _reductions(x: NDArray[np.float32]) -> Iterator[Case]:
    for element, array, keyword in _elements(x):
        for name, kernel, reference in (
            ("abs_max", kernels.abs_max, _numpy_abs_max),
            ("min_max", kernels.min_max, _numpy_min_max),
        ):
            yield Case(
                f"{name} {element}",
                partial(kernel, array, **keyword),
                numpy(partial(reference, array)),
                values=array.size,
                read=array.nbytes,
            )


def _channel_reductions(x: NDArray[np.float32]) -> Iterator[Case]:
    """Yield layouts of weights and activations, with channels first, in the middle and last."""
    layouts = [
        ((-1, 4096), 0),  # a matrix, by row
        ((-1, 4096), 1),  # and by column
        ((64, -1, 1024), 1),  # NCHW activations
        ((64, -1, 3, 3), 1),  # a transposed convolution's weight
        ((-1, 256), 1),  # NHWC activations
    ]
    for element, array, keyword in _elements(x):
        for shape, axis in layouts:
            known = -int(np.prod(shape))
            view = array[: array.size // known * known].reshape(shape)
            others = tuple(other for other in range(view.ndim) if other != axis)
            dims = ", ".join(map(str, view.shape))
            yield Case(
                f"channel_abs_max {element} axis {axis} of [{dims}]",
                partial(kernels.channel_abs_max, view, axis, **keyword),
                numpy(partial(_numpy_abs_max, view, others)),
                values=view.size,
                read=view.nbytes,
            )


def _channel_pairs(x: NDArray[np.float32]) -> Iterator[Case]:
    """Yield weights of convolutions, and of matrix products in both orders."""
    layouts = [
        ((-1, 256, 3, 3), 0, 1),
        ((-1, 512, 1, 1), 0, 1),
        ((-1, 4096), 1, 0),
        ((-1, 1000), 1, 0),
    ]
    for element, array, keyword in _elements(x):
        for shape, axis, pairs_along in layouts:
            known = -int(np.prod(shape))
            view = array[: array.size // known * known].reshape(shape)
            dims = ", ".join(map(str, view.shape))
            yield Case(
                f"channel_pair_max {element} axes {axis}, {pairs_along} of [{dims}]",
                partial(kernels.channel_pair_max, view, axis, pairs_along, **keyword),
                numpy(partial(_numpy_pair_max, view, axis, pairs_along)),
                values=view.size,
                read=view.nbytes,
            )


def _numpy_pair_max(array: NDArray[Any], axis: int, pairs_along: int) -> Any:
    values = np.moveaxis(_float_values(array), (axis, pairs_along), (0, 1)).astype(np.float32)
    one, other = values[:, ::2], values[:, 1::2]
    every = np.abs(one[:, : other.shape[1]] + other)
    of_pairs = every.max(axis=tuple(range(1, values.ndim)), initial=0)
    return np.maximum(of_pairs, np.abs(values).max(axis=tuple(range(1, values.ndim))))


def _error_sums(x: NDArray[np.float32]) -> Case:
    """Return the sums that tell how far an output is from what it should be."""
    other = x + np.float32(0.01) * x[::-1]

    def by_numpy() -> NDArray[np.float64]:
        a, b = x.astype(np.float64), other.astype(np.float64)
        return np.array([a.sum(), a @ a, (a - b) @ (a - b), b @ b, a @ b])

    return Case(
        f"error_sums fp32 [{x.size}]",
        lambda num_threads: np.array(kernels.error_sums(x, other, num_threads=num_threads)),
        numpy(by_numpy, nearly),
        values=x.size,
        read=2 * x.nbytes,
    )


def _channel_sums(x: NDArray[np.float32]) -> Iterator[Case]:
    """Yield activations in order, and in blocks of channels as oneDNN has them."""
    for shape, axis in (((64, -1, 1024), 1), ((64, -1, 16), 2), ((64, -1, 256), 2)):
        known = -int(np.prod(shape))
        view = x[: x.size // known * known].reshape(shape)
        dims = ", ".join(map(str, view.shape))
        yield Case(
            f"channel_sums fp32 axis {axis} of [{dims}]",
            partial(kernels.channel_sums, view, axis),
            numpy(partial(np.sum, view, axis=3 - axis, dtype=np.float64), nearly),
            values=view.size,
            read=view.nbytes,
        )
        if axis == 2:
            yield Case(
                f"sample_maxima and sums fp32 of [{dims}]",
                partial(kernels.sample_maxima, view[:, None]),
                numpy(partial(_maxima_and_sums, view), nearly_after_maxima),
                values=view.size,
                read=view.nbytes,
            )


def _rows(x: NDArray[np.float32]) -> Case:
    """Return the sampling of rows from activations in blocks of channels, as oneDNN has them."""
    view = x[: x.size // (64 * 512) * (64 * 512)].reshape(64, 32, -1, 16)
    positions = np.linspace(0, view.shape[2] - 1, 16).astype(int).tolist()
    nbytes = 64 * 16 * 512 * x.itemsize
    return Case(
        f"sample_rows fp32 of [{', '.join(map(str, view.shape))}]",
        partial(kernels.sample_rows, view, positions),
        numpy(partial(_rows_and_hashes, view, positions), each_exactly),
        values=64 * 16 * 512,
        read=nbytes,
        written=nbytes,
    )


def _rows_and_hashes(x: NDArray[np.float32], positions: list[int]) -> tuple[Any, Any]:
    rows = np.moveaxis(x[:, :, positions], 2, 1).reshape(len(x) * len(positions), -1)
    odd = np.uint64(0x9E3779B97F4A7C15)
    words = rows.view(np.uint64)
    hashes = (words * (np.arange(1, words.shape[1] + 1, dtype=np.uint64) * odd)).sum(axis=1)
    hashes ^= hashes >> np.uint64(32)
    hashes *= odd
    return rows, hashes ^ hashes >> np.uint64(32)


def _maxima_and_sums(x: NDArray[np.float32]) -> tuple[Any, Any]:
    return np.abs(x).max(axis=(1, 2)), x.sum(axis=1, dtype=np.float64)


def _histograms(gaussian: NDArray[np.float32]) -> Iterator[Case]:
    generator = np.random.default_rng(1)
    distributions = {
        "Gaussian": gaussian,
        "uniform": generator.random(gaussian.size, np.float32),
        "constant": np.full(gaussian.size, 0.7, np.float32),
        "half zero": np.maximum(gaussian, 0),
        "heavy tail": (gaussian**3).astype(np.float32),
    }
    for bins in (2048, 8192):
        for name, x in distributions.items():
            yield _histogram(name, x, bins, with_peers=bins == 2048 and name == "Gaussian")
    yield _histogram("Gaussian fp16", gaussian.astype(np.float16), 2048, with_peers=False)
    yield _observation(gaussian)


def _histogram(name: str, x: NDArray[Any], bins: int, with_peers: bool) -> Case:
    top = kernels.abs_max(x)
    # numpy rounds the edges to the type of the data; pyquant's are exact.
    references = numpy(partial(_numpy_histogram, x, bins, top), counts_within(0.001))
    if with_peers:
        references += peers.onnxruntime_histogram(x, bins) + peers.torch_histogram(x, bins)
    return Case(
        f"histogram {bins} {name}",
        partial(kernels.histogram, x, bins, top / bins),
        references,
        values=x.size,
        read=x.nbytes,
    )


def _numpy_histogram(x: NDArray[Any], bins: int, top: float) -> Any:
    return np.histogram(np.abs(x, dtype=np.float32), bins, (0, top))[0]


def _observation(x: NDArray[np.float32]) -> Case:
    samples = x[: x.size // 8 * 8].reshape(8, -1)

    def run(num_threads: int) -> Any:
        counts = np.zeros(4096, np.uint64)
        seen = kernels.observe(samples, counts, -9, num_threads=num_threads)
        return [*counts.tolist(), seen.minimum, seen.maximum]

    def reference() -> Any:
        counts = _numpy_histogram(samples, 4096, 8.0)
        return [*counts.tolist(), samples.min(), samples.max()]

    def alone() -> Any:
        return kernels.histogram(samples, 4096, 2.0**-9, num_threads=1)

    def same_counts(observed: Any, counts: Any) -> bool:
        return exactly(observed[:4096], counts)

    return Case(
        "observe (histogram 4096, extremes, zeros)",
        run,
        [*numpy(reference), Reference("histogram alone", alone, same_counts)],
        values=samples.size,
        read=samples.nbytes,
    )


def _thresholds(gaussian: NDArray[np.float32]) -> Iterator[Case]:
    for bins in (2048, 8192):
        width = kernels.abs_max(gaussian) / bins
        counts = kernels.histogram(gaussian, bins, width)
        # In 8192 bins, a search by the peers takes from seconds to minutes.
        searched = bins == 2048
        half = int((bins - 1) * 0.5)
        yield Case(
            f"kl_threshold {bins} from one half, as Paddle",
            partial(kernels.kl_threshold, counts, width, start=half),
            peers.paddle_kl(counts, width) if searched else [],
        )
        yield Case(
            f"kl_threshold {bins}",
            partial(kernels.kl_threshold, counts, width),
            peers.onnxruntime_entropy(counts, width) if searched else [],
        )
        yield Case(
            f"mse_threshold {bins}",
            partial(kernels.mse_threshold, counts, width),
            [
                *numpy(partial(_numpy_mse, counts, width), within(1e-9)),
                *(peers.torch_mse(gaussian, bins) if searched else []),
            ],
        )
        yield Case(
            f"percentile_threshold {bins}",
            partial(kernels.percentile_threshold, counts, width, 0.999),
            [
                *numpy(partial(_numpy_percentile, counts, width, 0.999), within(1e-9)),
                *peers.onnxruntime_percentile(counts, width, 0.999),
            ],
        )


def _numpy_mse(counts: NDArray[np.uint64], width: float) -> float:
    values = np.arange(len(counts)) + 0.5

    def error(threshold: int) -> float:
        step = threshold / 127
        quantized = np.minimum(np.rint(values / step), 127) * step
        return float((counts * (values - quantized) ** 2).sum())

    return min(range(1, len(counts) + 1), key=error) * width


def _numpy_percentile(counts: NDArray[np.uint64], width: float, percent: float) -> float:
    share = np.cumsum(counts) / counts.sum()
    return float((np.argmax(share >= percent) + 1) * width)


def _quantizing(x: NDArray[np.float32]) -> Iterator[Case]:
    for shape, axis in (((1024, -1), 0), ((-1, 4096), 1), ((64, -1, 3, 3), 1)):
        known = -int(np.prod(shape))
        weight = x[: x.size // known * known].reshape(shape)
        yield from _quantize_and_back(weight, axis)


def _quantize_and_back(weight: NDArray[np.float32], axis: int) -> Iterator[Case]:
    """Yield quantizing and dequantizing into reused memory, and dequantizing into new memory."""
    thresholds = kernels.channel_abs_max(weight, axis)
    integers = kernels.quantize(weight, thresholds, axis)
    values = np.empty_like(weight)
    aligned = np.expand_dims(thresholds, [i for i in range(weight.ndim) if i != axis])
    dims = ", ".join(map(str, weight.shape))

    def numpy_quantize() -> Any:
        scale = np.float32(127) * (np.float32(1) / aligned)
        return np.clip(np.rint(weight * scale), -128, 127).astype(np.int8)

    def numpy_dequantize() -> Any:
        return integers * aligned / np.float32(127)

    yield Case(
        f"quantize fp32 -> int8, axis {axis} of [{dims}]",
        partial(kernels.quantize, weight, thresholds, axis, out=np.empty_like(integers)),
        numpy(numpy_quantize),
        values=weight.size,
        read=weight.nbytes,
        written=integers.nbytes,
    )
    dequantize = partial(kernels.dequantize, integers, thresholds, axis)
    for name, run in (
        ("dequantize int8 -> fp32", partial(dequantize, out=values)),
        ("the same into new memory", dequantize),
    ):
        yield Case(
            f"{name}, axis {axis} of [{dims}]",
            run,
            numpy(numpy_dequantize),
            values=weight.size,
            read=integers.nbytes,
            written=weight.nbytes,
        )


def _small() -> Iterator[Case]:
    """Yield calls on 1,000 values, which show the cost of a call itself."""
    x = np.random.default_rng(3).standard_normal((10, 100)).astype(np.float32)
    ones = np.ones(10, np.float32)
    for name, run, reference in (
        ("abs_max", partial(kernels.abs_max, x), partial(_numpy_abs_max, x)),
        (
            "channel_abs_max",
            partial(kernels.channel_abs_max, x, 0),
            partial(_numpy_abs_max, x, (1,)),
        ),
        (
            "histogram 2048",
            partial(kernels.histogram, x, 2048, 2.0**-8),
            partial(_numpy_histogram, x, 2048, 8.0),
        ),
        (
            "quantize",
            partial(kernels.quantize, x, ones, 0),
            lambda: np.clip(np.rint(x * np.float32(127)), -128, 127).astype(np.int8),
        ),
    ):
        yield Case(f"{name} of 1,000 values", run, numpy(reference), values=x.size)


def _large_weights(weights: list[NDArray[np.uint16]]) -> Iterator[Case]:
    rows, columns = weights[0].shape
    nbytes = sum(weight.nbytes for weight in weights)
    name = f"bf16 [{rows}, {columns}]" + (
        f" x {len(weights)}, {gibibytes(nbytes)}" if len(weights) > 1 else ""
    )
    out = np.zeros(weights[0].shape, np.int8)

    def maxima(num_threads: int) -> Any:
        for weight in weights:
            found = kernels.channel_abs_max(weight, 1, dtype="bfloat16", num_threads=num_threads)
        return found

    def quantized(num_threads: int) -> Any:
        for weight in weights:
            threshold = kernels.channel_abs_max(
                weight, 1, dtype="bfloat16", num_threads=num_threads
            )
            kernels.quantize(
                weight, threshold, 1, dtype="bfloat16", num_threads=num_threads, out=out
            )
        return out

    def numpy_maxima() -> Any:
        for weight in weights:
            found = np.abs(widened(weight)).max(axis=0)
        return found

    def numpy_quantized() -> Any:
        for weight in weights:
            values = widened(weight)
            scale = np.float32(127) * (np.float32(1) / np.abs(values).max(axis=0))
            result = np.clip(np.rint(values * scale), -128, 127).astype(np.int8)
        return result

    values = nbytes // 2
    yield Case(f"channel_abs_max {name}", maxima, numpy(numpy_maxima), values, read=nbytes)
    yield Case(
        f"that and quantize to int8, {name}",
        quantized,
        numpy(numpy_quantized),
        values,
        read=2 * nbytes,
        written=values,
    )


def _large_histogram(batches: list[NDArray[np.float32]]) -> Case:
    size = sum(batch.size for batch in batches)

    def run(num_threads: int) -> Any:
        counts = np.zeros(2048, np.uint64)
        for batch in batches:
            counts += kernels.histogram(batch, 2048, 2.0**-8, num_threads=num_threads)
        return counts

    def reference() -> Any:
        counts = np.zeros(2048, np.uint64)
        for batch in batches:
            counts += _numpy_histogram(batch, 2048, 8.0).astype(np.uint64)
        return counts

    return Case(
        f"histogram 2048 of {gibibytes(4 * size)} in {len(batches)} batches",
        run,
        numpy(reference),
        values=size,
        read=4 * size,
    )
