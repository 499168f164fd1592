"""Runs what was written as it is deployed, against its simulation and against the float model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..calibration.data import Feed
from ..errors import PyquantError
from ..program import proto
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
from .compared import compared_parts, showing
from .departures import most_departure
from .kernel_times import KernelTime, kernel_times
from .outcome import Findings, OutputDifference, worst
from .output_sums import differences
from .turns import Times, in_turns

# What Paddle's optimization may change in the outputs of a float model, as a share of their power.
_MOST_OF_OPTIMIZATION = 1e-4

# Batches of data for each one that a result is checked on. One alone may be unlike the others.
_BATCHES_FOR_ONE, _LEAST_BATCHES = 8, 2

# Integers may be rounded to either side, and a deep network makes such differences large. The run
# is as near to float as its simulation then: its error has at most this many times the power.
_AS_FAR = 1.5

# If int8 is slower than float by this many seconds, the kernels are looked up. That takes seconds.
_MUCH_LONGER = 1e-3

_FLOAT, _INT8 = "the float model", "the int8 model"


class Check:
    """Runs int8 models beside the float model that they are made from."""

    def __init__(
        self, model: Model, feeds: Sequence[Feed], batches: int, runs_all: bool = False
    ) -> None:
        """Load the float model, which may be folded.

        ``feeds`` are a few of the ``batches`` of data. A model is run on an eighth as many as
        there are batches, but two at least, since this should take less than calibration. With
        ``runs_all``, it is run on all.
        Raises ModelFileError if Paddle cannot load the model.
        """
        self._parts = compared_parts(model)
        self.feeds = feeds
        few = min(len(feeds), max(_LEAST_BATCHES, batches // _BATCHES_FOR_ONE))
        self._checked = len(feeds) if runs_all else few
        # Of copies, in which the weights of a folded model are made.
        self._load: Callable[[Optimization], Any] = lambda optimization: make_predictor(
            self._shown(copy_model(model)), optimization, all_cores()
        )
        self._predictor = self._first_that_loads()
        self._known: list[list[Array]] = []  # the float model's outputs for the first feeds
        self._int8: tuple[Model, Any] | None = None  # the last int8 model, with its Predictor
        self.sample = first_sample(model, feeds[0])
        if not _suits(self._predictor, self.sample):
            self.sample = feeds[0]

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

    def errors(self, model: Model) -> list[OutputDifference]:
        """Return the errors of an int8 model's outputs; all are NaN if Paddle cannot run it."""
        return self._errors_or_nan(model, self._checked)

    def errors_on_all(self, model: Model) -> list[OutputDifference]:
        """Return the same of all batches that were kept."""
        return self._errors_or_nan(model, len(self.feeds))

    def _errors_or_nan(self, model: Model, count: int) -> list[OutputDifference]:
        try:
            return self._errors(model, count)
        except PyquantError:
            return [OutputDifference(str(part), None, math.nan) for part in self._parts]

    def worst_sample(self, model: Model) -> Feed:
        """Return the sample in whose outputs an int8 model errs most, of those that are judged.

        It is `sample` if Paddle cannot run the model, or if not every output has a row per sample.
        """
        feeds, chosen, most = self.feeds[: self._checked], self.sample, 0.0
        if _rows(self.sample.values()) != 1:
            return chosen
        try:
            known = self._expected(len(feeds))
            outputs = list(self._outputs(self._int8_predictor(model), feeds, _INT8))
        except PyquantError:
            return chosen
        for feed, expected, found in zip(feeds, known, outputs):
            for row in range(_rows((*feed.values(), *expected, *found))):
                part = slice(row, row + 1)
                should_be, is_now = ([array[part] for array in one] for one in (expected, found))
                power = worst(self._compared([should_be], [is_now])).power
                if power > most:
                    most, chosen = power, {name: array[part] for name, array in feed.items()}
        return chosen

    def judge(self, model: Model) -> Findings:
        """Compare an int8 model with the float model, and with its own simulation.

        Raises:
            ModelFileError: Paddle cannot load it.
            CalibrationDataError: it cannot run it.
        """
        simulation = make_predictor(simulate(self._shown(model)), Optimization.NONE, all_cores())
        says = list(self._outputs(simulation, [self.sample], _INT8))
        del simulation  # and its memory
        errors = self._errors(model, self._checked)
        runs = list(self._outputs(self._int8_predictor(model), [self.sample], _INT8))
        departures = self._compared(says, runs)
        in_float = list(self._outputs(self._predictor, [self.sample], _FLOAT))
        as_it_says, as_it_runs = (
            worst(self._compared(in_float, outputs)).power for outputs in (says, runs)
        )
        is_rounding = worst(departures).power <= most_departure(model)
        departs = not is_rounding and not as_it_runs <= _AS_FAR * as_it_says
        return Findings(errors, departures, departs, self._checked)

    def times(self, model: Model) -> Times:
        """Time an int8 model in turns with the float model, by one sample that both have run."""
        predictors = self._predictor, self._int8_predictor(model)
        for predictor in predictors:
            set_inputs(predictor, self.sample)
        return in_turns(*(predictor.run for predictor in predictors))

    def kernels(self, model: Model, times: Times) -> Sequence[KernelTime]:
        """Return the kernels that an int8 model runs, if it takes much longer than float."""
        if times.second - times.first < _MUCH_LONGER:
            return ()
        return kernel_times(model, self.sample, all_cores())

    def _int8_predictor(self, model: Model) -> Any:
        """Return the Predictor of an int8 model; that of the last one is kept."""
        if self._int8 is None or self._int8[0] is not model:
            self._int8 = None  # frees its memory
            self._int8 = model, make_int8_predictor(self._shown(model), all_cores())
        return self._int8[1]

    def _errors(self, model: Model, count: int) -> list[OutputDifference]:
        predictor = self._int8_predictor(model)
        return self._compared(
            self._expected(count), self._outputs(predictor, self.feeds[:count], _INT8)
        )

    def _expected(self, count: int) -> list[list[Array]]:
        """Return the float model's outputs for the first feeds; each is run once."""
        missing = self.feeds[len(self._known) : count]
        self._known += self._outputs(self._predictor, missing, _FLOAT)
        return self._known[:count]

    def _outputs(self, predictor: Any, feeds: Sequence[Feed], model: str) -> Iterator[list[Array]]:
        """Yield the parts that are compared, for each feed."""
        names = predictor.get_output_names()
        for number, feed in enumerate(feeds):
            outputs = dict(zip(names, run_batch(predictor, feed, number, model)))
            yield [part.of(outputs[part.name]) for part in self._parts]
        predictor.try_shrink_memory()  # what a whole batch took

    def _compared(
        self, expected: Iterable[list[Array]], found: Iterable[list[Array]]
    ) -> list[OutputDifference]:
        return differences(self._parts, expected, found)


def first_sample(model: Model, feed: Feed) -> Feed:
    """Return a batch of one sample, for slow kernels; all if the model fixes how many there are."""
    free = all(list(proto.tensor_desc(var).dims)[:1] == [-1] for var in model.feeds)
    if not free or not _rows(feed.values()):
        return feed
    return {name: array[:1] for name, array in feed.items()}


def _rows(arrays: Iterable[Array]) -> int:
    """Return how many rows all of the arrays have; 0 if some have others."""
    lengths = {len(array) if array.ndim else 0 for array in arrays}
    return lengths.pop() if len(lengths) == 1 else 0


def _suits(predictor: Any, sample: Feed) -> bool:
    """Return whether every output has values for one sample: a model may cut batches."""
    try:
        return all(array.size for array in run_batch(predictor, sample, 0, _FLOAT))
    except PyquantError:
        return False
