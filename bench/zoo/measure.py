"""Treats a network in a mode, runs it on the tests, and times all of its variants in turns."""

from __future__ import annotations

import os
import pickle
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyquant
from pyquant.result import file_bytes

from ..child import in_child
from ..methods import Paths
from ..predictor import make_predictor
from ..timing import median_seconds
from .metrics import Outputs
from .modes import FLOAT, FOLD, MODES, PADDLE, load, save
from .networks import NETWORKS, Data, Feed

Array = NDArray[Any]

_REASON = 160  # characters of it that are printed
_BASELINE = (FLOAT, FOLD)


@dataclass(frozen=True)
class Outcome:
    """What came of a network in a mode.

    Attributes:
        failure: why there is nothing else; empty if it runs.
        paths: of the files.
        seconds: to treat it.
        error: of the outputs, relative rms, the worst output's.
        scores: by the metrics' names, in per cent.
        check: what the verification said, in short.
    """

    failure: str = ""
    paths: Paths | None = None
    seconds: float = 0.0
    error: float = 0.0
    scores: Mapping[str, float] | None = None
    check: str = ""

    @property
    def bytes(self) -> int:
        """The size of its files."""
        return file_bytes(self.paths) if self.paths else 0


@dataclass(frozen=True)
class Prepared:
    """A network's files and data."""

    name: str
    paths: Paths
    data: Data


def measure(name: str, modes: Sequence[str], cache: Path, timeout: float) -> dict[str, Outcome]:
    """Treat a network in some modes, each in a process of its own: some crash Paddle."""
    folder = cache / name
    prepared = folder / "prepared.pickle"
    if not prepared.exists():
        _spawn(FLOAT, _prepare, name, folder, timeout=timeout)
    chosen = [*_BASELINE, *(mode for mode in modes if mode not in _BASELINE)]
    return {mode: _in_child(prepared, mode, timeout) for mode in chosen}


def seconds(
    name: str, outcomes: Mapping[str, Outcome], cache: Path, rounds: int
) -> dict[str, float]:
    """Return the median time of a batch by each variant that runs, on one thread."""
    paths = {mode: outcome.paths for mode, outcome in outcomes.items() if not outcome.failure}
    times: dict[str, float] = _spawn(FLOAT, _time, cache / name / "prepared.pickle", paths, rounds)
    return times


def _prepare(name: str, folder: Path) -> None:
    network = NETWORKS[name]
    folder.mkdir(parents=True, exist_ok=True)
    paths = network.make(folder)
    predictors: list[Any] = []

    def run(feed: Feed) -> list[Array]:
        if not predictors:
            predictors.append(make_predictor(*_runnable(paths, folder), "plain"))
        return run_feed(predictors[0], feed)

    prepared = Prepared(name, paths, network.data(run))
    (folder / "prepared.pickle").write_bytes(pickle.dumps(prepared))


def _runnable(paths: Paths, folder: Path) -> Paths:
    """Return the network as ``.pdmodel``, since Paddle runs some as ``.json`` only by Python."""
    if paths[0].suffix != ".json":
        return paths
    return save(load(paths), folder / "plain")


def _in_child(prepared: Path, mode: str, timeout: float) -> Outcome:
    try:
        outcome: Outcome = _spawn(mode, _treat, prepared, mode, timeout=timeout)
    except (ChildProcessError, TimeoutError) as error:
        return Outcome(f"process ended: {error}")
    return outcome


def _spawn(mode: str, function: Any, *arguments: Any, timeout: float | None = None) -> Any:
    """Call a function in a process of its own.

    Paddle's PTQ runs a .pdmodel, which its Executor reads only without the newer program form.
    """
    os.environ.update(FLAGS_enable_pir_api="0" if mode == PADDLE else "1")
    return in_child(function, *arguments, timeout=timeout)[0]


def _treat(path: Path, mode: str) -> Outcome:
    network: Prepared = pickle.loads(path.read_bytes())
    directory = path.parent / mode
    directory.mkdir(exist_ok=True)
    try:
        start = time.perf_counter()
        paths, result = MODES[mode].treat(network.paths, network.data.calibration, directory)
        taken = time.perf_counter() - start
        if result is not None:
            (directory / "result.txt").write_text(str(result), "utf-8")
        reference = _reference(network, path.parent)
        predictor = make_predictor(*paths, MODES[mode].run)
        outputs = [run_feed(predictor, feed) for feed in network.data.test]
        scores = {
            name: metric(outputs, reference, network.data.truth)
            for name, metric in NETWORKS[network.name].metrics.items()
        }
        return Outcome("", paths, taken, _error(outputs, reference), scores, _check(result))
    except Exception as error:
        traceback.print_exc()
        return Outcome(_short(error))


def _reference(network: Prepared, folder: Path) -> Outputs:
    """Return the outputs by Paddle's own kernels, without optimization, which a file keeps."""
    path = folder / "reference.pickle"
    if not path.exists():
        predictor = make_predictor(*_runnable(network.paths, folder), "plain")
        found = [run_feed(predictor, feed) for feed in network.data.test]
        path.write_bytes(pickle.dumps(found))
    outputs: Outputs = pickle.loads(path.read_bytes())
    return outputs


def run_feed(predictor: Any, feed: Feed) -> list[Array]:
    """Return all outputs for one batch."""
    for name in predictor.get_input_names():
        predictor.get_input_handle(name).copy_from_cpu(feed[name])
    predictor.run()
    names = predictor.get_output_names()
    return [np.asarray(predictor.get_output_handle(name).copy_to_cpu()) for name in names]


def _error(outputs: Outputs, reference: Outputs) -> float:
    """Return the relative rms error of the worst output; NaN if a shape is wrong."""
    errors = []
    for found, expected in zip(zip(*outputs), zip(*reference)):
        if any(one.shape != other.shape for one, other in zip(found, expected)):
            return float("nan")
        noise = sum(float(((one - other) ** 2).sum()) for one, other in zip(found, expected))
        power = sum(float((other.astype(np.float64) ** 2).sum()) for other in expected)
        errors.append((noise / max(power, 1e-30)) ** 0.5)
    return max(errors) if not np.isnan(errors).any() else float("nan")


def _check(result: Any) -> str:
    check = getattr(result, "verification", None)
    if check is None:
        return ""
    errors, departures = (
        max(one.power for one in part) for part in (check.errors, check.departures)
    )
    words = [f"error {100 * errors**0.5:.2g} %, departs {100 * departures**0.5:.2g} %"]
    words.append(f"{check.speedup:.2f}x")
    return ", ".join([*words, *(repair[:_REASON] for repair in check.repairs)])


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "Error" in line or "(" in line), "".join(lines[:1]))
    return f"{type(error).__name__}: {told[:_REASON]}".replace("|", "/")


def _time(path: Path, paths: Mapping[str, Paths], rounds: int) -> dict[str, float]:
    network: Prepared = pickle.loads(path.read_bytes())
    feed = network.data.test[0]
    runs = {}
    for mode, files in paths.items():
        if mode in (FLOAT, PADDLE):
            predictor = make_predictor(*files, MODES[mode].run)
        else:
            program, params = files
            predictor = pyquant.make_predictor(program.parent, program.name, params.name, threads=1)
        runs[mode] = partial(run_feed, predictor, feed)
    return median_seconds(runs, rounds)
