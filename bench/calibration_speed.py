"""Whole static quantizations against the forward alone: python -m bench.calibration_speed.

The forward is that of Paddle's Predictor with oneDNN and every optimisation, on all cores, with the
loading of the model. Both take turns in one process; a peer, if asked for, runs once.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import pyquant
from pyquant.calibration.thresholds import ALGORITHMS

from .networks import export_legacy
from .ocr import models
from .ocr.lines import CALIBRATION_SEED, render_lines
from .paddle_ptq import quantize as paddle_quantize
from .predictor import make_predictor, run_batch

_BATCH = 8
_PEERS = ("paddle", "nncf")


@dataclass(frozen=True)
class Job:
    """A model and its calibration data.

    Attributes:
        name: as printed.
        paths: program and parameters.
        input: the name of the only input.
        images: float32, samples first.
    """

    name: str
    paths: tuple[Path, Path]
    input: str
    images: Any

    def batches(self) -> list[Any]:
        """Return the images as batches."""
        return [self.images[i : i + _BATCH] for i in range(0, len(self.images), _BATCH)]


def main() -> None:
    """Print a line per run, as a multiple of the forward."""
    options = _options()
    print(f"{'job':34} {'run':16} seconds  ratio", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.jobs:
            _measure(JOBS[name](Path(temporary)), options, Path(temporary) / "out")


def _measure(job: Job, options: argparse.Namespace, output: Path) -> None:
    runs: dict[str, Callable[[], Any]] = {"forward": partial(_forward, job)}
    for algo in options.algos:
        runs[f"pyquant {algo}"] = partial(_pyquant, job, algo, output)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds + 1):
        for name, run in runs.items():
            seconds[name].append(_seconds(run))
    forward = median(seconds["forward"][1:] or seconds["forward"])
    for name, values in seconds.items():
        _print(job, name, median(values[1:] or values), forward)
    for peer in options.peers:
        for algo in options.paddle_algos if peer == "paddle" else ["quantize"]:
            elapsed = _seconds(partial(_peer, job, peer, algo, output))
            _print(job, f"{peer} {algo}", elapsed, forward)


def _print(job: Job, run: str, seconds: float, forward: float) -> None:
    title = f"{job.name}, {len(job.images)} samples"
    print(f"{title:34} {run:16} {seconds:7.2f} {seconds / forward:6.2f}", flush=True)


def _forward(job: Job) -> None:
    predictor = make_predictor(*job.paths, "float", os.cpu_count() or 1)
    for batch in job.batches():
        run_batch(predictor, batch)


def _pyquant(job: Job, algo: str, output: Path) -> None:
    model, params = job.paths
    pyquant.quant_post_static(
        None,
        model.parent,
        output,
        data_loader=job.batches(),
        model_filename=model.name,
        params_filename=params.name,
        algo=algo,
    )


def _peer(job: Job, peer: str, algo: str, output: Path) -> None:
    if peer == "paddle":
        samples = [{job.input: image} for image in job.images]
        paddle_quantize(*job.paths, samples, _BATCH, algo, output / "paddle")
        return
    import nncf
    import openvino

    model = openvino.Core().read_model(job.paths[0])
    data = nncf.Dataset(job.batches())
    quantized = nncf.quantize(model, data, subset_size=len(job.batches()))
    openvino.save_model(quantized, output / "nncf.xml")


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _vision_job(name: str) -> Callable[[Path], Job]:
    def make(directory: Path) -> Job:
        images = np.random.default_rng(0).random((64, 3, 224, 224), np.float32)
        return Job(name, export_legacy(name, directory / name), "image", images)

    return make


def _recognition_job(_: Path) -> Job:
    images, _texts = render_lines(128, CALIBRATION_SEED)
    return Job("PP-OCRv4 recognition", models.model_paths(models.RECOGNITION), "x", images)


JOBS: dict[str, Callable[[Path], Job]] = {
    "mobilenet_v1": _vision_job("mobilenet_v1"),
    "recognition": _recognition_job,
    "resnet50": _vision_job("resnet50"),
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.calibration_speed", description=__doc__)
    parser.add_argument("jobs", nargs="*", default=list(JOBS), help=", ".join(JOBS))
    parser.add_argument("--algos", nargs="+", default=["abs_max", "KL"], choices=ALGORITHMS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=[], choices=_PEERS)
    parser.add_argument("--paddle-algos", nargs="+", default=["abs_max", "hist"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
