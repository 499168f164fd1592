"""pyquant, Paddle's own PTQ and NNCF in one table: python -m bench.peers [TASK ...].

All get the same float model and the same calibration data, each in a process of its own, whose peak
memory is measured; the float model's is that of its forward over the same data. The results are
then measured in one process, on data that calibration did not see. Times are of one thread, with
the variants in turns. OpenVINO runs NNCF's models with its own defaults: float ops in bf16 if the
processor has it. Paddle's Predictor with oneDNN runs all others, in fp32. Packages that are not
installed are named.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .accuracy.networks import RECIPES
from .accuracy.task import classification_task, fashion_mnist_classifier
from .child import in_child
from .methods import NNCF, PEERS, PYQUANT, Method, Variant, float_variant, peer_methods, quantized
from .ocr.detection import detection_task
from .ocr.lines import CALIBRATION_SEED
from .ocr.recognizer import recognition_task
from .paddle_ptq import ALGORITHMS
from .report import Report, add_report
from .source import forward
from .task import Task, measured

_BATCH = 32  # of the classifiers' calibration


def main() -> None:
    """Print a table per task."""
    options = _options()
    methods = {**PYQUANT, **peer_methods(options.peers, options.paddle_algos)}
    report = Report(options.report)
    for name in options.tasks:
        with tempfile.TemporaryDirectory() as temporary:
            output = Path(temporary)
            task = _TASKS[name](options, output / "float")
            variants, missing = _quantized(task, methods, options.timeout, output)
            report.table(*measured(task, variants, options.rounds, missing))


def _quantized(
    task: Task, methods: Mapping[str, Method], timeout: float, output: Path
) -> tuple[list[Variant], dict[str, str]]:
    """Quantize with every method.

    Returns:
        The variants, float first, and why others are missing.
    """
    variants = [replace(float_variant(task.source), megabytes=in_child(forward, task.source)[1])]
    missing = {}
    for name, method in methods.items():
        if method.absent:
            missing[name] = f"not installed: {', '.join(method.absent)}"
            continue
        try:
            arguments = (quantized, name, method, task.source, output)
            variant, megabytes = in_child(*arguments, timeout=timeout)
            in_child(_run, variant, task.timed)
        except (ChildProcessError, TimeoutError) as error:
            missing[name] = str(error)
            continue
        if name == NNCF:
            variants.append(Variant("float, by OpenVINO", task.source.paths, variant.run))
        variants.append(replace(variant, megabytes=megabytes))
    return variants, missing


def _run(variant: Variant, images: NDArray[Any]) -> None:
    """Show that a variant runs, in a process that may crash."""
    variant.load()(images)


def _recognition(options: argparse.Namespace, _: Path) -> Task:
    return recognition_task(options.calibration_lines, options.test_lines, options.calibration_seed)


def _detection(options: argparse.Namespace, _: Path) -> Task:
    return detection_task(options.calibration_pages, options.test_pages)


def _classification(network: str, options: argparse.Namespace, directory: Path) -> Task:
    classifier = fashion_mnist_classifier(network, options.calibration_images)
    return classification_task(classifier, _BATCH, directory)


_TASKS: Mapping[str, Callable[[argparse.Namespace, Path], Task]] = {
    "recognition": _recognition,
    "detection": _detection,
    **{name: partial(_classification, name) for name in RECIPES},
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(_TASKS))
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS)
    parser.add_argument("--paddle-algos", nargs="+", default=ALGORITHMS, choices=ALGORITHMS)
    parser.add_argument(
        "--timeout", type=float, default=900, metavar="SECONDS", help="of each method"
    )
    parser.add_argument("--calibration-lines", type=int, default=32, help="of recognition")
    parser.add_argument(
        "--calibration-seed", type=int, default=CALIBRATION_SEED, help="of the text of these lines"
    )
    parser.add_argument("--test-lines", type=int, default=1000)
    parser.add_argument("--calibration-pages", type=int, default=16, help="of detection")
    parser.add_argument("--test-pages", type=int, default=200)
    parser.add_argument("--calibration-images", type=int, default=256, help="of a classifier")
    parser.add_argument("--rounds", type=int, default=15)
    add_report(parser)
    options = parser.parse_args()
    options.tasks = options.tasks or ["recognition", "detection", "mobilenet_v1"]
    unknown = set(options.tasks) - set(_TASKS)
    if unknown:
        parser.error(f"no such task: {', '.join(unknown)}; choose among {', '.join(_TASKS)}")
    return options


if __name__ == "__main__":
    main()
