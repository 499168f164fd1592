"""Models quantized by static mode beside their float files, and the errors of their runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paddle_run import relative_error, run

from pyquant import QuantizationResult, quant_post_static

# How to run a model of each form here.
RUN = {"QDQ": "int8", "OneDNN": "float", "TensorRT": "plain", "ARM": "plain"}


def quantized(directory: Path, batches: Iterable[Any], **options: Any) -> QuantizationResult:
    """Quantize the model in ``directory / "float"``, into ``directory / "int8"``.

    As it is planned: tests run the result themselves, and see what it costs.
    """
    source, output = directory / "float", directory / "int8"
    return quant_post_static(None, source, output, data_loader=batches, verify=False, **options)


def error_of(directory: Path, data: Any, how: str) -> float:
    """Return the relative error of the first int8 output against float; "x" is ``data``."""
    expected = run(directory / "float", {"x": data})[0]
    return relative_error(run(directory / "int8", {"x": data}, how)[0], expected)


def model_bytes(directory: Path) -> bytes:
    """Return the files of a written model, without pyquant.json, which has measured times."""
    files = sorted(path for path in directory.iterdir() if path.name != "pyquant.json")
    return b"".join(path.read_bytes() for path in files)
