"""Runs what was written as it is deployed, against its simulation and against the float model."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from .calibration.data import Feed
from .comparison.similarity import ErrorSums, Similarity, as_float
from .errors import PyquantError
from .program import proto
from .program.model import Model, copy_model
from .program.parameters import Array
from .program.predictor import (
    Optimization,
    all_cores,
    make_int8_predictor,
    make_predictor,
    run_batch,
)
from .program.targets.onednn.simulation import simulate

# Pairs of runs, float and int8 in turns; fewer if they take longer than this together.
_PAIRS = 7
_SECONDS = 0.3

# What Paddle's optimization may change in the outputs of a float model, as a share of their power.
_MOST_OF_OPTIMIZATION = 1e-4

_FLOAT, _INT8 = "the float model", "the int8 model"

_LEAST_POWER = 1e-4
"""A hundredth of the range of a sigmoid, squared."""


class OutputDifference(NamedTuple):
    """How far an output of the int8 run is from what it should be.

    Attributes:
        name: of the output.
        similarity: to what it should be; None if it holds no value.
        power: of the error, as a share of the output's power. A sigmoid may be near 0 throughout:
            its power counts as `_LEAST_POWER` per value at least. NaN if a value is NaN or
            infinite, or the shape is wrong.
    """

    name: str
    similarity: Similarity | None
    power: float

    def __str__(self) -> str:
        """Say it in a few words."""
        if math.isnan(self.power):
            return f"'{self.name}' holds NaN or infinity, or is of another shape"
        if self.similarity is None:
            return f"'{self.name}' holds nothing to compare"
        rms = 100 * math.sqrt(self.power)
        return f"'{self.name}' differs by {rms:.2f} % (rms), cosine {self.similarity.cosine:.4f}"


def worst(errors: Sequence[OutputDifference]) -> OutputDifference:
    """Return the error of the largest power, NaN before all others."""
    return max(errors, key=lambda one: math.inf if math.isnan(one.power) else one.power)


@dataclass(frozen=True)
class Verification:
    """What a check of an int8 model found, on calibration data, as it is deployed on a CPU.

    Attributes:
        errors: of each output of the int8 run, against the float model's.
        departures: likewise, against the simulation: the program computed op by op in float.
        float_seconds: median time of one batch by the float model, folded, on all cores.
        int8_seconds: likewise by the int8 model, in turns with the former.
        speedup: how many times as fast as float the int8 model is, the median of pairs of runs.
        batches: how many batches were run.
        repairs: what was done about errors; empty if nothing was.
    """

    errors: Sequence[OutputDifference]
    departures: Sequence[OutputDifference]
    float_seconds: float
    int8_seconds: float
    speedup: float
    batches: int
    repairs: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say it in four lines."""
        times = f"{1e3 * self.float_seconds:.1f} ms in float, {1e3 * self.int8_seconds:.1f} in int8"
        return "\n".join(
            (
                f"check  {self.batches} batch(es) against float: {worst(self.errors)}",
                f"check  the run against the program: {worst(self.departures)}",
                f"check  {times} a batch: {self.speedup:.2f} x as fast on {all_cores()} core(s)",
                f"check  repaired: {'; '.join(self.repairs) or 'nothing'}",
            )
        )


