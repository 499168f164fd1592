"""Peak memory of static quantization against the forward alone: python -m bench.calibration_memory.

Every run is a process of its own. The forward is that of Paddle's Predictor with oneDNN and every
optimisation; both are given the same two batches.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import pyquant
from pyquant.calibration.thresholds import ALGORITHMS

from .calibration_speed import JOBS, Job
from .predictor import make_predictor, run_batch

_ROUNDS = 2


def main() -> None:
    """Print a line per run."""
    options = _options()
    if options.run is not None:
        _run_here(options)
        return
    print(f"{'job':24} batch {'run':16}      MB  ratio")
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.jobs:
            job = JOBS[name](Path(temporary))
            for batch in options.batches:
                forward = _peak(job, batch, "forward")
                for run in ("forward", *options.algos):
                    peak = forward if run == "forward" else _peak(job, batch, run)
                    print(f"{job.name:24} {batch:5} {run:16} {peak:7.0f} {peak / forward:6.2f}")


def _peak(job: Job, batch: int, run: str) -> float:
    """Return the peak memory of a run in megabytes, the least of several."""
    shape = [str(size) for size in (batch, *job.images.shape[1:])]
    command = [sys.executable, "-m", "bench.calibration_memory", "--run", run]
    command += ["--model", str(job.paths[0]), "--input", job.input, "--shape", *shape]
    runs = [
        subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(_ROUNDS)
    ]
    return min(float(done.stdout.split()[-1]) for done in runs)


def _run_here(options: argparse.Namespace) -> None:
    model = options.model
    params = model.with_suffix(".pdiparams")
    generator = np.random.default_rng(0)
    batches: Any = [generator.random(options.shape, np.float32) for _ in range(2)]
    if options.run == "forward":
        predictor = make_predictor(model, params, "float", os.cpu_count() or 1)
        for batch in batches:
            run_batch(predictor, batch)
    else:
        with tempfile.TemporaryDirectory() as output:
            pyquant.quant_post_static(
                None,
                model.parent,
                output,
                data_loader=batches,
                model_filename=model.name,
                params_filename=params.name,
                algo=options.run,
            )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.calibration_memory", description=__doc__)
    parser.add_argument("jobs", nargs="*", default=list(JOBS), help=", ".join(JOBS))
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 48])
    parser.add_argument("--algos", nargs="+", default=["abs_max", "KL"], choices=ALGORITHMS)
    for hidden in ("--run", "--input"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
