"""How much noise in its weights the float recognition model bears: what a point of lines is worth.

Each weight is multiplied by 1 + NOISE * a normal number. Rounding to 8 bits changes weights more
than the noise at which the model begins to lose or gain lines.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pyquant import load_model, save_model

from ..predictor import make_predictor, run_batch
from ..report import Report, add_report
from . import models
from .lines import render_lines
from .recognizer import line_accuracy, read_lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the accuracy of the model by the noise, over the draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=300)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--noises", type=float, nargs="+", default=[0.0, 0.001, 0.003])
    add_report(parser)
    given = parser.parse_args(arguments)
    header = ("noise in the float weights", "lines read right, of 100", "mean")
    Report(given.report).table(header, _rows(given))


def _rows(given: argparse.Namespace) -> Iterator[Sequence[str]]:
    images, texts = render_lines(given.lines, 2)
    for noise in given.noises:
        found = [100 * _accuracy(noise, draw, images, texts) for draw in range(given.draws)]
        shown = f"{min(found):.1f} to {max(found):.1f}"
        yield f"{100 * noise:.1f} %", shown, f"{np.mean(found):.1f}"


def _accuracy(noise: float, draw: int, images: Any, texts: list[str]) -> float:
    path, _ = models.model_paths(models.RECOGNITION)
    model, random = load_model(path.parent, path.name), np.random.default_rng(draw)
    for name, array in model.parameters.items():
        if array.ndim > 1:
            factors = 1 + noise * random.standard_normal(array.shape)
            model.parameters[name] = (array * factors).astype(array.dtype)
    with TemporaryDirectory() as directory:
        paths = save_model(model, Path(directory), "model.pdmodel", "model.pdiparams")
        predictor = make_predictor(paths[0], paths[1], "float", 1)
    read = read_lines(partial(run_batch, predictor), images, models.characters())
    return line_accuracy(read, texts)


if __name__ == "__main__":
    main()
