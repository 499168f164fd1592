"""Peak memory of static quantization against the forward alone: python -m bench.calibration_memory.

Every run is a process of its own. The forward is that of Paddle's Predictor with oneDNN and every
optimisation. Both get the same two batches.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pyquant.calibration.thresholds import ALGORITHMS

from .calibration_speed import SOURCES
from .child import in_child
from .methods import static
from .report import Report, add_report
from .source import Source, forward

_BATCHES = 2
_ROUNDS = 2


def main() -> None:
    """Print a row per run."""
    options = _options()
    header = ("network", "batch", "run", "peak MB", "ratio")
    Report(options.report).table(header, _rows(options))


def _rows(options: argparse.Namespace) -> Iterator[Sequence[str]]:
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.jobs:
            source = SOURCES[name](Path(temporary))
            for batch in options.batches:
                yield from _measured(_of_batches(source, batch), options.algos)


def _measured(source: Source, algos: list[str]) -> Iterator[Sequence[str]]:
    alone = _peak(source, "forward")
    for run in ("forward", *algos, *(f"{algo} +check" for algo in algos)):
        peak = alone if run == "forward" else _peak(source, run)
        yield source.name, str(source.batch), run, f"{peak:.0f}", f"{peak / alone:.2f}"


def _of_batches(source: Source, batch: int) -> Source:
    """Give ``source`` two random batches."""
    shape = (_BATCHES * batch, *source.images.shape[1:])
    images = np.random.default_rng(0).random(shape, np.float32)
    return replace(source, images=images, batch=batch)


def _peak(source: Source, run: str) -> float:
    """Return a run's peak memory in megabytes, the least of several tries."""
    return min(in_child(_run, source, run)[1] for _ in range(_ROUNDS))


def _run(source: Source, run: str) -> None:
    if run == "forward":
        forward(source)
        return
    with tempfile.TemporaryDirectory() as output:
        algo, _, check = run.partition(" ")
        static(source, Path(output), algo=algo, verify=bool(check))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.calibration_memory", description=__doc__)
    parser.add_argument("jobs", nargs="*", default=list(SOURCES), help=", ".join(SOURCES))
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 48])
    parser.add_argument("--algos", nargs="+", default=["abs_max", "KL"], choices=ALGORITHMS)
    add_report(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
