"""The stages of static mode from what the data show to an int8 program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..calibration.bias_correction import mean_error
from ..calibration.moments import first_readers
from ..program.corrections import add_to_outputs
from ..program.folding.scaling import store_factors
from ..program.model import Model, copy_model
from ..program.parameters import Array
from ..program.quantizable import WeightedOp
from ..program.ranges import Range
from ..program.saturation import VNNI
from ..program.weights import QuantizedWeight, quantize_weights
from .accuracy_control import Control, control, rank
from .activation_ranges import ActivationRanges, check_given
from .equalization import Equalization, equalize
from .observation import Seen
from .options import Metric, Options
from .plan import Plan, Writer

# Weights of ops that run in float: 8 bits would cost accuracy there, and save no time.
_BITS_OF_FLOAT_OPS = 16


class Stages:
    """What is done with a model, stage by stage.

    Attributes:
        weights: of the ops, and of those that run in float, as integers by their names.
    """

    def __init__(
        self,
        model: Model,
        plan: Plan,
        ops: Sequence[WeightedOp],
        seen: Seen,
        options: Options,
    ) -> None:
        """Take what all stages need.

        Args:
            model: the float model.
            plan: of it.
            ops: what becomes int8.
            seen: of their activations.
            options: of the call.
        """
        self._model = model
        self._plan = plan
        self._ops = ops
        self._seen = seen
        self._options = options
        self._equalization = Equalization()
        self._ranges = ActivationRanges(model, ops, seen, options)
        self._corrections: dict[WeightedOp, Array] = {}
        self._writer: Writer
        self._found_ranges: Mapping[str, Range]
        self.weights: dict[str, QuantizedWeight] = {}

    def equalize(self) -> None:
        """Divide activations by factors, and go on with what is seen behind them."""
        found = equalize(self._model, self._plan, self._ops, self._seen, self._options)
        self._equalization = found
        self._seen = self._seen.divided({**found.taken, **found.inserted})
        self._ranges = ActivationRanges(
            self._model, self._ops, self._seen, self._options, found.weight_factors
        )

    def find_thresholds(self) -> None:
        """Find the thresholds of all activations, for the stages to come.

        Raises:
            SettingError: thresholds are given for what is none of them.
        """
        self._writer = self._plan.writer(self._model, self._ops)
        check_given(self._options, self._writer.observed)
        self._found_ranges, _ = self._ranges.find(self._writer)

    def round_weights(self) -> None:
        """Make weights integers, and find what the outputs lack on average by them."""
        options = self._options
        per_channel, factors = options.per_channel, self._equalization.weight_factors
        weights = quantize_weights(
            self._model, self._ops, options.weight_bits, per_channel, factors
        )
        weights = self._suited(weights, self._writer, self._found_ranges)
        by_moments = first_readers(self._seen.moments) if options.rounds_by_moments else {}
        corrected, dims = self._corrected(), self._model.dims()
        for name, weight in weights.items():
            if name not in by_moments and name not in corrected:
                continue  # the nearest integers are made when they are written
            made = weight.made()
            if name in by_moments:
                made = replace(made, rounded=by_moments[name].round(made))
            for op in corrected.get(name, ()):
                means = self._seen.means[op.activation]
                lacking = mean_error(op.desc(self._model), made, means, dims[op.activation])
                self._corrections[op] = lacking
            weights[name] = weight.keeping(made)
        in_float = self._plan.weight_only
        self.weights = {
            **quantize_weights(self._model, in_float, _BITS_OF_FLOAT_OPS, per_channel),
            **weights,
        }

    def _suited(
        self,
        weights: dict[str, QuantizedWeight],
        writer: Writer,
        ranges: Mapping[str, Range],
    ) -> dict[str, QuantizedWeight]:
        """Return weights as integers that suit the processors for which the model is."""
        if self._options.processors == VNNI:
            return weights
        return writer.without_saturation(weights, ranges)

    def _corrected(self) -> dict[str, list[WeightedOp]]:
        """Return the ops whose outputs are corrected, by the names of their weights."""
        found: dict[str, list[WeightedOp]] = {}
        for op in self._ops:
            if op.block == 0 and op.activation in self._seen.means:
                found.setdefault(op.weight, []).append(op)
        return found

    def control(self, source: Model, metric: Metric, max_drop: float) -> Control:
        """Find the ops to keep in float; see `accuracy_control.control`."""
        ranges, bits = self._ranges.find(self._plan.writer(self._model, self._ops))
        seen = self._seen
        ranked = rank(self._ops, seen.moments, self.weights, ranges, bits, seen.statistics)
        return control(source, lambda ops: self.write(ops)[0], ranked, metric, max_drop)

    def write(self, ops: Sequence[WeightedOp]) -> tuple[Model, dict[str, Range], dict[str, float]]:
        """Return the program in which ``ops`` are int8.

        Behind it, the ranges of their activations, and the steps of the integers of these.
        """
        written = copy_model(self._model)
        weight_only, count = self._plan.weight_only, len(ops)
        corrections = {op: self._corrections[op] for op in ops if op in self._corrections}
        if corrections:
            inserts = not self._plan.target.fused
            moved = add_to_outputs(written, corrections, [*ops, *weight_only], inserts)
            ops, weight_only = moved[:count], moved[count:]
        writer = self._plan.writer(written, ops)
        ranges, _ = self._ranges.find(writer)
        inserted = self._equalization.inserted
        weights = self._suited(self.weights, writer, ranges)
        writer.write(ranges, weights, weight_only, inserted)
        read = {op.activation for op in ops}
        divided = {name: factors for name, factors in inserted.items() if name in read}
        store_factors(written, {**self._equalization.taken, **divided})
        return written, ranges, writer.steps(ranges)
