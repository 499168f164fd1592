"""Factors of channels, by which an activation is divided and the weights behind it multiplied.

The product is the same, but a few large channels no longer widen the integers' step for all others
(SmoothQuant, arXiv 2211.10438; cross-layer equalization, arXiv 1906.04721). Only channels beyond a
quantile of all are scaled, and which quantile is judged by the error in the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..program.parameters import Array
from ..program.ranges import Grid
from .output_error import OutputError, Reader
from .samples import ActivationSample
from .statistic import ActivationHistogram, ActivationMaxima

# Below the median, channels would have no headroom for what calibration did not show: PP-OCRv4
# recognition read 0.55 of its lines with 0.1, and 0.89 without.
_QUANTILES = (0.98, 0.95, 0.9, 0.75, 0.5)
_LARGEST = 1e3  # of a factor, for small channels not to be lost


class Outliers(NamedTuple):
    """From which outliers on an activation is looked at by default, and divided.

    Attributes:
        least_ratio: of the largest channel to the median.
        least_cost: of rounding the activation, of the power of the outputs, added up over the ops
            that read it.
    """

    least_ratio: float
    least_cost: float


# Of ResNet50 and PP-OCRv4, nearly all activations have a ratio of 1.0 to 5.5 and cost 1e-5 to 2e-3.
# Recognition has one or two of 10 to 17 that cost 5e-3, with which divided it loses no lines.
OF_IMAGES = Outliers(5, 5e-3)

# In a MiniLM, 14 of 24 activations have ratios of 4 to 17, cost 2e-3 to 1e-2, and 4 to 26
# times less if divided, by one more pass over few values. In recognition they cost at most 4e-4.
OF_ROWS = Outliers(3.5, 2e-3)

LEAST_GAIN = 2.0
"""How much smaller the error's power has to become to be worth a pass over the activation."""


def has_outliers(sample: ActivationSample, least_ratio: float) -> bool:
    """Return whether a channel of an activation is so many times as large as the median."""
    known = sample.abs_max[sample.abs_max > 0]
    return bool(sample.abs_max.max() >= least_ratio * np.median(known))


def channel_factors(
    sample: ActivationSample,
    statistic: ActivationMaxima,
    readers: Sequence[Reader],
    grid_of: Callable[[ActivationMaxima], Grid],
    levels: int,
    rounding: float,
    least_gain: float,
    least_cost: float,
) -> Array | None:
    """Return the factors of an activation, float32[channels], None if none are worth it.

    Args:
        sample: of the activation.
        statistic: of all of it.
        readers: the ops that read it as integers.
        grid_of: the integers that a statistic leads to.
        levels: of the weights' integers.
        rounding: the share of its error that the weights' rounding leaves in the outputs.
        least_gain: how much smaller the error's power has to become.
        least_cost: what rounding the activation as it is has to cost.
    """
    cost = OutputError(sample.rows, readers)
    if least_cost > 0 and cost.of_activation(grid_of(statistic)) < least_cost:
        return None

    def error(factors: Array) -> float:
        grid = grid_of(scaled_statistic(sample, statistic, factors))
        return cost.of_activation(grid, factors) + rounding * cost.of_weights(factors, levels)

    known = sample.abs_max[sample.abs_max > 0]
    candidates = [
        np.clip(sample.abs_max / np.quantile(known, q), 1, _LARGEST).astype(np.float32)
        for q in _QUANTILES
    ]
    errors = [error(factors) for factors in candidates]
    best = int(np.argmin(errors))
    unscaled = np.ones_like(sample.abs_max)
    return candidates[best] if errors[best] * least_gain < error(unscaled) else None


def scaled_statistic(
    sample: ActivationSample, statistic: ActivationMaxima, factors: Array
) -> ActivationHistogram:
    """Return the statistic of an activation divided by factors of one and more.

    Its histogram is the sample's; its extremes are those of all values, or as near as is known.
    """
    scaled = ActivationHistogram()
    scaled.observe(np.ascontiguousarray(sample.rows / factors))
    scaled.abs_max = float((sample.abs_max / factors).max())
    _, minimum, maximum = statistic.range(statistic.abs_max)
    scaled.minimum = max(minimum, -scaled.abs_max)
    scaled.maximum = min(maximum, scaled.abs_max)
    return scaled
