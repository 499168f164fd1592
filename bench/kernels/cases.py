"""What is measured: a line per case, with a reference that must agree before anything is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyquant import kernels

from . import peers

Function = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One kernel on one input.

    Attributes:
        name: kernel, type and shape.
        run: calls the kernel; takes ``num_threads`` if ``values`` is not 0.
        references: what computes the same, by name: numpy, or a peer.
        agree: whether the kernel's result is a reference's.
        values: how many values are processed; 0 for a search in a histogram.
        read: bytes read from memory.
        written: bytes written to memory.
    """

    name: str
    run: Callable[..., Any]
    references: dict[str, Function]
    agree: Callable[[Any, Any], bool]
    values: int = 0
    read: int = 0
    written: int = 0


def exactly(a: Any, b: Any) -> bool:
    """Return whether two results are the same."""
    return bool(np.array_equal(a, b))


def closely(a: Any, b: Any) -> bool:
    """Return whether two results differ by rounding alone."""
    return bool(np.allclose(a, b, rtol=1e-6))


def counts_agree(a: Any, b: Any) -> bool:
    """Return whether two histograms differ only by values next to a bin's edge.

    numpy rounds the edges to float32 where the data are float32; pyquant's are exact.
    """
    moved = np.abs(a.astype(np.int64) - b.astype(np.int64)).sum()
    return bool(a.sum() == b.sum() and moved <= 0.001 * a.sum())


def cases(size: int) -> Iterator[Case]:
    """Yield every case; the arrays have about ``size`` values."""
    gaussian = np.random.default_rng(0).standard_normal(size, np.float32)
    yield from _reductions(gaussian)
    yield from _channel_reductions(gaussian)
    yield from _histograms(gaussian)
    yield from _thresholds(gaussian)
    yield from _quantizing(gaussian)


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the upper halves of float32 values: bfloat16, rounded towards zero."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return raw bfloat16 as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _reductions(x: NDArray[np.float32]) -> Iterator[Case]:
    half, raw = x.astype(np.float16), bfloat16_bits(x)
    for name, array, dtype, reference in (
        ("fp32", x, None, partial(_numpy_abs_max, x)),
        ("fp16", half, None, partial(_numpy_abs_max, half)),
        ("bf16", raw, "bfloat16", lambda: _numpy_abs_max(widened(raw))),
    ):
        yield Case(
            f"abs_max {name}",
            partial(kernels.abs_max, array, dtype=dtype),
            {"numpy": reference},
            exactly,
            values=array.size,
            read=array.nbytes,
        )
    yield Case(
        "min_max fp32",
        partial(kernels.min_max, x),
        {"numpy": lambda: (x.min(), x.max())},
        exactly,
        values=x.size,
        read=x.nbytes,
    )


def _numpy_abs_max(x: NDArray[Any], axis: tuple[int, ...] | None = None) -> Any:
    return np.abs(x).max(axis=axis)


def _channel_reductions(x: NDArray[np.float32]) -> Iterator[Case]:
    side = int(x.size ** (1 / 3))
    cube = x[: side**3].reshape(side, side, side)
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        yield Case(
            f"channel_abs_max fp32 axis {axis} of 3",
            partial(kernels.channel_abs_max, cube, axis),
            {"numpy": partial(_numpy_abs_max, cube, others)},
            exactly,
            values=cube.size,
            read=cube.nbytes,
        )


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
            top = kernels.abs_max(x)
            yield Case(
                f"histogram {bins} {name}",
                partial(kernels.histogram, x, bins, top / bins),
                {"numpy": partial(_numpy_histogram, x, bins, top)},
                counts_agree,
                values=x.size,
                read=x.nbytes,
            )
    yield _observation(gaussian)


def _numpy_histogram(x: NDArray[np.float32], bins: int, top: float) -> Any:
    return np.histogram(np.abs(x), bins, (0, top))[0]


def _observation(x: NDArray[np.float32]) -> Case:
    samples = x[: x.size // 8 * 8].reshape(8, -1)

    def run(num_threads: int) -> Any:
        counts = np.zeros(4096, np.uint64)
        seen = kernels.observe(samples, counts, -9, num_threads=num_threads)
        return [*counts.tolist(), seen.minimum, seen.maximum]

    def reference() -> Any:
        counts = _numpy_histogram(samples, 4096, 8.0)
        return [*counts.tolist(), samples.min(), samples.max()]

    return Case(
        "observe (histogram 4096, extremes, zeros)",
        run,
        {"numpy": reference},
        exactly,
        values=samples.size,
        read=samples.nbytes,
    )


def _thresholds(gaussian: NDArray[np.float32]) -> Iterator[Case]:
    for bins in (2048, 8192):
        width = kernels.abs_max(gaussian) / bins
        counts = kernels.histogram(gaussian, bins, width)
        half = int((bins - 1) * 0.5)
        yield Case(
            f"kl_threshold {bins}",
            partial(kernels.kl_threshold, counts, width, start=half),
            # Paddle takes 13 s for a search in 8192 bins.
            peers.paddle_kl(counts, width) if bins == 2048 else {},
            closely,
        )
        yield Case(
            f"mse_threshold {bins}", partial(kernels.mse_threshold, counts, width), {}, closely
        )
        yield Case(
            f"percentile_threshold {bins}",
            partial(kernels.percentile_threshold, counts, width, 0.999),
            {"numpy": partial(_percentile, counts, width, 0.999)},
            closely,
        )


def _percentile(counts: NDArray[np.uint64], width: float, percent: float) -> float:
    share = np.cumsum(counts) / counts.sum()
    return float((np.argmax(share >= percent) + 1) * width)


def _quantizing(x: NDArray[np.float32]) -> Iterator[Case]:
    channels = 1024
    weight = x[: x.size // channels * channels].reshape(channels, -1)
    thresholds = np.abs(weight).max(axis=1)
    integers = kernels.quantize(weight, thresholds, 0)

    def quantized() -> Any:
        scale = np.float32(127) * (np.float32(1) / thresholds)
        return np.clip(np.rint(weight * scale[:, None]), -128, 127).astype(np.int8)

    yield Case(
        "quantize fp32 -> int8 per channel",
        partial(kernels.quantize, weight, thresholds, 0),
        {"numpy": quantized},
        exactly,
        values=weight.size,
        read=weight.nbytes,
        written=integers.nbytes,
    )
    yield Case(
        "dequantize int8 -> fp32 per channel",
        partial(kernels.dequantize, integers, thresholds, 0),
        {"numpy": lambda: integers * thresholds[:, None] / np.float32(127)},
        exactly,
        values=weight.size,
        read=integers.nbytes,
        written=weight.nbytes,
    )
