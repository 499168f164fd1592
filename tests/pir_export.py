"""Exports networks as Paddle 3 ``.json`` models and runs them: python tests/pir_export.py DIRECTORY.

A process of its own, because the tests' own has PIR switched off. For every network it leaves
``NAME.json``, ``NAME.pdiparams`` and ``NAME.npz``: inputs by name, and outputs in order, of Paddle's
Predictor, which runs the program as it is.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.static import InputSpec
from paddle_run import predict
from pir_cases import CASES, FIXED_SHAPES, Case, weights_of


class One(paddle.nn.Layer):
    def __init__(self, function: Callable[..., Any], weights: list[Any]) -> None:
        super().__init__()
        self.function = function
        for index, weight in enumerate(weights):
            self.add_parameter(f"weight{index}", weight)

    def forward(self, x: Any) -> Any:
        return self.function(x)


class Two(One):
    def forward(self, x: Any, y: Any) -> Any:
        return self.function(x, y)


class Three(One):
    def forward(self, x: Any, y: Any, z: Any) -> Any:
        return self.function(x, y, z)


def export(path: Path, case: Case, dynamic: bool = True) -> None:
    """Write ``path`` with the three suffixes."""
    function, inputs = case
    network = function
    if not isinstance(function, paddle.nn.Layer):
        weights = weights_of(function, inputs)
        network = (One, Two, Three)[len(inputs) - 1](function, weights)
    network.eval()
    specs = [
        InputSpec([None, *array.shape[1:]] if dynamic and array.ndim > 1 else list(array.shape), str(array.dtype), name)
        for name, array in zip("xyz", inputs)
    ]
    paddle.jit.save(paddle.jit.to_static(network, input_spec=specs, full_graph=True), str(path))
    feed = dict(zip("xyz", inputs))
    outputs = predict(path.with_suffix(".json"), path.with_suffix(".pdiparams"), feed)
    arrays = {f"output{index}": output for index, output in enumerate(outputs)}
    np.savez(path.with_suffix(".npz"), **feed, **arrays)


def main(directory: Path) -> None:
    for index, (name, case) in enumerate(CASES.items()):
        try:
            export(directory / f"case{index}", case, name not in FIXED_SHAPES)
        except Exception:
            (directory / f"case{index}.error").write_text(f"{name}\n{traceback.format_exc()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
