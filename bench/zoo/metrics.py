"""How well a network does its task, in per cent.

Each takes the outputs of a variant and those of the float network, both by batch and output, and
the true answers, if there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ocr.detector import f1_score, find_boxes
from ..ocr.recognizer import character_accuracy

Array = NDArray[Any]
Outputs = Sequence[Sequence[Array]]
Metric = Callable[[Outputs, Outputs, Any], float]


@dataclass(frozen=True)
class Decoded:
    """Variants and float compared by what `decode` makes of the outputs of a batch.

    Attributes:
        decode: returns a list of answers for one batch.
        score: compares two lists of answers.
        true: whether the answers are compared with the true ones, not with float's.
    """

    decode: Callable[[Sequence[Array]], list[Any]]
    score: Callable[[list[Any], list[Any]], float]
    true: bool = False

    def __call__(self, outputs: Outputs, reference: Outputs, truth: Any) -> float:
        """Return the score in per cent."""
        found = self._answers(outputs)
        return 100 * self.score(found, list(truth) if self.true else self._answers(reference))

    def _answers(self, outputs: Outputs) -> list[Any]:
        return [answer for batch in outputs for answer in self.decode(batch)]


def classes(batch: Sequence[Array]) -> list[Any]:
    """Return the class of each sample by the last output."""
    return list(batch[-1].argmax(-1))


def texts(time_first: bool = False, letters: Sequence[str] | None = None) -> Any:
    """Return a greedy CTC decoder to texts, of letters or of private-use characters."""

    def decode(batch: Sequence[Array]) -> list[Any]:
        steps = batch[0].argmax(-1)
        return [_text(line, letters) for line in (steps.T if time_first else steps)]

    return decode


def _text(steps: Array, letters: Sequence[str] | None) -> str:
    kept = steps[np.insert(steps[1:] != steps[:-1], 0, True)]
    if letters is None:
        return "".join(chr(0xF0000 + index) for index in kept if index)
    return "".join(letters[index] for index in kept)


def same(found: list[Any], expected: list[Any]) -> float:
    """Return the share of answers that are the same."""
    return float(np.mean([a == b for a, b in zip(found, expected)]))


def characters(found: list[Any], expected: list[Any]) -> float:
    """Return 1 - edit distance / length."""
    return character_accuracy(found, expected)


def boxes_of_map(batch: Sequence[Array]) -> list[Any]:
    """Return the boxes in each map of probabilities."""
    return [find_boxes(one[0]) for one in batch[0]]


def masks(level: float, outputs: slice = slice(None)) -> Metric:
    """Return the intersection over union of what is above ``level`` in some of the outputs."""

    def score(found: Outputs, reference: Outputs, _: Any) -> float:
        common = either = 0
        for batch, expected in zip(found, reference):
            for one, other in zip(batch[outputs], expected[outputs]):
                common += int(((one > level) & (other > level)).sum())
                either += int(((one > level) | (other > level)).sum())
        return 100 * common / max(either, 1)

    return score


def within(tolerance: float, output: int = 0) -> Metric:
    """Return the share of the values of an output that differ from float's by less."""

    def score(outputs: Outputs, reference: Outputs, _: Any) -> float:
        pairs = zip(outputs, reference)
        near = [np.abs(one[output] - other[output]).ravel() < tolerance for one, other in pairs]
        return 100 * float(np.mean(np.concatenate(near)))

    return score


def cosine(outputs: Outputs, reference: Outputs, _: Any) -> float:
    """Return the mean cosine of the first output's rows to float's."""
    rows = [np.concatenate([batch[0] for batch in one]) for one in (outputs, reference)]
    products = (rows[0] * rows[1]).sum(-1)
    lengths = np.linalg.norm(rows[0], axis=-1) * np.linalg.norm(rows[1], axis=-1)
    return 100 * float(np.mean(products / lengths))


def yolo_boxes(batch: Sequence[Array]) -> list[Any]:
    """Return the boxes of YOLOv8's output, [images, 4 + classes, places]."""
    return [_suppressed(_corners(one[:4].T), one[4:].max(0), 0.25) for one in batch[0]]


def yolox_boxes(batch: Sequence[Array], size: int = 416) -> list[Any]:
    """Return the boxes of YOLOX's output, [images, places, 4 + 1 + classes]."""
    centres, strides = _places(size, size, (8, 16, 32), 0.0)
    found = []
    for one in batch[0]:
        boxes = np.concatenate([one[:, :2] * strides + centres, np.exp(one[:, 2:4]) * strides], 1)
        found.append(_suppressed(_corners(boxes), one[:, 4] * one[:, 5:].max(1), 0.1))
    return found


def picodet_boxes(batch: Sequence[Array]) -> list[Any]:
    """Return the boxes of PicoDet: scores, then distances to the sides, by strides."""
    centres, strides = _places(608, 800, (8, 16, 32, 64), 0.5)
    scores, sides = (np.concatenate(part, 1) for part in (batch[:4], batch[4:]))
    shares = np.exp(sides.reshape(*sides.shape[:2], 4, 8))
    distances = (shares / shares.sum(-1, keepdims=True) * np.arange(8)).sum(-1) * strides
    found = []
    for one, score in zip(distances, scores):
        boxes = np.concatenate([centres - one[:, :2], centres + one[:, 2:]], 1)
        found.append(_suppressed(boxes, score.max(1), 0.4))
    return found


def box_f1(found: list[Any], expected: list[Any]) -> float:
    """Return F1 of boxes that overlap by half."""
    return f1_score(found, expected) if sum(map(len, [*found, *expected])) else 1.0


def _corners(boxes: Array) -> Array:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def _places(width: int, height: int, strides: Sequence[int], shift: float) -> tuple[Array, Array]:
    """Return the points that a detector's outputs are of, and their strides."""
    centres, sizes = [], []
    for stride in strides:
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = np.mgrid[:rows, :columns]
        centres.append((np.stack([x.ravel(), y.ravel()], 1) + shift) * stride)
        sizes.append(np.full((rows * columns, 1), stride))
    return np.concatenate(centres), np.concatenate(sizes)


def _suppressed(boxes: Array, scores: Array, least: float, overlap: float = 0.45) -> Array:
    """Return the boxes of the highest scores, without those that overlap a better one."""
    order = [index for index in np.argsort(-scores) if scores[index] >= least]
    kept: list[Any] = []
    for index in order:
        box = boxes[index]
        if all(_overlap(box, other) < overlap for other in kept):
            kept.append(box)
    return np.array(kept, np.float64).reshape(-1, 4)


def _overlap(a: Array, b: Array) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(sides.clip(0).prod())
    areas = float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod())
    return common / max(areas - common, 1e-9)
