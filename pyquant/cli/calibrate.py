"""``pyquant calibrate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .answer import Answer
from .arguments import add_calibration, add_model, add_ops, renamed, settle_process
from .choices import ACTIVATION_OP_TYPES
from .data import take_data

if TYPE_CHECKING:
    from ..calibration.state import Calibration

HELP = "statistics over data, for static and merge"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_model(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, help="an .npz file")
    add_ops(parser, ACTIVATION_OP_TYPES)
    add_calibration(parser)
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="take only every N-th batch, from the I-th on, counted from 0",
    )


def answer(options: dict[str, Any]) -> Answer:
    """Calibrate, and save the statistics."""
    from ..calibrating import calibrate

    output = options.pop("output")
    settle_process(options)
    options.update(take_data(options, options["model"]))
    calibration = calibrate(**renamed(options))
    calibration.save(output)
    return saved(output, calibration)


def saved(path: Path, calibration: Calibration) -> Answer:
    """Say what a saved calibration holds."""
    batches, tensors = calibration.batches, len(calibration.statistics)
    return Answer(
        f"{path}: {batches} batches, histograms of {tensors} activations",
        {"calibration": str(path), "batches": batches, "activations": tensors},
    )


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"{text}: expected I/N, such as 0/4 for the first of four")
    return int(number), int(count)
