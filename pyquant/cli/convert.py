"""``pyquant convert``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .answer import Answer
from .arguments import add_model, renamed

if TYPE_CHECKING:
    from ..program.model import Model

HELP = "a Paddle 3 .json model as .pdmodel, in float"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_model(parser)
    parser.add_argument("output", type=Path, metavar="OUT", help="directory of the result")


def answer(options: dict[str, Any]) -> Answer:
    """Write the model as .pdmodel."""
    from ..program.misfusion import keep_apart
    from ..program.model import load_model

    output = options.pop("output")
    model = load_model(**renamed(options))
    keep_apart(model)
    paths = write(model, output)
    return Answer("\n".join(paths), {"files": paths})


def write(model: Model, directory: Path) -> list[str]:
    """Write a float model under the name that it had; return the paths of the files."""
    from ..program.model import save_model

    name = model.model_path.stem
    return [*map(str, save_model(model, directory, f"{name}.pdmodel", f"{name}.pdiparams"))]
