"""Other tools that compute the same. Each is optional: if it is absent, a line says so.

A `Reference` has a rule by which the two results must agree; its note says how they differ by
design.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Agreement = Callable[[Any, Any], bool]


@dataclass(frozen=True)
class Reference:
    """Something that computes the same as a kernel.

    Attributes:
        name: its name.
        run: computes the result.
        agree: whether the kernel's result and this one agree.
        note: the known difference, if there is one.
    """

    name: str
    run: Callable[[], Any]
    agree: Agreement
    note: str = ""


def exactly(a: Any, b: Any) -> bool:
    """Return whether two results are the same."""
    return bool(np.array_equal(a, b))


def each_exactly(a: Any, b: Any) -> bool:
    """Return whether each of several results is the same."""
    return all(map(exactly, a, b))


def nearly(a: Any, b: Any) -> bool:
    """Return whether sums are the same except for rounding, in part to float32."""
    return bool(np.abs(a - b).max() <= 1e-6 * np.abs(b).max())


def nearly_after_maxima(a: Any, b: Any) -> bool:
    """Return whether maxima are the same, and sums nearly the same."""
    return exactly(a[0], b[0]) and nearly(a[1], b[1])


def within(tolerance: float) -> Agreement:
    """Return a rule: two numbers agree if they differ by at most this share of the first."""
    return lambda a, b: abs(a - b) <= tolerance * abs(a)


def counts_within(share: float) -> Agreement:
    """Return a rule: histograms agree if no sum up to a bin differs by more of the total."""

    def agree(a: Any, b: Any) -> bool:
        ours, theirs = np.cumsum(a.astype(np.float64)), np.cumsum(b.astype(np.float64))
        return bool(np.abs(ours - theirs).max() <= share * ours[-1])

    return agree


def absent() -> list[str]:
    """Return the names of the peers that are not installed."""
    return [name for name in ("onnxruntime", "torch") if _imported(name) is None]


def paddle_kl(counts: NDArray[np.uint64], width: float) -> list[Reference]:
    """Paddle's KL search in a histogram."""
    from paddle.static.quantization.cal_kl_threshold import cal_kl_threshold

    logging.getLogger("paddle.static.quantization.cal_kl_threshold").setLevel(logging.CRITICAL)
    signed = counts.astype(np.int64)
    return [Reference("Paddle", lambda: cal_kl_threshold(signed, width, 8), within(1e-6))]


def onnxruntime_histogram(x: NDArray[np.float32], bins: int) -> list[Reference]:
    """ONNX Runtime's histogram of the absolute values."""
    calibrate = _imported("onnxruntime.quantization.calibrate")
    if calibrate is None:
        return []

    def run() -> Any:
        collector = calibrate.HistogramCollector("percentile", True, bins, 255, 99.9, "same")
        with contextlib.redirect_stdout(io.StringIO()):
            collector.collect({"x": x})
        return collector.get_histogram_dict()["x"][0]

    note = "starts at the least |x| instead of 0"
    return [Reference("ONNX Runtime", run, counts_within(0.01), note)]


def onnxruntime_entropy(counts: NDArray[np.uint64], width: float) -> list[Reference]:
    """ONNX Runtime's KL search."""
    calibrate = _imported("onnxruntime.quantization.calibrate")
    if calibrate is None:
        return []
    collector = calibrate.HistogramCollector("entropy", True, len(counts), 255, 99.9, "same")
    mirrored = np.concatenate([counts[::-1], counts]).astype(np.int64)
    edges = (np.arange(len(mirrored) + 1) - len(counts)) * np.float32(width)
    histogram = (mirrored, edges.astype(np.float32), edges[0], edges[-1])
    note = "searches a mirrored histogram, smoothed, with 255 levels for both signs"
    return [
        Reference(
            "ONNX Runtime",
            lambda: float(collector.get_entropy_threshold(histogram, 255)[1]),
            within(0.5),
            note,
        )
    ]


def onnxruntime_percentile(
    counts: NDArray[np.uint64], width: float, percent: float
) -> list[Reference]:
    """ONNX Runtime's percentile of a histogram."""
    calibrate = _imported("onnxruntime.quantization.calibrate")
    if calibrate is None:
        return []
    collector = calibrate.HistogramCollector(
        "percentile", True, len(counts), 255, 100 * percent, "same"
    )
    edges = (np.arange(len(counts) + 1) * width).astype(np.float32)
    collector.histogram_dict["x"] = (counts.astype(np.int64), edges, -edges[-1], edges[-1])

    def run() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            return float(collector.compute_percentile()["x"][1])

    note = "takes the lower edge of the bin"
    return [Reference("ONNX Runtime", run, lambda a, b: abs(a - b - width) < 1e-3 * width, note)]


def torch_histogram(x: NDArray[np.float32], bins: int) -> list[Reference]:
    """PyTorch's HistogramObserver over one tensor."""
    torch = _imported("torch")
    if torch is None:
        return []
    observer = _imported("torch.ao.quantization.observer")
    tensor = torch.from_numpy(x)

    def run() -> Any:
        histogram = observer.HistogramObserver(bins=bins)
        histogram(tensor)
        return histogram.histogram.numpy().astype(np.float64)

    def agree(counts: Any, histogram: Any) -> bool:
        return bool(abs(counts.sum() - histogram.sum()) <= 0.001 * counts.sum())

    note = "counts x instead of |x|, and loses some: only the totals are compared"
    return [Reference("PyTorch", run, agree, note)]


def torch_mse(x: NDArray[np.float32], bins: int) -> list[Reference]:
    """PyTorch's search for the range of least squared error."""
    torch = _imported("torch")
    if torch is None:
        return []
    observer = _imported("torch.ao.quantization.observer")
    histogram = observer.HistogramObserver(
        bins=bins, dtype=torch.qint8, qscheme=torch.per_tensor_symmetric
    )
    histogram(torch.from_numpy(x))

    def run() -> float:
        low, high = histogram._non_linear_param_search()
        return max(-float(low), float(high))

    note = "moves both ends of a signed range greedily, and estimates the error of each"
    return [Reference("PyTorch", run, within(0.35), note)]


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
