"""The files that pyquant writes of a ``.json`` load, and compute the same in every kind of run.

The model in data/shuffle/ shuffles channels of a dynamic batch by computed shapes. It was exported
once by Paddle 3.3.1, so that Paddle 2 is tested on it, too.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from model_forms import FORMS, check_runs
from programs import check_complete, random

from pyquant import load_model

SHUFFLE = Path(__file__).parent / "data/shuffle/shuffle.json"


@pytest.mark.parametrize("form", FORMS)
def test_computed_shapes(tmp_path: Path, form: str) -> None:
    check_runs(SHUFFLE, form, tmp_path, "image", random((4, 3, 6, 6)))


def test_ops_have_every_attribute() -> None:
    check_complete(load_model(SHUFFLE))
