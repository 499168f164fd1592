"""Activation thresholds: each algorithm is a function of one statistic."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from .statistic import ActivationStatistic

Algorithm = Callable[[ActivationStatistic, int, float], float]


def activation_threshold(
    statistic: ActivationStatistic, algorithm: str, bits: int, hist_percent: float
) -> float:
    """Return the magnitude to be mapped to 2^(bits-1)-1, at most the largest one seen.

    Args:
        statistic: of an activation that is not all zero.
        algorithm: a name of `ALGORITHMS`.
        bits: of the quantized activation.
        hist_percent: the share of values that ``hist`` keeps within the threshold, as 0.9999.
    """
    threshold = ALGORITHMS[algorithm](statistic, bits, hist_percent)
    return min(threshold, statistic.abs_max)


def _counts(statistic: ActivationStatistic) -> NDArray[np.uint64]:
    # The search never takes the last bin's edge itself: one empty bin lets it keep the whole range.
    return np.append(statistic.counts, np.uint64(0))


def _kl(statistic: ActivationStatistic, bits: int, _: float) -> float:
    return kernels.kl_threshold(_counts(statistic), statistic.bin_width, bits)


def _hist(statistic: ActivationStatistic, _: int, hist_percent: float) -> float:
    return kernels.percentile_threshold(statistic.counts, statistic.bin_width, hist_percent)


def _mse(statistic: ActivationStatistic, bits: int, _: float) -> float:
    return kernels.mse_threshold(statistic.counts, statistic.bin_width, bits)


def _emd(statistic: ActivationStatistic, bits: int, _: float) -> float:
    return kernels.emd_threshold(statistic.counts, statistic.bin_width, bits)


def _abs_max(statistic: ActivationStatistic, _: int, __: float) -> float:
    return statistic.abs_max


def _average(statistic: ActivationStatistic, _: int, __: float) -> float:
    # fsum rounds once, so that the order of the samples does not matter.
    maxima = np.concatenate(statistic.sample_abs_max)
    return math.fsum(maxima.tolist()) / maxima.size


ALGORITHMS: dict[str, Algorithm] = {
    "KL": _kl,
    "hist": _hist,
    "mse": _mse,
    "emd": _emd,
    "avg": _average,
    "abs_max": _abs_max,
}
