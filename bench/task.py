"""A task of a model, and how well its variants perform it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from .methods import Run, Variant
from .source import Source
from .timing import median_seconds

Scores = Mapping[str, float]


@dataclass(frozen=True)
class Task:
    """A model, with test data that it was not calibrated on.

    Attributes:
        source: the float model.
        unit: what one sample is: a line, a page, an image.
        answer: returns a variant's answer to the test data.
        scores: returns names and values, in percent, for an answer; the second argument is the
            float model's answer.
        timed: the batch on which the latency is measured.
    """

    source: Source
    unit: str
    answer: Callable[[Run], Any]
    scores: Callable[[Any, Any], Scores]
    timed: NDArray[Any]


def measured(
    task: Task, variants: Sequence[Variant], rounds: int, missing: Mapping[str, str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Measure variants of a task's model.

    Args:
        task: the task that they perform.
        variants: float first.
        rounds: how many times each runs; latencies are medians, on one thread, taken in turns.
        missing: why other variants are missing, by their names.

    Returns:
        The header and the rows of a table; behind each score is its change against float, in
        points.
    """
    runs = {variant.name: variant.load() for variant in variants}
    answers = {name: task.answer(run) for name, run in runs.items()}
    in_float = variants[0].name
    scores = {name: task.scores(answer, answers[in_float]) for name, answer in answers.items()}
    seconds = median_seconds({name: partial(run, task.timed) for name, run in runs.items()}, rounds)
    latency = {name: 1000 * value / len(task.timed) for name, value in seconds.items()}
    costs = [f"ms/{task.unit}", "speed-up", "quantized in s", "peak MB", "bytes"]
    header = [task.source.name, *scores[in_float], *costs]
    rows = []
    for variant in variants:
        name = variant.name
        ratio = f"{latency[in_float] / latency[name]:.2f}"
        cells = [name, *_cells(scores[name], scores[in_float]), f"{latency[name]:.2f}", ratio]
        cells += [_number(variant.seconds, 2), _number(variant.megabytes, 0)]
        rows.append([*cells, f"{variant.bytes:,}"])
    for name, reason in (missing or {}).items():
        rows.append([name, reason, *[""] * (len(header) - 2)])
    return header, rows


def _cells(scores: Scores, in_float: Scores) -> list[str]:
    return [f"{value:.2f} ({value - in_float[name]:+.2f})" for name, value in scores.items()]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
