"""Whole static quantizations against the forward alone: python -m bench.calibration_speed.

The forward is that of Paddle's Predictor with oneDNN and every optimisation, on all cores, and
includes loading the model. All take turns in one process; a peer, if asked for, runs once.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pyquant.calibration.thresholds import ALGORITHMS

from .methods import PEERS, peer_methods, quantized, static
from .networks import export_legacy
from .ocr import models
from .ocr.lines import CALIBRATION_SEED, render_lines
from .report import Report, add_report
from .source import Source, forward

_BATCH = 8


def main() -> None:
    """Print a row per run, as a multiple of the forward."""
    options = _options()
    Report(options.report).table(("network, samples", "run", "seconds", "ratio"), _rows(options))


def _rows(options: argparse.Namespace) -> Iterator[Sequence[str]]:
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.jobs:
            source = SOURCES[name](Path(temporary))
            seconds = _measured(source, options, Path(temporary) / "out")
            for run, value in seconds.items():
                title = f"{source.name}, {len(source.images)}"
                yield title, run, f"{value:.2f}", f"{value / seconds['forward']:.2f}"


def _measured(source: Source, options: argparse.Namespace, output: Path) -> dict[str, float]:
    """Return the seconds of each run, the forward first."""
    runs: dict[str, Callable[[], Any]] = {"forward": partial(forward, source)}
    for algo in options.algos:
        runs[f"pyquant {algo}"] = partial(static, source, output, algo=algo, verify=False)
        runs[f"{algo} and check"] = partial(static, source, output, algo=algo)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds + 1):
        for name, run in runs.items():
            seconds[name].append(_seconds(run))
    found = {name: median(values[1:] or values) for name, values in seconds.items()}
    for name, method in peer_methods(options.peers, options.paddle_algos).items():
        found[name] = quantized(name, method, source, output).seconds or 0
    return found


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _vision_source(name: str) -> Callable[[Path], Source]:
    def make(directory: Path) -> Source:
        images = np.random.default_rng(0).random((64, 3, 224, 224), np.float32)
        return Source(name, export_legacy(name, directory / name), "image", images, _BATCH)

    return make


def _recognition_source(_: Path) -> Source:
    images, _texts = render_lines(128, CALIBRATION_SEED)
    paths = models.model_paths(models.RECOGNITION)
    return Source("PP-OCRv4 recognition", paths, "x", images, _BATCH)


SOURCES: dict[str, Callable[[Path], Source]] = {
    "mobilenet_v1": _vision_source("mobilenet_v1"),
    "recognition": _recognition_source,
    "resnet50": _vision_source("resnet50"),
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.calibration_speed", description=__doc__)
    parser.add_argument("jobs", nargs="*", default=list(SOURCES), help=", ".join(SOURCES))
    parser.add_argument("--algos", nargs="+", default=["abs_max", "KL"], choices=ALGORITHMS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=[], choices=PEERS)
    parser.add_argument("--paddle-algos", nargs="+", default=["abs_max", "hist"])
    add_report(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
