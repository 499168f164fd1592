"""A float model to be quantized."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .predictor import make_predictor, run_batch


@dataclass(frozen=True)
class Source:
    """A float model with one input, and its calibration data.

    Attributes:
        name: as printed.
        paths: program and parameters.
        input: the name of the input.
        images: float32, samples first.
        batch: how many of them are run at a time.
    """

    name: str
    paths: tuple[Path, Path]
    input: str
    images: NDArray[Any]
    batch: int

    def batches(self) -> list[NDArray[Any]]:
        """Return the images as batches."""
        return [self.images[i : i + self.batch] for i in range(0, len(self.images), self.batch)]


def forward(source: Source) -> None:
    """Load the model and run it over the images, on all cores: the baseline of quantizing."""
    predictor = make_predictor(*source.paths, "float", os.cpu_count() or 1)
    for batch in source.batches():
        run_batch(predictor, batch)
