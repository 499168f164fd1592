"""Activation thresholds: each algorithm is a function of one statistic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import kernels
from .statistic import ActivationHistogram, ActivationMaxima


class Algorithm(NamedTuple):
    """A way to find a threshold."""

    statistic: type[ActivationMaxima]  # the kind that it takes
    threshold: Callable[[Any, int, float], float]  # of a statistic, the bits and ``hist_percent``


def activation_threshold(
    statistic: ActivationMaxima, algorithm: str, bits: int, hist_percent: float
) -> float:
    """Return the magnitude that maps to 2^(bits-1)-1, at most the largest one seen.

    The statistic is of the algorithm's kind, and its activation not all zero. ``hist_percent`` is
    the share of values that ``hist`` keeps within the threshold, such as 0.9999.
    """
    threshold = ALGORITHMS[algorithm].threshold(statistic, bits, hist_percent)
    return min(threshold, statistic.abs_max)


def _kl(statistic: ActivationHistogram, bits: int, _: float) -> float:
    """Search as Paddle does, from half of the used bins on; at least 2048 bins are used.

    Fewer bins resolve less: MobileNetV1 on Fashion-MNIST lost 2.1 points with 1024 to 2048 bins and
    1.1 with twice as many. If the search starts lower, the divergence is often least where nearly
    everything is clipped: PP-OCRv4 recognition then reads nothing.
    """
    used = int(np.flatnonzero(statistic.counts)[-1]) + 1
    # The search never takes the last bin's edge: an extra empty bin lets it keep the whole range.
    padded = np.append(statistic.counts[:used], np.uint64(0))
    return kernels.kl_threshold(padded, statistic.bin_width, bits, start=used // 2)


def _hist(statistic: ActivationHistogram, _: int, hist_percent: float) -> float:
    return kernels.percentile_threshold(statistic.counts, statistic.bin_width, hist_percent)


def _mse(statistic: ActivationHistogram, bits: int, _: float) -> float:
    return kernels.mse_threshold(statistic.counts, statistic.bin_width, bits)


def _emd(statistic: ActivationHistogram, bits: int, _: float) -> float:
    # Like KL, the distance alone would clip most of a heavy tail: keep at least half of the range.
    nearest = kernels.emd_threshold(statistic.counts, statistic.bin_width, bits)
    return max(nearest, statistic.abs_max / 2)


def _abs_max(statistic: ActivationMaxima, _: int, __: float) -> float:
    return statistic.abs_max


def _average(statistic: ActivationMaxima, _: int, __: float) -> float:
    return statistic.mean_abs_max


ALGORITHMS: dict[str, Algorithm] = {
    "KL": Algorithm(ActivationHistogram, _kl),
    "hist": Algorithm(ActivationHistogram, _hist),
    "mse": Algorithm(ActivationHistogram, _mse),
    "emd": Algorithm(ActivationHistogram, _emd),
    "avg": Algorithm(ActivationMaxima, _average),
    "abs_max": Algorithm(ActivationMaxima, _abs_max),
}

AUTO = "auto"
"""Chooses among several algorithms for each activation, by the cost in the outputs."""


def statistic_of(algorithm: str) -> type[ActivationMaxima]:
    """Return the kind of statistic that an algorithm takes; for `AUTO`, one that suits all."""
    return ActivationHistogram if algorithm == AUTO else ALGORITHMS[algorithm].statistic
