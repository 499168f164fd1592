"""``pyquant merge``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .answer import Answer
from .calibrate import saved

HELP = "join several calibrations of a model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("calibrations", type=Path, nargs="+", help="what calibrate wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help="an .npz file")


def answer(options: dict[str, Any]) -> Answer:
    """Merge, and save the statistics of all data."""
    from ..calibration.state import Calibration

    merged = Calibration.merge(map(Calibration.load, options["calibrations"]))
    merged.save(options["output"])
    return saved(options["output"], merged)
