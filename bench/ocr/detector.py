"""Finds boxes in the detection model's probability maps, and scores them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from .pages import Boxes

# PP-OCR's settings of DB (arXiv 1911.08947), and the least sides of its DBPostProcess.
_THRESHOLD = 0.3
_BOX_SCORE = 0.6
_UNCLIP = 1.5
_SHORTEST, _SHORTEST_UNCLIPPED = 3, 5
_NEIGHBOURS = np.ones((3, 3))  # with the diagonal ones, as in OpenCV's contours

_SAME = 0.5  # two boxes of at least this intersection over union are of one line


def find_boxes(probabilities: NDArray[Any]) -> Boxes:
    """Return the boxes, float64[n, 4], in one map of probabilities, [height, width].

    They are axis-aligned, like the lines of `render_pages`.
    """
    labels, _ = ndimage.label(probabilities > _THRESHOLD, _NEIGHBOURS)
    boxes = []
    for rows, columns in ndimage.find_objects(labels):
        box = np.array([columns.start, rows.start, columns.stop, rows.stop], np.float64)
        if _shorter_side(box) < _SHORTEST or probabilities[rows, columns].mean() < _BOX_SCORE:
            continue
        box = _unclipped(box, probabilities.shape)
        if _shorter_side(box) >= _SHORTEST_UNCLIPPED:
            boxes.append(box)
    return np.array(boxes).reshape(-1, 4)


def f1_score(found: Sequence[Boxes], expected: Sequence[Boxes]) -> float:
    """Return the F1 score of the boxes of several pages."""
    hits = sum(_matches(a, b) for a, b in zip(found, expected))
    return 2 * hits / (sum(map(len, found)) + sum(map(len, expected)))


def _unclipped(box: Boxes, shape: tuple[int, ...]) -> Boxes:
    """Grow a box within the page: the model was trained to find shrunk ones."""
    width, height = box[2:] - box[:2]
    distance = _UNCLIP * width * height / (2 * (width + height))
    page = [shape[1], shape[0], shape[1], shape[0]]
    grown: Boxes = np.clip(box + distance * np.array([-1, -1, 1, 1]), 0, page)
    return grown


def _shorter_side(box: Boxes) -> float:
    return float((box[2:] - box[:2]).min())


def _matches(a: Boxes, b: Boxes) -> int:
    """Count the pairs in the largest one-to-one matching of boxes that are the same."""
    pairs = maximum_bipartite_matching(csr_matrix(_overlaps(a, b) >= _SAME))
    return int((pairs >= 0).sum())


def _overlaps(a: Boxes, b: Boxes) -> NDArray[Any]:
    """Return the intersection over union of each of ``a`` with each of ``b``."""
    start = np.maximum(a[:, None, :2], b[None, :, :2])
    stop = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (stop - start).clip(0).prod(-1)
    overlaps: NDArray[Any] = common / (_areas(a)[:, None] + _areas(b)[None] - common)
    return overlaps


def _areas(boxes: Boxes) -> NDArray[Any]:
    areas: NDArray[Any] = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return areas
