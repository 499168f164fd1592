"""Runs what was written as it is deployed, against its simulation and against the float model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..calibration.data import Feed
from ..comparison.compared import compared_parts, showing
from ..errors import PyquantError
from ..program.model import Model, copy_model
from ..program.parameters import Array
from ..program.predictor import (
    Optimization,
    all_cores,
    make_int8_predictor,
    make_predictor,
    run_batch,
    set_inputs,
)
from ..program.targets.onednn.simulation import simulate
from .departures import Departure, first_departure, most_departure, said_of_integers
from .kernel_times import KernelTime, kernel_times
from .outcome import Findings, worst
from .outputs_check import OutputsCheck, first_sample
from .turns import Times, in_turns

# What Paddle's optimization may change in the outputs of a float model, as a share of their power.
_MOST_OF_OPTIMIZATION = 1e-4

# If int8 is slower than float by this many seconds, the kernels are looked up. That takes seconds.
_MUCH_LONGER = 1e-3

_FLOAT, _INT8 = "the float model", "the int8 model"


class Check(OutputsCheck):
    """Runs int8 models beside the float model that they are made from."""

    def __init__(
        self, model: Model, feeds: Sequence[Feed], batches: int, runs_all: bool = False
    ) -> None:
        """Load the float model, which may be folded.

        Raises ModelFileError if Paddle cannot load it.
        """
        super().__init__(compared_parts(model), feeds, batches, runs_all)
        # Of copies, in which the weights of a folded model are made.
        self._load: Callable[[Optimization], Any] = lambda optimization: make_predictor(
            self._shown(copy_model(model)), optimization, all_cores()
        )
        self._predictor = self._first_that_loads()
        sample = first_sample(model, feeds[0])
        if _suits(self._predictor, sample):
            self.sample = sample

    def _first_that_loads(self) -> Any:
        try:
            return self._load(Optimization.FUSED)
        except PyquantError:
            return self._load(Optimization.NONE)

    def _shown(self, model: Model) -> Model:
        return showing(model, [part.name for part in self._parts])

    def replace_wrong_float(self) -> bool:
        """Run the float model in another way if Paddle's optimization changes what it computes.

        Returns whether it does. It is only asked if an int8 model seems wrong: this takes long.
        """
        (expected,) = self._outputs(self._load(Optimization.NONE), [self.sample], _FLOAT)

        def is_right(predictor: Any) -> bool:
            found = self._outputs(predictor, [self.sample], _FLOAT)
            return worst(self._compared([expected], found)).power < _MOST_OF_OPTIMIZATION

        if is_right(self._predictor):
            return False
        self._predictor = None  # frees its memory
        self._known = []
        for optimization in (Optimization.UNFUSED, Optimization.NONE):
            try:
                self._predictor = self._load(optimization)
                if is_right(self._predictor):
                    break
            except PyquantError:
                continue
        return True

    def judge(self, model: Model) -> Findings:
        """Compare an int8 model with the float model, and with its own simulation.

        Raises:
            ModelFileError: Paddle cannot load it.
            CalibrationDataError: it cannot run it.
        """
        simulation = make_predictor(simulate(self._shown(model)), Optimization.NONE, all_cores())
        says = list(self._outputs(simulation, [self.sample], _INT8))
        del simulation  # and its memory
        return self._findings(model, says, most_departure(model))

    def times(self, model: Model) -> Times:
        """Time an int8 model in turns with the float model, by one sample that both have run."""
        predictors = self._predictor, self._int8(model)
        for predictor in predictors:
            set_inputs(predictor, self.sample)
        return in_turns(*(predictor.run for predictor in predictors))

    def kernels(self, model: Model, times: Times) -> Sequence[KernelTime]:
        """Return the kernels that an int8 model runs, if it takes much longer than float."""
        if times.second - times.first < _MUCH_LONGER:
            return ()
        return kernel_times(model, self.sample, all_cores())

    def first_departure(self, model: Model) -> Departure | None:
        """Return where the run of an int8 model departs from its simulation first."""
        return first_departure(model, self.sample)

    def _said_of_integers(self, model: Model) -> list[Array]:
        outputs = said_of_integers(self._shown(model), self.sample)
        return [part.of(outputs[part.name]) for part in self._parts]

    def _float_outputs(self, feeds: Sequence[Feed]) -> Iterator[list[Array]]:
        return self._outputs(self._predictor, feeds, _FLOAT)

    def _int8_outputs(self, model: Model, feeds: Sequence[Feed]) -> Iterator[list[Array]]:
        return self._outputs(self._int8(model), feeds, _INT8)

    def _load_int8(self, model: Model) -> Any:
        return make_int8_predictor(self._shown(model), all_cores())

    def _outputs(self, predictor: Any, feeds: Sequence[Feed], model: str) -> Iterator[list[Array]]:
        """Yield the parts that are compared, for each feed."""
        names = predictor.get_output_names()
        for number, feed in enumerate(feeds):
            outputs = dict(zip(names, run_batch(predictor, feed, number, model)))
            yield [part.of(outputs[part.name]) for part in self._parts]
        predictor.try_shrink_memory()  # what a whole batch took


def _suits(predictor: Any, sample: Feed) -> bool:
    """Return whether every output has values for one sample: a model may cut batches."""
    try:
        return all(array.size for array in run_batch(predictor, sample, 0, _FLOAT))
    except PyquantError:
        return False
