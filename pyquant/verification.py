"""Runs what was written as it is deployed, against its simulation and against the float model."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from .calibration.data import Feed
from .comparison.similarity import ErrorSums, Similarity, as_float
from .errors import PyquantError
from .program.model import Model, copy_model
from .program.parameters import Array
from .program.predictor import (
    Optimization,
    all_cores,
    make_int8_predictor,
    make_predictor,
    run_failure,
    run_outputs,
)
from .program.targets.onednn.simulation import simulate

# Pairs of runs, float and int8 in turns; fewer if they take longer than this together.
_PAIRS = 7
_SECONDS = 1.0

_LEAST_POWER = 1e-4
"""A hundredth of the range of a sigmoid, squared."""


class OutputError(NamedTuple):
    """How far an output of the int8 run is from what it should be.

    Attributes:
        name: of the output.
        similarity: to what it should be; None if it holds no value.
        power: of the error, as a share of the output's; of a sigmoid, which may be near 0
            throughout, as a share of `_LEAST_POWER` at least. NaN if a value is NaN or infinite.
    """

    name: str
    similarity: Similarity | None
    power: float

    def __str__(self) -> str:
        """Say it in a few words."""
        if self.similarity is None:
            return f"'{self.name}' holds nothing to compare"
        rms = 100 * math.sqrt(self.power)
        return f"'{self.name}' differs by {rms:.2f} % (rms), cosine {self.similarity.cosine:.4f}"


def worst(errors: Sequence[OutputError]) -> OutputError:
    """Return the error of the largest power, NaN before all others."""
    return max(errors, key=lambda one: math.inf if math.isnan(one.power) else one.power)


@dataclass(frozen=True)
class Verification:
    """What a check of an int8 model found, on calibration data, as it is deployed on a CPU.

    Attributes:
        errors: of each output of the int8 run, against the float model's.
        departures: likewise, against what the program says, computed op by op in float.
        float_seconds: median time of one batch by the float model, folded, on all cores.
        int8_seconds: likewise by the int8 model, in turns with the former.
        batches: how many batches were run.
        repairs: what was done about what was found first; empty if nothing was.
    """

    errors: Sequence[OutputError]
    departures: Sequence[OutputError]
    float_seconds: float
    int8_seconds: float
    batches: int
    repairs: tuple[str, ...] = ()

    @property
    def speedup(self) -> float:
        """How many times as fast as float the int8 model is."""
        return self.float_seconds / self.int8_seconds

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


class Reference:
    """The float model's outputs for some batches, and its fastest Predictor."""

    def __init__(self, model: Model, feeds: Sequence[Feed]) -> None:
        """Run the batches; ``model`` may be folded.

        Raises:
            ModelFileError: Paddle cannot load the model.
            CalibrationDataError: it cannot run it.
        """
        producers = model.producers()
        sigmoids = {name for name, op in producers.items() if op.type == "sigmoid"}
        self._least = [_LEAST_POWER if name in sigmoids else 0.0 for name in model.fetches]
        self.feeds = feeds
        for optimization in Optimization:
            try:
                # Of a copy, in which the weights of a folded model are made.
                predictor = make_predictor(copy_model(model), optimization, all_cores())
                outputs = _outputs(predictor, feeds, "the float model")
            except PyquantError:
                if optimization is Optimization.NONE:
                    raise
                continue
            self._predictor, self._outputs = predictor, outputs
            if all(np.isfinite(as_float(array)).all() for one in outputs for array in one):
                break  # otherwise this may be from Paddle's fusion

    def errors(self, model: Model) -> list[OutputError]:
        """Return the errors of an int8 model's outputs.

        Raises:
            ModelFileError: Paddle cannot load the model.
            CalibrationDataError: it cannot run it.
        """
        predictor = make_int8_predictor(model, all_cores())
        found = _outputs(predictor, self.feeds, "the int8 model")
        return self._compared(model, self._outputs, found)

    def verify(self, model: Model) -> Verification:
        """Check an int8 model; raises as `errors`."""
        predictor = make_int8_predictor(model, all_cores())
        found = _outputs(predictor, self.feeds, "the int8 model")
        simulation = make_predictor(simulate(model), Optimization.NONE, all_cores())
        first = _outputs(simulation, self.feeds[:1], "the simulation of the int8 model")
        departures = self._compared(model, first, found)
        errors = self._compared(model, self._outputs, found)
        in_float, in_int8 = _timed(self.feeds[0], (self._predictor, predictor))
        return Verification(errors, departures, in_float, in_int8, len(self.feeds))

    def _compared(
        self, model: Model, expected: Sequence[list[Array]], found: Sequence[list[Array]]
    ) -> list[OutputError]:
        sums = [ErrorSums() for _ in model.fetches]
        for references, outputs in zip(expected, found):
            for one, reference, output in zip(sums, references, outputs):
                reference, output = as_float(reference), as_float(output)
                if reference.shape == output.shape and np.isfinite(reference).all():
                    one.add(reference, output)
        return [
            OutputError(name, one.similarity, _share(one, least))
            for name, one, least in zip(model.fetches, sums, self._least)
        ]


def _share(sums: ErrorSums, least: float) -> float:
    """Return the power of an error as a share of the signal's."""
    signal = max(sums.signal, least * sums.values)
    return sums.noise / signal if signal or math.isnan(sums.noise) else float(sums.noise > 0)


def _outputs(predictor: Any, feeds: Sequence[Feed], model: str) -> list[list[Array]]:
    found = []
    for number, feed in enumerate(feeds):
        try:
            found.append(run_outputs(predictor, feed))
        except Exception as error:  # Paddle raises many types
            raise run_failure(feed, number, error, model) from error
    return found


def _timed(feed: Feed, predictors: Sequence[Any]) -> list[float]:
    """Return the median time that each Predictor takes for a batch, run in turns."""
    times: list[list[float]] = [[] for _ in predictors]
    started = time.perf_counter()
    for _ in range(_PAIRS):
        for one, predictor in zip(times, predictors):
            start = time.perf_counter()
            run_outputs(predictor, feed)
            one.append(time.perf_counter() - start)
        if time.perf_counter() - started > _SECONDS:
            break
    return [median(one) for one in times]
