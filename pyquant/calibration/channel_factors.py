"""Per-channel factors that divide an activation and multiply the weights that read it.

The product is the same, but a few large channels no longer widen the step for all others
(SmoothQuant, arXiv 2211.10438; cross-layer equalization, arXiv 1906.04721). Only channels above a
quantile of all channels are scaled. The quantile is chosen by the error in the outputs. Where each
position has a scale of its own, no channel needs a limit, and all are balanced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..program.parameters import Array
from ..program.per_token import rounded_per_token
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
# What a sample does not show of a channel's power: its largest magnitude is taken to occur in this
# share of the positions, and its power to be this share of the mean at least. Without them, a
# decoder's last products erred by 9 % for the few positions that are huge, and with them by 2 %.
_RARE, _LEAST_SHARE = 1 / 500, 0.1
# This part of a channel's power is by the values as they are, for which huge positions count most:
# later layers take the huge values away again, and leave the errors.
_BY_VALUES = 0.1
_NOTHING = 1e-30  # a power of zero counts as this, as nothing can be divided by zero


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

LEAST_TOKEN_GAIN = 1.5
"""How many times smaller the error's power must become to justify a scale for each position.

That takes two passes over the activation and one over the outputs of its readers.
"""

# In a decoder, the products of gated units cost 1e-3 to 5e-3, and a third to a tenth of that per
# token. Most other products cost less than this, and gain little.
OF_TOKENS = 2e-4
"""The cost from which an activation is quantized per token by default, for each op."""


def has_outliers(sample: ActivationSample, least_ratio: float) -> bool:
    """Return whether the largest channel is at least ``least_ratio`` times the median channel."""
    known = sample.abs_max[sample.abs_max > 0]
    return bool(sample.abs_max.max() >= least_ratio * np.median(known))


class Choice(NamedTuple):
    """Factors of an activation, float32[channels], or None, and the error that is left.

    The error is that of the outputs of the ops that read it; see `OutputCost`.
    """

    factors: Array | None
    error: float


class FactorSearch:
    """Looks for factors of one activation by the error that they leave."""

    def __init__(
        self,
        sample: ActivationSample,
        statistic: ActivationMaxima,
        readers: Sequence[Reader],
        grid_of: Callable[[ActivationMaxima], Grid],
        levels: int,
    ) -> None:
        """Take what is known of the activation: the statistic covers all values.

        ``levels`` is the largest integer of a weight.
        """
        self._sample, self._statistic, self._grid_of = sample, statistic, grid_of
        self._levels = levels
        # A norm behind products makes positions alike, and in a decoder, a few positions have
        # nearly all of the power.
        alike = all(reader.is_product for reader in readers)
        self._cost = OutputCost(sample.rows, readers, alike)
        self._ones = np.ones_like(sample.abs_max)

    @cached_property
    def undivided(self) -> Choice:
        """No factors, if all positions share a scale."""
        return Choice(None, self.cost + self._cost.of_weights(self._ones, self._levels))

    @cached_property
    def cost(self) -> float:
        """What rounding the undivided activation costs."""
        return self._cost.of_activation(self._grid_of(self._statistic))

    def with_one_scale(self, least_gain: float) -> Choice:
        """Return the best factors if all positions share a scale.

        They make the error's power more than ``least_gain`` times smaller.
        """
        candidates = _limits(self._sample.abs_max)
        choices = [Choice(one, self._with_one_scale(one)) for one in candidates]
        undivided = self._with_one_scale(self._ones)  # a sample shows it, as it does the others
        best = _best(choices, Choice(None, undivided), least_gain)
        return self.undivided if best.factors is None else best

    def per_token(
        self, grid: Grid, candidates: Iterable[Array | None], least_gain: float
    ) -> Choice:
        """Return the best of some factors if each position has a scale of its own.

        ``grid`` is that of a position's quotients by its largest magnitude. Otherwise as
        `with_one_scale`.
        """
        choices = [Choice(one, self._per_token(one, grid)) for one in candidates if one is not None]
        return _best(choices, Choice(None, self._per_token(self._ones, grid)), least_gain)

    def _with_one_scale(self, factors: Array) -> float:
        grid = self._grid_of(scaled_statistic(self._sample, self._statistic, factors))
        by_weights = self._cost.of_weights(factors, self._levels)
        return self._cost.of_activation(grid, factors) + by_weights

    def _per_token(self, factors: Array, grid: Grid) -> float:
        divided = self._sample.rows / factors
        errors = (rounded_per_token(grid, divided) - divided) * factors
        return self._cost.of_errors(errors) + self._cost.of_weights(factors, self._levels)

    @property
    def balanced(self) -> Array:
        """The factors with which each channel errs as much by its activation as by its weights.

        The errors of an activation are multiplied by the factor and the weights, those of the
        weights by the activation over the factor. Their sum is least where both are the same.
        """
        powers = self._powers / np.maximum(self._cost.weight_power, _NOTHING)
        factors = np.sqrt(np.sqrt(np.maximum(powers, _NOTHING)))
        factors = np.clip(factors / np.median(factors), 1 / _LARGEST, _LARGEST)
        balanced: Array = (factors / factors.min()).astype(np.float32)
        return balanced

    @property
    def _powers(self) -> Array:
        """The power of each channel where positions count nearly alike: float64[channels]."""
        rows = np.square(self._sample.rows, dtype=np.float64)
        largest = np.square(self._sample.abs_max, dtype=np.float64)
        usual = max(float(np.median(rows.mean(axis=1))), _NOTHING)
        rare = _RARE * np.minimum(largest / usual, len(largest))
        alike = _of_mean(np.maximum(self._cost.power, rare)) + _LEAST_SHARE
        positions = max(1, self._statistic.values // len(largest))
        by_values = _of_mean(np.maximum(rows.mean(axis=0), largest / positions))
        return alike + _BY_VALUES * by_values


def _of_mean(powers: Array) -> Array:
    """Return powers as multiples of their mean."""
    multiples: Array = powers / max(float(powers.mean()), _NOTHING)
    return multiples


def _best(choices: Sequence[Choice], before: Choice, least_gain: float) -> Choice:
    best = min(choices, key=lambda choice: choice.error, default=before)
    return best if best.error * least_gain < before.error else before


def _limits(abs_max: Array) -> list[Array]:
    """Return factors that limit the channels to several quantiles of their magnitudes."""
    known = abs_max[abs_max > 0]
    return [
        np.clip(abs_max / np.quantile(known, q), 1, _LARGEST).astype(np.float32) for q in _QUANTILES
    ]


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
