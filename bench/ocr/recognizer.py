"""Running the recognition model, and scoring what it reads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..predictor import run_batch

Images = NDArray[np.float32]


def read_lines(predictor: Any, images: Images, classes: list[str], batch: int = 16) -> list[str]:
    """Return the text of every image, by greedy CTC decoding."""
    texts = []
    for start in range(0, len(images), batch):
        for steps in run_batch(predictor, images[start : start + batch]).argmax(axis=2):
            kept = steps[np.insert(steps[1:] != steps[:-1], 0, True)]
            texts.append("".join(classes[index] for index in kept))
    return texts


def line_accuracy(read: list[str], texts: list[str]) -> float:
    """Return the share of lines read without a mistake."""
    return statistics.fmean(a == b for a, b in zip(read, texts))


def without_spaces(texts: list[str]) -> list[str]:
    """Drop spaces, which the model adds and misses at the ends of lines even in float."""
    return [text.replace(" ", "") for text in texts]


def character_accuracy(read: list[str], texts: list[str]) -> float:
    """Return 1 - edit distance / length over all lines."""
    errors = sum(_edit_distance(a, b) for a, b in zip(read, texts))
    return 1 - errors / sum(map(len, texts))


def milliseconds_per_line(
    predictors: Mapping[str, Any], images: Images, rounds: int = 9
) -> dict[str, float]:
    """Return the median time per line of each predictor, measured in turns."""
    times: dict[str, list[float]] = {name: [] for name in predictors}
    for _ in range(rounds + 1):
        for name, predictor in predictors.items():
            start = time.perf_counter()
            run_batch(predictor, images)
            times[name].append((time.perf_counter() - start) * 1000 / len(images))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def _edit_distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]
