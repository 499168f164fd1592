"""A decoder of Llama's shapes quantized as a whole and in segments: python -m bench.sequential.

Weights are random. Every run is a process of its own, whose peak resident memory is measured. The
forward is that of Paddle's Predictor with oneDNN and every optimization. With ``--kills``, the run
with a limit is killed at random moments and called again each time.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import pyquant
from pyquant.program.model import load_model
from pyquant.program.predictor import Optimization, all_cores, make_predictor, run_outputs

from .big_weights import write_decoder
from .child import in_child
from .report import Report, add_report

_WORDS = 32000
Run = Callable[..., tuple[float, str]]
"""Takes the source, a directory for the result, and the options; returns seconds and a digest."""


def main() -> None:
    """Print a row per run."""
    options = _options()
    source = options.directory / f"fp32-{options.gigabytes:g}"
    if not (source / "model.pdmodel").exists():
        write_decoder(source, int(options.gigabytes * 1e9), "fp32")
    digests = set[str]()
    report = Report(options.report)
    report.table(("weights", "run", "time, s", "peak memory, MB"), _rows(source, options, digests))
    report.lines("", "the same bytes" if len(digests) == 1 else f"different bytes: {digests}")


def _rows(source: Path, options: argparse.Namespace, digests: set[str]) -> Iterator[Sequence[str]]:
    """Yield a row per run, and add the digests of the results."""
    size = f"{(source / 'model.pdiparams').stat().st_size / 1e9:.2f} GB"
    limited = partial(_quantize, memory_limit=options.limit)
    runs: dict[str, Run] = {
        "forward": _forward,
        "as a whole": _quantize,
        f"limit of {options.limit}": limited,
    }
    for name, run in runs.items():
        if name.split()[0] in options.skip:
            continue
        (seconds, digest), peak = in_child(run, source, options.directory / "out", options)
        digests |= {digest} - {""}
        yield size, name, f"{seconds:.1f}", f"{peak:.0f}"
    if options.kills:
        seconds, digest = _killed(limited, source, options)
        digests.add(digest)
        yield size, f"{options.kills} kills", f"{seconds:.1f}", ""


def _forward(source: Path, _: Path, options: argparse.Namespace) -> tuple[float, str]:
    start = time.perf_counter()
    predictor = make_predictor(load_model(source), Optimization.FUSED, all_cores())
    for tokens in _batches(options):
        run_outputs(predictor, {"tokens": tokens})
    return time.perf_counter() - start, ""


def _quantize(
    source: Path, output: Path, options: argparse.Namespace, **given: Any
) -> tuple[float, str]:
    start = time.perf_counter()
    pyquant.quant_post_static(
        None, source, output, data_loader=_batches(options), verify=False, **given
    )
    seconds = time.perf_counter() - start
    digest = hashlib.sha256()
    for path in (output / "model.pdmodel", output / "model.pdiparams"):
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 24):
                digest.update(chunk)
    shutil.rmtree(output)
    return seconds, digest.hexdigest()


def _killed(run: Run, source: Path, options: argparse.Namespace) -> tuple[float, str]:
    """Return how long a run takes that is killed again and again, and the digest of its result."""
    checkpoint = options.directory / "state.npz"
    checkpoint.unlink(missing_ok=True)
    context = multiprocessing.get_context("spawn")
    generator = random.Random(options.seed)
    start = time.perf_counter()
    given = partial(run, checkpoint=checkpoint)
    for _ in range(options.kills):
        process = context.Process(target=given, args=(source, options.directory / "out", options))
        process.start()
        process.join(generator.uniform(0, options.seconds))
        process.kill()
        process.join()
    (_, digest), _ = in_child(given, source, options.directory / "out", options)
    seconds = time.perf_counter() - start
    checkpoint.unlink()
    return seconds, digest


def _batches(options: argparse.Namespace) -> list[Any]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, _WORDS, options.shape) for _ in range(options.batches)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.sequential", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--limit", default="2GB")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--shape", type=int, nargs=2, default=[4, 128])
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60, help="kills come within as many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", nargs="*", default=[], choices=("forward", "as", "limit"))
    parser.add_argument("--directory", type=Path, default=Path("big-weights"))
    add_report(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
