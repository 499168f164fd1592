"""The scoring of the detection bench."""

from __future__ import annotations

import numpy as np
import pytest

from bench.ocr.detector import f1_score, find_boxes
from bench.ocr.pages import render_pages

pytestmark = pytest.mark.any_isa


def test_a_box_is_found_and_grown():
    probabilities = np.zeros((64, 96), np.float32)
    probabilities[20:30, 10:50] = 0.9
    grown = 1.5 * 40 * 10 / (2 * (40 + 10))
    expected = [[10 - grown, 20 - grown, 50 + grown, 30 + grown]]
    np.testing.assert_allclose(find_boxes(probabilities), expected)


def test_a_box_stays_on_the_page():
    probabilities = np.ones((64, 96), np.float32)
    np.testing.assert_allclose(find_boxes(probabilities), [[0, 0, 96, 64]])


@pytest.mark.parametrize(("height", "probability"), [(10, 0.5), (2, 0.9), (10, 0.2)])
def test_weak_and_thin_boxes_are_none(height, probability):
    probabilities = np.zeros((64, 96), np.float32)
    probabilities[20 : 20 + height, 10:50] = probability
    assert find_boxes(probabilities).shape == (0, 4)


def test_f1_counts_each_box_once():
    line, other = [0.0, 0.0, 40.0, 10.0], [0.0, 30.0, 40.0, 40.0]
    half = [0.0, 0.0, 40.0, 5.0]  # overlaps by exactly half
    less = [0.0, 0.0, 40.0, 4.9]
    expected = [np.array([line, other])]
    assert f1_score(expected, expected) == 1
    assert f1_score([np.array([line, line, other])], expected) == 4 / 5
    assert f1_score([np.array([half])], expected) == 2 / 3
    assert f1_score([np.array([less])], expected) == 0
    assert f1_score([np.zeros((0, 4))], expected) == 0


def test_lines_of_a_page_do_not_overlap():
    _, pages = render_pages(4, seed=3)
    for boxes in pages:
        covered = np.zeros((640, 640), int)
        for left, top, right, bottom in boxes.astype(int):
            assert 0 <= left < right <= 640
            assert 0 <= top < bottom <= 640
            covered[top:bottom, left:right] += 1
        assert covered.max() == 1
        assert len(boxes) > 2
