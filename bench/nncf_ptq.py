"""NNCF's PTQ: OpenVINO reads the model as Paddle wrote it, and runs the result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .source import Source

# NNCF reads this when it is imported, and then starts no processes to report its use.
os.environ.setdefault("NNCF_CI", "1")


def quantize(source: Source, output: Path) -> tuple[Path, Path]:
    """Write the model that NNCF quantizes; return its graph and its parameters."""
    import nncf
    import openvino

    batches = source.batches()
    model = openvino.Core().read_model(source.paths[0])
    quantized = nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches))
    path = output / "nncf.xml"
    openvino.save_model(quantized, path)
    return path, path.with_suffix(".bin")


class Runner:
    """A model that OpenVINO runs, on one thread."""

    def __init__(self, model_path: Path) -> None:
        import openvino

        core = openvino.Core()
        self._model = core.compile_model(model_path, "CPU", {"INFERENCE_NUM_THREADS": 1})

    def __call__(self, images: NDArray[Any]) -> Any:
        """Return the first output for one batch of the only input."""
        return self._model(images)[0]
