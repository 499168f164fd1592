"""Reads rendered lines, and scores the readings."""

from __future__ import annotations

import statistics
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..methods import Run
from ..source import Source
from ..task import Scores, Task
from . import models
from .lines import BATCH, CALIBRATION_SEED, TEST_SEED, render_lines

Images = NDArray[np.float32]


def recognition_task(
    calibration_lines: int, test_lines: int, calibration_seed: int = CALIBRATION_SEED
) -> Task:
    """Return the task of reading rendered lines."""
    calibration, _ = render_lines(calibration_lines, calibration_seed)
    images, texts = render_lines(test_lines, TEST_SEED)
    return Task(
        Source(
            "PP-OCRv4 recognition", models.model_paths(models.RECOGNITION), "x", calibration, BATCH
        ),
        "line",
        partial(read_lines, images=images, classes=models.characters()),
        partial(_scores, texts),
        images[:BATCH],
    )


def read_lines(run: Run, images: Images, classes: list[str], batch: int = 16) -> list[str]:
    """Return the text of every image, by greedy CTC decoding."""
    texts = []
    for start in range(0, len(images), batch):
        for steps in run(images[start : start + batch]).argmax(axis=2):
            kept = steps[np.insert(steps[1:] != steps[:-1], 0, True)]
            texts.append("".join(classes[index] for index in kept))
    return texts


def line_accuracy(read: list[str], texts: list[str]) -> float:
    """Return the share of lines read without a mistake."""
    return statistics.fmean(a == b for a, b in zip(read, texts))


def without_spaces(texts: list[str]) -> list[str]:
    """Drop spaces: even in float, the model adds and misses some at the ends of lines."""
    return [text.replace(" ", "") for text in texts]


def character_accuracy(read: list[str], texts: list[str]) -> float:
    """Return 1 - edit distance / length over all lines."""
    errors = sum(_edit_distance(a, b) for a, b in zip(read, texts))
    return 1 - errors / sum(map(len, texts))


def _scores(texts: list[str], read: list[str], _: list[str]) -> Scores:
    return {
        "lines right": 100 * line_accuracy(read, texts),
        "without spaces": 100 * line_accuracy(without_spaces(read), without_spaces(texts)),
        "characters": 100 * character_accuracy(read, texts),
    }


def _edit_distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]
