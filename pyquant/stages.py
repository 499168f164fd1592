"""The stages of static mode between reading a model and writing the int8 one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from .accuracy import Control, Metric, control, rank
from .calibrate import calibrate_model, checkpoint_at, engine_of
from .calibration.moments import Moments, moments_of, rounded_weights
from .calibration.run import collect_statistics, run_here
from .calibration.source import CalibrationData
from .calibration.state import Calibration, model_fingerprint
from .calibration.statistic import ActivationHistogram, Statistics
from .calibration.thresholds import ALGORITHMS, activation_threshold
from .errors import ActivationError, SettingError
from .plan import Plan, Writer
from .program.model import Model, copy_model
from .program.quantizable import FloatOp, WeightedOp
from .program.ranges import Range
from .program.weights import QuantizedWeight, quantize_weights

SOURCES = ("batch_generator", "sample_generator", "data_loader")
"""The arguments of which one gives the calibration data."""

# Weights of ops that run in float: 8 bits would cost accuracy there, and save no time.
_BITS_OF_FLOAT_OPS = 16

Arguments = Mapping[str, Any]
"""The arguments of a call of `quant_post_static`, by name."""


@dataclass(frozen=True)
class Seen:
    """What the calibration data show.

    Attributes:
        statistics: of each activation that becomes int8.
        moments: of what each op reads, if rounding or ranking asks for them.
    """

    statistics: Statistics
    moments: Moments


def calibration_data(arguments: Arguments) -> CalibrationData:
    """Return the data that a call's arguments mean."""
    sources = {name: arguments[name] for name in SOURCES}
    return CalibrationData(sources, arguments["batch_size"], arguments["batch_nums"])


def observe(model: Model, plan: Plan, arguments: Arguments) -> Seen:
    """Run the data, or take a calibration, and return what they show.

    Raises:
        ActivationError: an activation was never computed.
    """
    observed = plan.observed(model)
    moments: Moments = {}
    if arguments["round_type"] == "adaround" or arguments["eval_function"] is not None:
        moments = moments_of(model, plan.ops)
        observed = {name: name for name in observed}  # one of the same values has another shape
    tensors = list(observed.values())
    statistics: Statistics
    if arguments["calibration"] is not None:
        calibration = _given(model, tensors, arguments["calibration"])
        batches, statistics = calibration.batches, calibration.statistics
    else:
        batches, statistics = _collected(model, plan, tensors, moments, arguments)
    for name, statistic in statistics.items():
        if not statistic.values:
            raise ActivationError(
                f"activation '{name}': it was never computed over {batches} batch(es). "
                "Give data that reaches it, or name it in skip_tensor_list."
            )
    return Seen({name: statistics[other] for name, other in observed.items()}, moments)


def without_dead(
    ops: Sequence[WeightedOp], statistics: Statistics
) -> tuple[list[WeightedOp], list[FloatOp]]:
    """Part the ops from those whose activation was always zero."""
    dead = [op for op in ops if statistics[op.activation].abs_max == 0]
    kept = [
        FloatOp(op.op_type, op.output, f"activation '{op.activation}' was zero in all of the data")
        for op in dead
    ]
    return [op for op in ops if op not in dead], kept


