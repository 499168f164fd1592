"""Runs a float model and a quantized one over the same batches and compares their tensors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..arrays import view_values
from ..calibration.data import Feed
from ..errors import CalibrationDataError, PyquantError
from ..program.model import Model
from ..program.parameters import Array
from ..program.predictor import (
    Hook,
    Optimization,
    all_cores,
    make_int8_predictor,
    make_predictor,
    run_batch,
    run_outputs,
)
from ..program.targets.onednn.simulation import simulate
from .activations import ActivationMeasure, Measure, OutputMeasure, PartMeasure
from .compared import Compared, compared_parts
from .quantization import Quantization, Written
from .report import INT8_RUN, SIMULATED, ComparedTensor

See = Callable[[Written, Array], None]

_NOT_IN_FLOAT = "not in the float model"


class PairedRun:
    """Runs two models over the same batches and measures their tensors."""

    def __init__(self, before: Model, after: Model, quantization: Quantization) -> None:
        """Make the Predictors of a float and a quantized model.

        Raises ModelFileError if Paddle cannot load one of them, and UnsupportedError if the
        quantized one has int8 ops that pyquant does not know.
        """
        self.notes: list[str] = []  # what could not be done
        threads = all_cores()
        self._after = after
        simulation = simulate(after)
        self._measures = _measures(before, simulation, quantization)
        self._float_outputs = _float_outputs(before, after)
        self._outputs = {SIMULATED: self._part_measures(before, SIMULATED)}
        common = {value.name for value, group in self._measures.items() if not group[0].note}
        self._float = ObservedModel(before, common, threads)
        self._simulation = ObservedModel(
            simulation, {value.name for value in self._measures}, threads
        )
        self._int8: Any = None
        if quantization.activations:
            self._outputs[INT8_RUN] = self._part_measures(before, INT8_RUN)
            try:
                self._int8 = make_int8_predictor(after, threads)
            except PyquantError as error:
                self._without_int8(error)

    def batch(self, feed: Feed, number: int) -> None:
        """Run one batch through both models; raise CalibrationDataError if one cannot run it."""
        held: dict[Written, Array] = {}

        def hold(value: Written, array: Array) -> None:
            if value in self._measures:
                held[value] = array.copy()

        def reduce(value: Written, array: Array) -> None:
            reference = held.pop(value, None)
            for measure in self._measures.get(value, ()):
                measure.add(reference, array)

        expected = self._float.run(feed, number, hold)
        self._add_outputs(SIMULATED, expected, self._simulation.run(feed, number, reduce))
        if self._int8 is not None:
            try:
                outputs = run_batch(self._int8, feed, number, str(self._after.model_path))
            except CalibrationDataError as error:
                self._without_int8(error)
                return
            self._add_outputs(INT8_RUN, expected, outputs)

    def compared(self) -> list[ComparedTensor]:
        """Return the results: the outputs, then tensors in the order of the quantized program."""
        outputs = [measure for run in self._outputs.values() for group in run for measure in group]
        tensors = [measure for group in self._measures.values() for measure in group]
        return [measure.compared() for measure in (*outputs, *tensors)]

    def _add_outputs(self, run: str, expected: list[Array], outputs: list[Array]) -> None:
        for position, group in enumerate(self._outputs[run]):
            source = self._float_outputs.get(position)
            for measure in group:
                measure.add(None if source is None else expected[source], outputs[position])

    def _part_measures(self, before: Model, run: str) -> list[list[PartMeasure]]:
        """Return the measures of the parts of each output of the quantized model."""
        parts, producers = compared_parts(before), self._after.producers()

        def measures(position: int, name: str) -> Iterator[PartMeasure]:
            op_types = (producers[name].type,) if name in producers else ()
            source = self._float_outputs.get(position)
            if source is None:
                yield PartMeasure(name, Compared(name), run, op_types, _NOT_IN_FLOAT)
                return
            in_float = before.fetches[source]
            own = [part for part in parts if part.name == in_float] or [Compared(in_float)]
            yield from (PartMeasure(name, part, run, op_types) for part in own)

        return [list(measures(*output)) for output in enumerate(self._after.fetches)]

    def _without_int8(self, error: PyquantError) -> None:
        self._int8 = None
        del self._outputs[INT8_RUN]
        self.notes.append(f"the int8 run failed, and is left out: {error}")


def _measures(
    before: Model, after: Model, quantization: Quantization
) -> Mapping[Written, list[Measure]]:
    """Return the measures of each value, in the order of the quantized program ``after``."""
    here, there = after.writes(), before.writes()

    def note(value: Written) -> str:
        if not there[value.name]:
            return _NOT_IN_FLOAT
        if value.before_last >= there[value.name]:
            return f"written {there[value.name]} times in the float model, {here[value.name]} here"
        return ""

    measures: dict[Written, list[Measure]] = defaultdict(list)
    for variable, activation in quantization.activations.items():
        op_types, value = quantization.op_types.get(variable, ()), activation.value
        measures[value].append(ActivationMeasure(activation, op_types, note(value)))
    for value, op_type in quantization.outputs:
        measures[value].append(OutputMeasure(value.name, "op output", (op_type,), note(value)))
    return dict(measures)


def _float_outputs(before: Model, after: Model) -> dict[int, int]:
    """Map each output's position in the quantized model to its position in the float model."""
    names, wanted = list(before.fetches), list(after.fetches)
    if set(names) != set(wanted) and len(names) == len(wanted):
        return {position: position for position in range(len(wanted))}
    return {i: names.index(name) for i, name in enumerate(wanted) if name in names}


class ObservedModel:
    """Runs a model op by op, as its program says, and shows the tensors of some names."""

    def __init__(self, model: Model, names: Collection[str], threads: int) -> None:
        self._model = model
        self._names = names
        self._writes = model.writes()
        self._predictor = make_predictor(model, Optimization.NONE, threads)
        self._hook = Hook(self._predictor, names)
        self._seen: Counter[str] = Counter()

    def run(self, feed: Feed, batch: int, see: See) -> list[Array]:
        """Run one batch and return the model's outputs.

        Calls ``see`` with each tensor when it is computed; the memory is valid until it returns.
        Raises CalibrationDataError if the model cannot run the batch.
        """
        self._seen.clear()
        for name, array in feed.items():
            if name in self._names:
                self._observe(see, name, array)
        look = partial(self._look, see)
        with self._hook.running(look, feed, batch, str(self._model.model_path)):
            return run_outputs(self._predictor, feed)

    def _look(self, see: See, op_type: str, name: str, tensor: Any) -> None:
        if op_type != "feed":
            self._observe(see, name, view_values(tensor))

    def _observe(self, see: See, name: str, array: Array) -> None:
        # In a loop, the program's writes repeat.
        writes = max(1, self._writes[name])
        value = Written(name, writes - 1 - self._seen[name] % writes)
        self._seen[name] += 1
        see(value, np.ascontiguousarray(array))
