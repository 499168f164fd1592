"""Exports networks as ``.json`` and runs them: python tests/helpers/pir_export.py DIRECTORY.

This is a process of its own, because that of the tests has PIR switched off. For every network it
writes ``NAME.json`` and ``NAME.pdiparams``, and for every run by Paddle's Predictor, which runs the
program as it is, ``NAME.INDEX.npz``: the inputs by name, and the outputs in order.
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
from paddle_run import Arrays, predict
from pir_cases import CASES, FIXED_SHAPES, NETWORKS, integers, real, weights_of


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


def export(path: Path, network: Any, specs: list[Any], feeds: list[Arrays]) -> None:
    """Write ``path`` with every suffix."""
    network.eval()
    paddle.jit.save(paddle.jit.to_static(network, input_spec=specs, full_graph=True), str(path))
    for index, feed in enumerate(feeds):
        outputs = predict(path.with_suffix(".json"), path.with_suffix(".pdiparams"), feed)
        arrays = {f"output{number:03}": output for number, output in enumerate(outputs)}
        np.savez(path.with_suffix(f".{index}.npz"), **feed, **arrays)


def export_case(path: Path, name: str) -> None:
    function, inputs = CASES[name]
    network = (One, Two, Three)[len(inputs) - 1](function, weights_of(function, inputs))
    feed = dict(zip("xyz", inputs))
    dynamic = name not in FIXED_SHAPES
    specs = [
        InputSpec(
            [None, *array.shape[1:]] if dynamic and array.ndim > 1 else list(array.shape),
            str(array.dtype),
            name,
        )
        for name, array in feed.items()
    ]
    export(path, network, specs, [feed])


def export_network(path: Path, name: str) -> None:
    make, dims, shapes = NETWORKS[name]
    paddle.seed(0)
    network = make()
    dtype = "float32" if not hasattr(network, "embedding") else "int64"
    feeds = [
        {"x": real(*shape) if dtype == "float32" else integers(50, *shape)} for shape in shapes
    ]
    export(path, network, [InputSpec(dims, dtype, "x")], feeds)


def main(directory: Path) -> None:
    for index, name in enumerate(CASES):
        export_or_tell(export_case, directory / f"case{index}", name)
    for name in NETWORKS:
        export_or_tell(export_network, directory / name, name)


def export_or_tell(export: Callable[[Path, str], None], path: Path, name: str) -> None:
    try:
        export(path, name)
    except Exception:
        path.with_suffix(".error").write_text(traceback.format_exc())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
