"""The ranges of activations that become integers, by the data and the user's settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain

from ..calibration.output_error import OutputCost, forget_weights, readers_of
from ..calibration.statistic import ActivationMaxima
from ..calibration.thresholds import AUTO, activation_threshold
from ..errors import SettingError
from ..program.model import Model
from ..program.parameters import Array
from ..program.quantizable import WeightedOp
from ..program.ranges import Range, unit_range
from ..program.targets.int8_plan import Int8Plan
from .observation import Observations
from .options import Options

# `AUTO` takes one of these.
_CANDIDATES = ("mse", "KL", "hist", "abs_max")


class ActivationRanges:
    """Finds the range of each activation, once."""

    def __init__(
        self,
        model: Model,
        ops: Sequence[WeightedOp],
        observations: Observations,
        options: Options,
        weight_factors: Mapping[str, Array] | None = None,
        per_token: Collection[str] = (),
    ) -> None:
        """Take what ranges depend on. The factors multiply weights if activations are divided."""
        self._model = model
        self._ops = ops
        self._observations = observations
        self._options = options
        self._weight_factors = weight_factors
        self._per_token = per_token
        self._thresholds: dict[tuple[str, int], float] = {}

    def find(self, plan: Int8Plan) -> dict[str, Range]:
        """Return the ranges of what ``plan`` observes."""
        ranges = {}
        for name in plan.observed:
            statistic = self._observations.statistics[name]
            if name in self._per_token:
                ranges[name] = unit_range(statistic.range(1.0))
                continue
            bits = plan.bits(name, statistic.range(statistic.abs_max))
            ranges[name] = statistic.range(self._threshold(name, bits, plan))
        for group in self._options.same_scale_tensor_list or ():
            together = {name: ranges[name] for name in group if name in ranges}
            if together:
                ranges.update(dict.fromkeys(together, _joined(together.values())))
        for name, threshold in (self._options.scale_dict or {}).items():
            if name in ranges:
                ranges[name] = ranges[name].filled(float(threshold))
        return ranges

    def searched(self, statistic: ActivationMaxima, bits: int) -> float:
        """Return the threshold of a statistic by itself; with `AUTO`, that of ``mse``."""
        algo, percent = self._options.algo, self._options.hist_percent
        return activation_threshold(statistic, "mse" if algo == AUTO else algo, bits, percent)

    def _threshold(self, name: str, bits: int, plan: Int8Plan) -> float:
        key = name, bits
        if key not in self._thresholds:
            statistic = self._observations.statistics[name]
            if self._options.algo == AUTO and name in self._observations.samples:
                self._thresholds[key] = self._best_threshold(name, bits, plan)
            else:
                self._thresholds[key] = self.searched(statistic, bits)
        return self._thresholds[key]

    def _best_threshold(self, name: str, bits: int, plan: Int8Plan) -> float:
        """Return the threshold, by one of several algorithms, that costs the outputs least."""
        statistic, sample = self._observations.statistics[name], self._observations.samples[name]
        percent = self._options.hist_percent
        ops = [op for op in self._ops if op.activation == name]
        readers = readers_of(self._model, ops, self._weight_factors)
        cost = OutputCost(sample.rows, readers)
        found = {activation_threshold(statistic, algo, bits, percent): algo for algo in _CANDIDATES}
        best = min(
            found,
            key=lambda threshold: cost.of_activation(plan.grid(name, statistic.range(threshold))),
        )
        forget_weights(self._model, ops)
        return best


def check_given(options: Options, observed: Collection[str]) -> None:
    """Raise SettingError if a threshold is given for a tensor that is not among ``observed``."""
    shared = options.same_scale_tensor_list or ()
    _check_quantized("same_scale_tensor_list", chain(*shared), observed)
    _check_quantized("scale_dict", options.scale_dict or (), observed)


def _joined(ranges: Collection[Range]) -> Range:
    """Return a range that covers several."""
    thresholds, minima, maxima = zip(*ranges)
    return Range(max(thresholds), min(minima), max(maxima))


def _check_quantized(argument: str, names: Iterable[str], observed: Collection[str]) -> None:
    for name in names:
        if name not in observed:
            raise SettingError(
                f"{argument}: '{name}' is no activation that becomes int8. Those are: "
                f"{', '.join(observed)}."
            )
