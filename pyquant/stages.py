"""The stages of static mode between reading a model and writing the int8 one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from .accuracy import Control, Metric, control, rank
from .calibrate import calibrate_model, checkpoint_at, engine_of
from .calibration.equalization import LEAST_GAIN, channel_factors, scaled_statistic
from .calibration.forward import Observer, Observers
from .calibration.moments import Moments, moments_of, rounded_weights
from .calibration.output_error import Reader, activation_error
from .calibration.run import collect_statistics, run_here
from .calibration.samples import Samples, samples_of
from .calibration.source import CalibrationData
from .calibration.state import Calibration, model_fingerprint
from .calibration.statistic import ActivationHistogram, ActivationMaxima, Statistics
from .calibration.thresholds import ALGORITHMS, activation_threshold
from .errors import ActivationError, SettingError
from .plan import Plan, Writer
from .program import proto
from .program.folding.linear import along_inputs
from .program.folding.scaling import find_neighbours, store_factors
from .program.graph import Graph
from .program.model import Model, copy_model
from .program.parameters import Array
from .program.quantizable import FloatOp, WeightedOp
from .program.ranges import Grid, Range
from .program.weights import QuantizedWeight, quantize_weights

SOURCES = ("batch_generator", "sample_generator", "data_loader")
"""The arguments of which one gives the calibration data."""

# Weights of ops that run in float: 8 bits would cost accuracy there, and save no time.
_BITS_OF_FLOAT_OPS = 16

# The share of the weights' rounding error, in power, that adaround leaves in the outputs of
# PP-OCRv4 recognition.
_LEFT_BY_ADAROUND = 0.15

AUTO = "auto"
"""The algorithm that tries several for each activation."""

_CANDIDATES = ("mse", "KL", "hist", "abs_max")

Arguments = Mapping[str, Any]
"""The arguments of a call of `quant_post_static`, by name."""


@dataclass(frozen=True)
class Seen:
    """What the calibration data show.

    Attributes:
        statistics: of each activation that becomes int8.
        moments: of what each op reads, if rounding or ranking asks for them.
        samples: of each activation, if thresholds or factors are chosen by them.
    """

    statistics: Statistics
    moments: Moments
    samples: Samples

    def divided(self, factors: Mapping[str, Array]) -> Seen:
        """Return what is seen of the activations divided by factors, one per channel."""
        statistics = dict(self.statistics)
        for name, divisors in factors.items():
            statistics[name] = scaled_statistic(self.samples[name], statistics[name], divisors)
        moments = {
            name: [one.divided(factors[name]) for one in several] if name in factors else several
            for name, several in self.moments.items()
        }
        return replace(self, statistics=statistics, moments=moments)


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
    samples: Samples = {}
    if arguments["algo"] == AUTO or arguments["equalize"]:
        samples = samples_of(model, plan.ops)
    if moments or samples:
        observed = {name: name for name in observed}  # one of the same values has another shape
    tensors = list(observed.values())
    statistics: Statistics
    if arguments["calibration"] is not None:
        calibration = _given(model, tensors, arguments["calibration"])
        batches, statistics = calibration.batches, calibration.statistics
    else:
        batches, statistics = _collected(
            model, plan, tensors, _observers(moments, samples), arguments
        )
    for name, statistic in statistics.items():
        if not statistic.values:
            raise ActivationError(
                f"activation '{name}': it was never computed over {batches} batch(es). "
                "Give data that reaches it, or name it in skip_tensor_list."
            )
    return Seen({name: statistics[other] for name, other in observed.items()}, moments, samples)


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
        self._factors: dict[str, Array] = {}
        self._taken: dict[str, Array] = {}  # those that neighbours have taken in

    def equalize(self, ops: Sequence[WeightedOp]) -> None:
        """Divide activations of ``ops`` by factors, and go on with what is seen behind them.

        The factors go into what writes an activation, where that changes nothing else, and become
        an op in front of the integers otherwise.
        """
        writer = self._plan.writer(self._model, ops)
        graph = Graph(self._model)
        for name, readers in self._equalizable(ops).items():
            others = self._seen.statistics.keys() - {name}
            neighbours = find_neighbours(graph, name, others)
            if neighbours is not None:
                found = self._channel_factors(name, readers, writer, least_gain=1.0)
            elif writer.takes_factors(name):
                found = self._channel_factors(name, readers, writer, LEAST_GAIN)
            else:
                continue
            if found is not None and neighbours is not None:
                neighbours.take(self._model, found)
                self._taken[name] = found
            elif found is not None:
                self._factors[name] = found
        self._seen = self._seen.divided({**self._taken, **self._factors})

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
            **quantize_weights(self._model, ops, bits, per_channel, self._weight_factors(ops)),
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
        writer.write(ranges, weights, self._plan.weight_only, self._factors)
        read = {op.activation for op in ops}
        divided = {name: found for name, found in self._factors.items() if name in read}
        store_factors(written, {**self._taken, **divided})
        return written, ranges

    def _ranges(self, writer: Writer) -> tuple[dict[str, Range], dict[str, int]]:
        """Return the ranges of what ``writer`` asks for, and of how many bits they are."""
        arguments = self._arguments
        ranges, bits = {}, {}
        for name in writer.observed:
            statistic = self._seen.statistics[name]
            bits[name] = writer.bits(name, statistic.range(statistic.abs_max))
            threshold = self._threshold(name, bits[name], writer)
            ranges[name] = statistic.range(threshold)
        for group in arguments["same_scale_tensor_list"] or ():
            together = [name for name in group if name in ranges]
            shared = max((ranges[name].threshold for name in together), default=0.0)
            ranges.update({name: ranges[name].up_to(shared) for name in together})
        for name, threshold in (arguments["scale_dict"] or {}).items():
            if name in ranges:
                ranges[name] = ranges[name].up_to(float(threshold))
        return ranges, bits

    def _threshold(self, name: str, bits: int, writer: Writer) -> float:
        key = name, bits
        if key not in self._thresholds:
            statistic = self._seen.statistics[name]
            if self._arguments["algo"] == AUTO and name in self._seen.samples:
                self._thresholds[key] = self._best_threshold(name, bits, writer)
            else:
                self._thresholds[key] = self._searched(statistic, bits)
        return self._thresholds[key]

    def _searched(self, statistic: ActivationMaxima, bits: int) -> float:
        algo, percent = self._arguments["algo"], self._arguments["hist_percent"]
        return activation_threshold(statistic, "mse" if algo == AUTO else algo, bits, percent)

    def _best_threshold(self, name: str, bits: int, writer: Writer) -> float:
        """Return of the thresholds of several algorithms the one that costs the outputs least."""
        statistic, sample = self._seen.statistics[name], self._seen.samples[name]
        percent = self._arguments["hist_percent"]
        readers = self._readers([op for op in self._plan.ops if op.activation == name])
        factors = self._factors.get(name, np.ones_like(sample.abs_max))
        found = {activation_threshold(statistic, algo, bits, percent): algo for algo in _CANDIDATES}
        return min(
            found,
            key=lambda threshold: activation_error(
                sample.rows, writer.grid(name, statistic.range(threshold)), readers, factors
            ),
        )

    def _channel_factors(
        self, name: str, ops: Sequence[WeightedOp], writer: Writer, least_gain: float
    ) -> Array | None:
        def grid_of(statistic: ActivationMaxima) -> Grid:
            bits = writer.bits(name, statistic.range(statistic.abs_max))
            return writer.grid(name, statistic.range(self._searched(statistic, bits)))

        return channel_factors(
            self._seen.samples[name],
            self._seen.statistics[name],
            self._readers(ops),
            grid_of,
            2 ** (self._arguments["weight_bits"] - 1) - 1,
            _LEFT_BY_ADAROUND if self._arguments["round_type"] == "adaround" else 1.0,
            least_gain,
        )

    def _equalizable(self, ops: Sequence[WeightedOp]) -> dict[str, list[WeightedOp]]:
        """Return the ops that read each activation that factors can be put on."""
        weights = Counter(name for op in self._model.ops() for name in proto.names(op.inputs))
        writes = Counter(name for op in self._model.ops() for name in proto.names(op.outputs))
        readers: dict[str, list[WeightedOp]] = {}
        for op in ops:
            readers.setdefault(op.activation, []).append(op)
        return {
            name: found
            for name, found in readers.items()
            if name in self._seen.samples
            and writes[name] <= 1
            and all(weights[op.weight] == 1 for op in found)
        }

    def _readers(self, ops: Sequence[WeightedOp]) -> list[Reader]:
        return [Reader(op, self._desc(op), self._float_weight(op.weight)) for op in ops]

    def _weight_factors(self, ops: Sequence[WeightedOp]) -> dict[str, Array]:
        """Return what weights are multiplied by, as their activations are divided by factors."""
        shapes = {op: self._model.parameters[op.weight].shape for op in ops}
        return {
            op.weight: along_inputs(self._desc(op), shapes[op], self._factors[op.activation])
            for op in ops
            if op.activation in self._factors
        }

    def _float_weight(self, name: str) -> Array:
        make = self._model.pending.get(name)
        return self._model.parameters[name] if make is None else make()

    def _desc(self, op: WeightedOp) -> Any:
        return self._model.program.blocks[op.block].ops[op.position]


def _observers(moments: Moments, samples: Samples) -> dict[str, list[Observer]]:
    found: dict[str, list[Observer]] = {name: list(several) for name, several in moments.items()}
    for name, sample in samples.items():
        found.setdefault(name, []).append(sample)
    return found


def _given(model: Model, tensors: list[str], given: Calibration | Any) -> Calibration:
    """Return a calibration, or that of a file, once it is found to be the model's."""
    calibration = given if isinstance(given, Calibration) else Calibration.load(given)
    where = "calibration" if given is calibration else str(given)
    calibration.check_same(model_fingerprint(model), tensors, where)
    return calibration


def _collected(
    model: Model, plan: Plan, tensors: list[str], observers: Observers, arguments: Arguments
) -> tuple[int, Statistics]:
    """Return the number of batches and the statistics of the data; show it to ``observers``."""
    engine, data = engine_of(arguments["engine"]), calibration_data(arguments)
    kept = checkpoint_at(arguments["checkpoint"], arguments["checkpoint_every"])
    if kept is not None:
        calibration = calibrate_model(model, tensors, data, engine, kept)
        return calibration.batches, calibration.statistics
    kind: type[ActivationMaxima] = ActivationHistogram
    if not (plan.target.takes_zero_points or observers):
        kind = ALGORITHMS[arguments["algo"]].statistic
    statistics = {name: kind() for name in tensors}
    feeds, total = data.feeds(model), data.batches()
    if observers:
        engine = partial(run_here, observers=observers)
    return collect_statistics(model, statistics, feeds, engine, total), statistics


def _check_quantized(argument: str, names: Iterable[str], observed: Collection[str]) -> None:
    for name in names:
        if name not in observed:
            raise SettingError(
                f"{argument}: '{name}' is no activation that becomes int8. Those are: "
                f"{', '.join(observed)}."
            )
