from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FRACTION_BITS: int

def isa() -> str: ...
def available_isas() -> list[str]: ...
def set_isa(name: str) -> None: ...
def view_memory(
    owner: Any, address: int, dtype: np.dtype[Any], shape: Sequence[int], strides: Sequence[int]
) -> NDArray[Any]: ...
def join_openmp(path: str) -> bool: ...
def abs_max(x: NDArray[Any], num_threads: int | None) -> float: ...
def min_max(x: NDArray[Any], num_threads: int | None) -> tuple[float, float]: ...
def channel_abs_max(x: NDArray[Any], axis: int, num_threads: int | None) -> NDArray[np.float32]: ...
def channel_pair_max(
    x: NDArray[Any], axis: int, pairs_along: int, num_threads: int | None
) -> NDArray[np.float32]: ...
def sample_maxima(
    x: NDArray[Any], num_threads: int | None
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None, NDArray[np.float32] | None]: ...
def sample_rows(
    x: NDArray[Any], positions: Sequence[int], num_threads: int | None
) -> tuple[NDArray[np.float32], NDArray[np.uint64]]: ...
def add_exactly(
    sums: NDArray[np.float64], whole: NDArray[np.int64], fraction: NDArray[np.int64]
) -> None: ...
def channel_sums(x: NDArray[Any], axis: int, num_threads: int | None) -> NDArray[np.float64]: ...
def histogram(
    x: NDArray[Any], bins: int, bin_width: float, num_threads: int | None
) -> NDArray[np.uint64]: ...
def observe(
    x: NDArray[Any], counts: NDArray[np.uint64], width_exponent: int, num_threads: int | None
) -> tuple[
    float,
    float,
    int,
    int,
    NDArray[np.float32],
    bool,
    NDArray[np.float64] | None,
    NDArray[np.float32] | None,
]: ...
def kl_threshold(
    counts: NDArray[np.uint64], bin_width: float, bits: int, start: int | None
) -> float: ...
def mse_threshold(counts: NDArray[np.uint64], bin_width: float, bits: int) -> float: ...
def emd_threshold(counts: NDArray[np.uint64], bin_width: float, bits: int) -> float: ...
def percentile_threshold(counts: NDArray[np.uint64], bin_width: float, percent: float) -> float: ...
def quantize(
    x: NDArray[Any],
    thresholds: NDArray[np.float32],
    axis: int | None,
    bits: int,
    num_threads: int | None,
    out: NDArray[Any] | None,
) -> NDArray[Any]: ...
def dequantize(
    quantized: NDArray[Any],
    thresholds: NDArray[np.float32],
    axis: int | None,
    bits: int,
    num_threads: int | None,
    out: NDArray[np.float32] | None,
) -> NDArray[np.float32]: ...
def quantize_groups(
    x: NDArray[Any], bits: int, search: bool, num_threads: int | None
) -> tuple[NDArray[np.int8], NDArray[np.float32]]: ...
def add_moments(
    samples: NDArray[np.float32], moments: NDArray[np.float64], num_threads: int | None
) -> None: ...
def round_by_moments(
    weights: NDArray[np.float32],
    steps: NDArray[np.float32],
    moments: NDArray[np.float64],
    bits: int,
    sweeps: int,
    num_threads: int | None,
) -> NDArray[Any]: ...
def mean_errors(
    values: NDArray[np.float32],
    integers: NDArray[np.int8],
    steps: NDArray[np.float32],
    inputs: NDArray[np.float64],
    axis: int,
    groups: int,
    num_threads: int | None,
) -> NDArray[np.float64]: ...
def watch_mapping(address: int, size: int) -> int: ...
def is_mapping_cut(number: int) -> bool: ...
def forget_mapping(number: int) -> None: ...
