"""Networks quantized to oneDNN's int8 ops, and their runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import paddle_run
import programs
import static_runs
from programs import Net
from simulated_run import disagreement

from pyquant import load_model


def images(seed: int = 0, dims: tuple[int, ...] = (4, 8, 12, 12)) -> Any:
    return programs.random(dims, seed)


def quantized(net: Net, directory: Path, data: Any, **options: Any) -> Any:
    net.save(directory / "float")
    batches = [data, data * np.float32(0.5)]
    return static_runs.quantized(directory, batches, deploy_backend="OneDNN", **options)


def op_types(directory: Path) -> Counter[str]:
    ops = load_model(directory / "int8").ops()
    return Counter(op.type for op in ops if op.type not in ("feed", "fetch"))


def check_run(directory: Path, data: Any, error: float = 0.03) -> None:
    """Check the int8 run against float and its simulation; every switch must give the same."""
    expected = paddle_run.run(directory / "float", {"x": data})
    runs = [paddle_run.run(directory / "int8", {"x": data}, how) for how in ("float", "int8")]
    for given, *actual in zip(expected, *runs):
        assert paddle_run.relative_error(actual[0], given) < error
        np.testing.assert_array_equal(*actual)
    model = load_model(directory / "int8")
    found = disagreement(model, model, {"x": data}, directory / "simulated")
    assert found.is_rounding, found
