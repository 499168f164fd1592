"""Compares the outputs of int8 models with those of their float model, wherever they run."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..calibration.data import Feed
from ..comparison.compared import Compared
from ..errors import PyquantError
from ..program import proto
from ..program.model import Model
from ..program.parameters import Array
from .departures import Departure
from .kernel_times import KernelTime
from .outcome import Findings, OutputDifference, differences, worst
from .turns import Times

# Batches of data for each one that a result is checked on. One alone may be unlike the others.
_BATCHES_FOR_ONE, _LEAST_BATCHES = 8, 2

# Integers may be rounded to either side, and a deep network makes such differences large. The run
# is then as near to float as what the program says: its error has at most this many times the
# power.
_AS_FAR = 1.5


class OutputsCheck(ABC):
    """Runs int8 models beside the float model that they are made from.

    Attributes:
        feeds: batches of data.
        sample: a batch of one sample, if the model takes it.
        measures_ops: whether `powers_of_op` tells what an op's integers do to the outputs. A
            prediction by the float model knows only how its activation and weight are rounded.
    """

    measures_ops = False

    def __init__(
        self, parts: Sequence[Compared], feeds: Sequence[Feed], batches: int, runs_all: bool
    ) -> None:
        """Take what is compared, and a few of the ``batches`` of data.

        A model is run on an eighth as many as there are batches, but two at least, since this
        should take less than calibration. With ``runs_all``, it is run on all.
        """
        self._parts = parts
        self.feeds = feeds
        few = min(len(feeds), max(_LEAST_BATCHES, batches // _BATCHES_FOR_ONE))
        self._checked = len(feeds) if runs_all else few
        self._known: list[list[Array]] = []  # the float model's outputs for the first feeds
        self._last: tuple[Model, Any] | None = None  # the last int8 model, and what runs it
        self.sample: Feed = feeds[0]

    @abstractmethod
    def _float_outputs(self, feeds: Sequence[Feed]) -> Iterator[list[Array]]:
        """Yield the parts of the float model's outputs that are compared, for each feed."""

    @abstractmethod
    def _int8_outputs(self, model: Model, feeds: Sequence[Feed]) -> Iterator[list[Array]]:
        """Yield the same of an int8 model; raise PyquantError if it cannot be run."""

    @abstractmethod
    def _load_int8(self, model: Model) -> Any:
        """Return what runs an int8 model; raise PyquantError if it cannot be loaded."""

    @abstractmethod
    def judge(self, model: Model) -> Findings:
        """Compare an int8 model with the float model, and its run with what it says.

        Raises PyquantError if it cannot be run.
        """

    @abstractmethod
    def times(self, model: Model) -> Times:
        """Time an int8 model in turns with the float model."""

    def kernels(self, model: Model, times: Times) -> Sequence[KernelTime]:
        """Return the kernels that take the time of an int8 model, if that is looked up."""
        return ()

    def replace_wrong_float(self) -> bool:
        """Run the float model in another way if its run is wrong; return whether it is."""
        return False

    def first_departure(self, model: Model) -> Departure | None:
        """Return where the run departs from what the program says first, if that is looked for."""
        return None

    def powers_of_op(self, model: Model) -> Sequence[float]:
        """Return powers of the outputs' error by one op, given a model in which it alone is int8.

        Each of them ranks the ops. They are NaN if the model cannot be run.
        """
        raise NotImplementedError

    def errors(self, model: Model) -> list[OutputDifference]:
        """Return the errors of an int8 model's outputs; all are NaN if it cannot be run."""
        return self._errors_or_nan(model, self._checked)

    def errors_on_all(self, model: Model) -> list[OutputDifference]:
        """Return the same of all batches that were kept."""
        return self._errors_or_nan(model, len(self.feeds))

    def worst_sample(self, model: Model) -> Feed:
        """Return the sample in whose outputs an int8 model errs most, of those that are judged.

        It is `sample` if the model cannot be run, or if not every output has a row per sample.
        """
        feeds, chosen, most = self.feeds[: self._checked], self.sample, 0.0
        if _rows(self.sample.values()) != 1:
            return chosen
        try:
            known = self._expected(len(feeds))
            outputs = list(self._int8_outputs(model, feeds))
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

    def _said_of_integers(self, model: Model) -> list[Array]:
        """Return what a model says for the sample of its run's integers; nothing if unknown."""
        return []

    def _int8(self, model: Model) -> Any:
        """Return what runs an int8 model; that of the last one is kept."""
        if self._last is None or self._last[0] is not model:
            self._last = None  # frees its memory
            self._last = model, self._load_int8(model)
        return self._last[1]

    def _errors_or_nan(self, model: Model, count: int) -> list[OutputDifference]:
        try:
            return self._errors(model, count)
        except PyquantError:
            return [OutputDifference(str(part), None, math.nan) for part in self._parts]

    def _errors(self, model: Model, count: int) -> list[OutputDifference]:
        found = self._int8_outputs(model, self.feeds[:count])
        return self._compared(self._expected(count), found)

    def _expected(self, count: int) -> list[list[Array]]:
        """Return the float model's outputs for the first feeds; each is run once."""
        self._known += self._float_outputs(self.feeds[len(self._known) : count])
        return self._known[:count]

    def _findings(
        self, model: Model, says: Sequence[list[Array]], most_departure: float
    ) -> Findings:
        """Judge an int8 model; ``says`` are the outputs of what it says for the sample.

        ``most_departure`` is the share of an output's power that rounding explains.
        """
        errors = self._errors(model, self._checked)
        runs = list(self._int8_outputs(model, [self.sample]))
        departures = self._compared(says, runs)
        in_float = list(self._float_outputs([self.sample]))
        as_it_says, as_it_runs = (
            worst(self._compared(in_float, outputs)).power for outputs in (says, runs)
        )
        is_rounding = worst(departures).power <= most_departure
        departs = not is_rounding and not as_it_runs <= _AS_FAR * as_it_says
        if departs and (of_integers := self._said_of_integers(model)):
            departs = not worst(self._compared([of_integers], runs)).power <= most_departure
        return Findings(errors, departures, departs, self._checked)

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