class Stages:
    """From what the data show to an int8 program."""

    def __init__(self, model: Model, plan: Plan, seen: Seen, arguments: Arguments) -> None:
        """Take what all stages need; ``arguments`` are those of `quant_post_static`."""
        self._model = model
        self._plan = plan
        self._seen = seen
        self._arguments = arguments
        self._thresholds: dict[tuple[str, int], float] = {}

    def find_thresholds(self, ops: Sequence[WeightedOp]) -> None:
        """Find the thresholds of the activations of ``ops``, for the stages to come.

        Raises:
            SettingError: thresholds are given for what is none of them.
        """
        writer = self._plan.writer(self._model, ops)
        shared = self._arguments["same_scale_tensor_list"] or ()
        _check_quantized("same_scale_tensor_list", chain(*shared), writer.observed)
        _check_quantized("scale_dict", self._arguments["scale_dict"] or (), writer.observed)
        self._ranges(writer)

    def weights(self, ops: Sequence[WeightedOp]) -> dict[str, QuantizedWeight]:
        """Describe the weights of ``ops``, and of those that run in float, as integers."""
        per_channel = self._arguments["weight_quantize_type"] != "abs_max"
        float_ops, bits = self._plan.weight_only, self._arguments["weight_bits"]
        weights = {
            **quantize_weights(self._model, float_ops, _BITS_OF_FLOAT_OPS, per_channel),
            **quantize_weights(self._model, ops, bits, per_channel),
        }
        rounded = {}
        if self._arguments["round_type"] == "adaround":
            rounded = rounded_weights(self._seen.moments, weights)
        if self._arguments["bias_correction"]:
            rounded = {op.weight: weights[op.weight].with_means_kept() for op in ops}
        for name, integers in rounded.items():
            weights[name] = replace(weights[name], rounded=integers)
        return weights

    def control(
        self,
        source: Model,
        ops: Sequence[WeightedOp],
        weights: Mapping[str, QuantizedWeight],
        metric: Metric,
        max_drop: float,
    ) -> Control:
        """Find the ops to keep in float; see `pyquant.accuracy.control`."""
        ranges, bits = self._ranges(self._plan.writer(self._model, ops))
        seen = self._seen
        ranked = rank(ops, seen.moments, weights, ranges, bits, seen.statistics)
        return control(source, lambda ops: self.write(ops, weights)[0], ranked, metric, max_drop)

    def write(
        self, ops: Sequence[WeightedOp], weights: Mapping[str, QuantizedWeight]
    ) -> tuple[Model, dict[str, Range]]:
        """Return the program in which ``ops`` are int8, and the ranges of their activations."""
        written = copy_model(self._model)
        writer = self._plan.writer(written, ops)
        ranges, _ = self._ranges(writer)
        writer.write(ranges, weights, self._plan.weight_only)
        return written, ranges

    def _ranges(self, writer: Writer) -> tuple[dict[str, Range], dict[str, int]]:
        """Return the ranges of what ``writer`` asks for, and of how many bits they are."""
        arguments = self._arguments
        ranges, bits = {}, {}
        for name in writer.observed:
            statistic = self._seen.statistics[name]
            bits[name] = writer.bits(name, statistic.range(statistic.abs_max))
            threshold = self._threshold(name, bits[name])
            ranges[name] = statistic.range(threshold)
        for group in arguments["same_scale_tensor_list"] or ():
            together = [name for name in group if name in ranges]
            shared = max((ranges[name].threshold for name in together), default=0.0)
            ranges.update({name: ranges[name].up_to(shared) for name in together})
        for name, threshold in (arguments["scale_dict"] or {}).items():
            if name in ranges:
                ranges[name] = ranges[name].up_to(float(threshold))
        return ranges, bits

    def _threshold(self, name: str, bits: int) -> float:
        key = name, bits
        if key not in self._thresholds:
            algo, percent = self._arguments["algo"], self._arguments["hist_percent"]
            statistic = self._seen.statistics[name]
            self._thresholds[key] = activation_threshold(statistic, algo, bits, percent)
        return self._thresholds[key]


def _given(model: Model, tensors: list[str], given: Calibration | Any) -> Calibration:
    """Return a calibration, or that of a file, once it is found to be the model's."""
    calibration = given if isinstance(given, Calibration) else Calibration.load(given)
    where = "calibration" if given is calibration else str(given)
    calibration.check_same(model_fingerprint(model), tensors, where)
    return calibration


def _collected(
    model: Model, plan: Plan, tensors: list[str], moments: Moments, arguments: Arguments
) -> tuple[int, Statistics]:
    """Return the number of batches and the statistics of the data, and fill ``moments``."""
    engine, data = engine_of(arguments["engine"]), calibration_data(arguments)
    kept = checkpoint_at(arguments["checkpoint"], arguments["checkpoint_every"])
    if kept is not None:
        calibration = calibrate_model(model, tensors, data, engine, kept)
        return calibration.batches, calibration.statistics
    kind = ALGORITHMS[arguments["algo"]].statistic
    if plan.target.takes_zero_points:
        kind = ActivationHistogram
    statistics = {name: kind() for name in tensors}
    feeds, total = data.feeds(model), data.batches()
    if moments:
        engine = partial(run_here, moments=moments)
    return collect_statistics(model, statistics, feeds, engine, total), statistics


def _check_quantized(argument: str, names: Iterable[str], observed: Collection[str]) -> None:
    for name in names:
        if name not in observed:
            raise SettingError(
                f"{argument}: '{name}' is no activation that becomes int8. Those are: "
                f"{', '.join(observed)}."
            )