class Check:
    """Runs int8 models beside the float model that they are made from."""

    def __init__(self, model: Model, feeds: Sequence[Feed]) -> None:
        """Run the float model, which may be folded, on some batches.

        It runs by the fastest kind of optimization that computes what Paddle's own kernels do.

        Raises:
            ModelFileError: Paddle cannot load the model.
            CalibrationDataError: it cannot run it.
        """
        producers = model.producers()
        sigmoids = {name for name, op in producers.items() if op.type == "sigmoid"}
        self._least = [_LEAST_POWER if name in sigmoids else 0.0 for name in model.fetches]
        self.feeds = feeds
        self._small = _first_sample(model, feeds[0])
        self._predictor = self._fastest(model)

    def _fastest(self, model: Model) -> Any:
        # Of copies, in which the weights of a folded model are made. One Predictor at a time.
        predictor = make_predictor(copy_model(model), Optimization.NONE, all_cores())
        if not _suits(predictor, self._small):
            self._small = self.feeds[0]
        expected = _outputs(predictor, [self._small], _FLOAT)
        for optimization in (Optimization.FUSED, Optimization.UNFUSED):
            predictor = None
            try:
                predictor = make_predictor(copy_model(model), optimization, all_cores())
                found = _outputs(predictor, [self._small], _FLOAT)
            except PyquantError:
                continue
            if worst(self._compared(model, expected, found)).power < _MOST_OF_OPTIMIZATION:
                return predictor
        predictor = None
        return make_predictor(copy_model(model), Optimization.NONE, all_cores())

    def errors(self, model: Model) -> list[OutputDifference]:
        """Return the errors of an int8 model's outputs; all are NaN if Paddle cannot run it."""
        try:
            predictor = make_int8_predictor(model, all_cores())
            found = _outputs(predictor, self.feeds, _INT8)
        except PyquantError:
            return [OutputDifference(name, None, math.nan) for name in model.fetches]
        return self._compared(model, self._expected, found)

    @cached_property
    def _expected(self) -> list[list[Array]]:
        return _outputs(self._predictor, self.feeds, _FLOAT)

    def verify(self, model: Model) -> Verification:
        """Check an int8 model.

        Raises:
            ModelFileError: Paddle cannot load it.
            CalibrationDataError: it cannot run it.
        """
        simulation = make_predictor(simulate(model), Optimization.NONE, all_cores())
        says = _outputs(simulation, [self._small], _INT8)
        del simulation  # and its memory
        predictor = make_int8_predictor(model, all_cores())
        departures = self._compared(model, says, _outputs(predictor, [self._small], _INT8))
        runs = _Turns(self._predictor, predictor)
        pairs = [runs.pair(feed, number) for number, feed in enumerate(self.feeds)]
        runs.repeat(self.feeds[0])
        return Verification(
            self._compared(model, *zip(*pairs)), departures, *runs.medians(), len(self.feeds)
        )

    def _compared(
        self, model: Model, expected: Sequence[list[Array]], found: Sequence[list[Array]]
    ) -> list[OutputDifference]:
        sums = [ErrorSums() for _ in model.fetches]
        for references, outputs in zip(expected, found):
            for one, reference, output in zip(sums, references, outputs):
                reference, output = as_float(reference), as_float(output)
                if reference.shape != output.shape:
                    one.noise = math.nan
                elif np.isfinite(reference).all():
                    one.add(reference, output)
        return [
            OutputDifference(name, one.similarity, _share(one, least))
            for name, one, least in zip(model.fetches, sums, self._least)
        ]


def _first_sample(model: Model, feed: Feed) -> Feed:
    """Return a batch of one sample, for slow kernels; all if the model fixes how many there are."""
    free = all(list(proto.tensor_desc(var).dims)[:1] == [-1] for var in model.feeds)
    lengths = {len(array) if array.ndim else 0 for array in feed.values()}
    if not free or len(lengths) != 1:
        return feed
    return {name: array[:1] for name, array in feed.items()}


def _suits(predictor: Any, sample: Feed) -> bool:
    """Return whether every output has values for one sample: a model may cut batches."""
    try:
        return all(array.size for array in run_batch(predictor, sample, 0, _FLOAT))
    except PyquantError:
        return False


def _share(sums: ErrorSums, least: float) -> float:
    """Return the power of an error as a share of the signal's."""
    signal = max(sums.signal, least * sums.values)
    if math.isnan(sums.noise) or signal > 0:
        return sums.noise / (signal or 1.0)
    return float(sums.noise > 0)


def _outputs(predictor: Any, feeds: Sequence[Feed], model: str) -> list[list[Array]]:
    return [run_batch(predictor, feed, number, model) for number, feed in enumerate(feeds)]


class _Turns:
    """Runs a float and an int8 Predictor in turns, and times them."""

    def __init__(self, in_float: Any, in_int8: Any) -> None:
        self._predictors = (in_float, _FLOAT), (in_int8, _INT8)
        self._seconds: list[list[float]] = []
        self._started = time.perf_counter()

    def pair(self, feed: Feed, number: int = 0) -> list[list[Array]]:
        """Run a batch by both, and return the outputs of both."""
        outputs, seconds = [], []
        for predictor, model in self._predictors:
            start = time.perf_counter()
            outputs.append(run_batch(predictor, feed, number, model))
            seconds.append(time.perf_counter() - start)
        self._seconds.append(seconds)
        return outputs

    def repeat(self, feed: Feed) -> None:
        """Run a batch again as long as that takes little time."""
        while len(self._seconds) < _PAIRS and time.perf_counter() - self._started < _SECONDS:
            self.pair(feed)

    def medians(self) -> tuple[float, float, float]:
        """Return the median times, and the median of how many times as fast int8 is."""
        in_float, in_int8 = zip(*self._seconds)
        ratios = [one / other for one, other in self._seconds]
        return median(in_float), median(in_int8), median(ratios)
