"""``pyquant run``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .answer import Answer
from .arguments import add_isolation, add_model, add_samples, answer_isolated, positive, renamed
from .data import take_data

HELP = "the outputs of a model, quantized or not, and its time"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_model(parser)
    add_samples(parser)
    add_isolation(parser)
    parser.add_argument("--threads", type=positive, metavar="N", help="of the CPU (all)")
    parser.add_argument("-o", "--output", type=Path, help="also write the outputs, an .npz file")
    parser.add_argument(
        "--kernels", action="store_true", help="also show which oneDNN kernels ran, and their times"
    )


def answer(options: dict[str, Any]) -> Answer:
    """Run a model over the data."""
    return answer_isolated(_answer, options, "model")


def _answer(options: dict[str, Any]) -> Answer:
    from ..calibration.source import CalibrationData
    from ..deployment import deployed
    from ..errors import CalibrationDataError
    from ..plain import plain
    from ..program.model import load_model
    from ..program.predictor import all_cores, run_batch
    from ..verification.kernel_times import KernelTime, kernel_times

    where = options["data"]
    data = CalibrationData(
        take_data(options, options["model"]), options.pop("batch_size"), options.pop("batches")
    )
    output, threads, kernels = (options.pop(name) for name in ("output", "threads", "kernels"))
    model = load_model(**renamed(options))
    predictor = deployed(model, threads)
    seconds, outputs, times = [], list[Any](), list[KernelTime]()
    for number, feed in enumerate(data.feeds(model)):
        if kernels and not number:
            times = kernel_times(model, feed, threads or all_cores())
        start = time.perf_counter()
        outputs.append(run_batch(predictor, feed, number, str(model.model_path)))
        seconds.append(time.perf_counter() - start)
    if not outputs:
        raise CalibrationDataError(f"{where}: it yields nothing to run the model on.")
    joined = dict(zip(predictor.get_output_names(), map(_joined, zip(*outputs))))
    if output is not None:
        _write(output, joined)
    answered = {
        "model": str(model.model_path),
        "batches": len(seconds),
        "seconds_per_batch": median(seconds),
        "outputs": [_described(name, array) for name, array in joined.items()],
        "output": None if output is None else str(output),
        "kernels": plain(times),
    }
    return Answer("\n".join(_lines(answered, times)), plain(answered))


def _lines(answered: Mapping[str, Any], times: Sequence[Any]) -> Iterator[str]:
    from ..verification.kernel_times import shares

    for one in answered["outputs"]:
        spread = "{min:.6g} to {max:.6g}, mean {mean:.6g}" if "min" in one else "empty"
        yield f"output {one['name']} {one['dtype']}{one['shape']} {spread.format(**one)}"
    batches = answered["batches"]
    yield f"{1e3 * answered['seconds_per_batch']:.2f} ms a batch, median of {batches}"
    for one in times:
        name = f"{one.primitive} {one.implementation}"
        yield f"{one.milliseconds:9.3f} ms {one.runs:4} x {name:44} {one.types}"
    if times:
        yield f"kernels of the first batch: {shares(times)}"
    if answered["output"]:
        yield answered["output"]


def _described(name: str, array: Any) -> dict[str, Any]:
    described = {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
    if array.size:
        described.update(min=array.min(), max=array.max(), mean=array.mean())
    return described


def _joined(batches: Sequence[Any]) -> Any:
    """Return the outputs of several batches as one; raise UnsupportedError if their sizes vary."""
    import numpy as np

    from ..errors import UnsupportedError

    arrays = [np.atleast_1d(array) for array in batches]
    try:
        return np.concatenate(arrays)
    except ValueError as error:
        raise UnsupportedError(
            f"the outputs of batches differ in size ({error}). Give samples of one size."
        ) from error


def _write(output: Path, joined: Mapping[str, Any]) -> None:
    import numpy as np

    from ..program.output_files import OutputFiles

    with OutputFiles(output.parent) as files, files.open(output) as stream:
        np.savez(stream, **joined)
