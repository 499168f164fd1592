"""Comparing models on lines that calibration did not see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pyquant.result import file_bytes

from ..predictor import make_predictor
from . import models
from .lines import BATCH, TEST_SEED, render_lines
from .recognizer import (
    character_accuracy,
    line_accuracy,
    milliseconds_per_line,
    read_lines,
    without_spaces,
)


class Variant(NamedTuple):
    """A model to be compared: its files, how it runs, and what quantizing it took."""

    name: str
    model_path: Path
    params_path: Path
    run: str
    seconds: float | None = None


def print_scores(variants: Sequence[Variant], test_lines: int) -> None:
    """Print size, accuracy and latency of every variant; the latencies are measured in turns."""
    images, texts = render_lines(test_lines, TEST_SEED)
    classes = models.characters()
    predictors = {
        variant.name: make_predictor(variant.model_path, variant.params_path, variant.run)
        for variant in variants
    }
    times = milliseconds_per_line(predictors, images[:BATCH])
    print(
        f"{'model':16}{'bytes':>12}{'lines':>8}{'no spaces':>11}{'characters':>12}{'ms/line':>9}"
        f"{'quantized in':>14}"
    )
    for variant in variants:
        read = read_lines(predictors[variant.name], images, classes)
        size = file_bytes((variant.model_path, variant.params_path))
        loosely = line_accuracy(without_spaces(read), without_spaces(texts))
        seconds = "" if variant.seconds is None else f"{variant.seconds:.2f} s"
        print(
            f"{variant.name:16}{size:12,}{line_accuracy(read, texts):8.3f}{loosely:11.3f}"
            f"{character_accuracy(read, texts):12.3f}{times[variant.name]:9.1f}{seconds:>14}",
            flush=True,
        )
