"""Per-channel factors that divide an activation and multiply the weights that read it.

The product is the same, but a few large channels no longer widen the step for all others
(SmoothQuant, arXiv 2211.10438; cross-layer equalization, arXiv 1906.04721). Only channels above a
quantile of all channels are scaled. The quantile is chosen by the error in the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..program.parameters import Array
from ..program.ranges import Grid
from .output_error import OutputCost, Reader
from .samples import ActivationSample
from .statistic import ActivationHistogram, ActivationMaxima

# A quantile below the median leaves channels no headroom for values beyond the calibration data:
# PP-OCRv4 recognition read 0.55 of its lines with 0.1 in this list, and 0.89 without.
_QUANTILES = (0.98, 0.95, 0.9, 0.75, 0.5)
# The growth of the largest values is measured from a part of the positions to this many times more.
_LEAST_GROWTH = 4
_MOST_INDEX = 0.45  # the variance of values with an index of 0.5 is infinite
_MOST_ROOM = 2.0  # from few positions, the index is not known well
_SIGNED_LEVELS = 127
_ROOM_STEPS = 64
_LARGEST = 1e3  # the largest factor: beyond it, small channels would be lost


class Outliers(NamedTuple):
    """Limits that an activation must reach to be divided by default."""

    least_ratio: float  # of the largest channel to the median channel
    # The error from rounding the activation as a share of the outputs' power, summed over the ops.
    least_cost: float


# In ResNet50 and PP-OCRv4, nearly all activations have ratios of 1.0 to 5.5 and cost 1e-5 to 2e-3.
# Recognition has one or two at 10 to 17 that cost 5e-3; it loses no lines once they are divided.
OF_FEATURE_MAPS = Outliers(5, 5e-3)

# In a MiniLM, 14 of 24 activations have ratios of 4 to 17 and cost 2e-3 to 1e-2. One more pass over
# few values makes that 4 to 26 times less. In recognition they cost at most 4e-4.
OF_ROWS = Outliers(3.5, 2e-3)

LEAST_GAIN = 2.0
"""How many times smaller the error's power must become to justify a pass over the activation."""


def has_outliers(sample: ActivationSample, least_ratio: float) -> bool:
    """Return whether the largest channel is at least ``least_ratio`` times the median channel."""
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
    """Return the factors of an activation, float32[channels], or None if none are worth it.

    They are worth it if rounding the undivided activation costs at least ``least_cost``, and if
    they make the error's power more than ``least_gain`` times smaller. The statistic covers all
    values. ``levels`` is the largest integer of a weight. ``rounding`` is the share of the weights'
    rounding error, in power, that remains.
    """
    cost = OutputCost(sample.rows, readers)
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
    """Return the statistic of an activation divided by factors of at least one.

    Its histogram covers the sample. Its extremes cover all values, as closely as they are known.
    Both are stretched to leave room for new values.
    """
    scaled, room = ActivationHistogram(), headroom(sample, statistic, factors)
    scaled.observe(np.ascontiguousarray(sample.rows / factors * np.float32(room)))
    scaled.abs_max = float((sample.abs_max / factors).max()) * room
    _, minimum, maximum = statistic.range(statistic.abs_max)
    scaled.minimum = max(minimum * room, -scaled.abs_max)
    scaled.maximum = min(maximum * room, scaled.abs_max)
    return scaled


def headroom(sample: ActivationSample, statistic: ActivationMaxima, factors: Array) -> float:
    """Return how many times as large a range should be as the divided values that were seen.

    A channel that is divided has a range of its own, which new values exceed the more often, the
    fewer positions were seen. With n positions, the share of values beyond h times the largest is
    about h^(-1/g) / n. The extreme value index g says how the largest value grows with n (de Haan
    and Ferreira, Extreme Value Theory, 2006): it is 0.1 for what norms write in a decoder, and 0.3
    for its gated units. The h for which clipping and rounding to steps of h / L err least has
    h^(1/g) = 12 L^2 g / ((1 - g) n), if all channels are divided.
    """
    divided = float((factors > 1).mean())
    positions = statistic.values // max(1, sample.abs_max.size)
    few = sample.rows[: positions // _LEAST_GROWTH]
    if not divided or not len(few):
        return 1.0
    largest = np.abs(few).max(axis=0)
    seen = largest > 0
    growth = np.log((sample.abs_max[seen] / largest[seen]).astype(np.float64))
    index = float(growth.mean()) / math.log(positions / len(few)) if seen.any() else 0.0
    index = min(index, _MOST_INDEX)
    ratio = 12 * _SIGNED_LEVELS**2 * index / (1 - index) * divided / positions
    # Rounded, since logarithms are not the same to the last bit on all processors.
    room = round(_ROOM_STEPS * math.pow(ratio, index)) / _ROOM_STEPS
    return min(max(room, 1.0), _MOST_ROOM)
