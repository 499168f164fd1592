"""PP-OCRv4 detection in float and quantized, on rendered pages: python -m bench.ocr.detection.

It is calibrated on some pages of 640 × 640 and tested on others, whose lines are at known places.
Scores are F1 of the boxes; boxes that overlap by half are the same. Times are of one thread, with
the variants in turns.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

from ..methods import PYQUANT, Run, float_variant, peer_methods, quantized
from ..paddle_ptq import ALGORITHMS
from ..report import Report, add_report
from ..source import Source
from ..task import Scores, Task, measured
from . import models
from .detector import f1_score, find_boxes
from .lines import CALIBRATION_SEED, TEST_SEED
from .pages import Boxes, Images, render_pages

_BATCH = 2  # of calibration


def main() -> None:
    """Print a table."""
    options = _options()
    task = detection_task(options.calibration_pages, options.test_pages)
    with tempfile.TemporaryDirectory() as temporary:
        variants = [float_variant(task.source)]
        for name, method in {**PYQUANT, **peer_methods(["paddle"], options.paddle)}.items():
            variants.append(quantized(name, method, task.source, Path(temporary)))
        Report(options.report).table(*measured(task, variants, options.rounds))


def detection_task(calibration_pages: int, test_pages: int) -> Task:
    """Return the task of finding lines on rendered pages."""
    calibration, _ = render_pages(calibration_pages, CALIBRATION_SEED)
    images, boxes = render_pages(test_pages, TEST_SEED)
    return Task(
        Source(
            "PP-OCRv4 detection", models.model_paths(models.DETECTION), "x", calibration, _BATCH
        ),
        "page",
        partial(_boxes, images),
        partial(_scores, boxes),
        images[:1],
    )


def _boxes(images: Images, run: Run) -> list[Boxes]:
    return [find_boxes(run(page[None])[0, 0]) for page in images]


def _scores(true: list[Boxes], found: list[Boxes], in_float: list[Boxes]) -> Scores:
    return {
        "F1 to float's boxes": 100 * f1_score(found, in_float),
        "F1 to true boxes": 100 * f1_score(found, true),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.ocr.detection", description=__doc__)
    parser.add_argument("--calibration-pages", type=int, default=16)
    parser.add_argument("--test-pages", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--paddle", nargs="*", default=[], choices=ALGORITHMS, help="compare Paddle's own PTQ"
    )
    add_report(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
