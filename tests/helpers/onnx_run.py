"""Runs of ONNX files in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

Array = np.ndarray[Any, Any]


def run_onnx(path: Path, feed: Mapping[str, Array]) -> list[Array]:
    """Check a file as ONNX's own checker does, with its shapes, and run it."""
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    return session.run(None, {one.name: feed[one.name] for one in session.get_inputs()})


def check_near(actual: Array, expected: Array) -> None:
    """Expect integers to be the same, and others to be within 1e-5 of the largest, or of one."""
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected)
        return
    finite = expected[np.isfinite(expected)]
    largest = max(1.0, np.abs(finite).max(initial=0))
    np.testing.assert_allclose(actual / largest, expected / largest, rtol=0, atol=1e-5)


def run_unoptimized(path: Path, feed: Mapping[str, Array]) -> list[Array]:
    """Run a file op by op, as it stands."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    return session.run(None, {one.name: feed[one.name] for one in session.get_inputs()})


def runtime_nodes(path: Path, directory: Path) -> list[str]:
    """Return the types of the nodes that ONNX Runtime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(directory / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options)
    return [node.op_type for node in onnx.load(directory / "optimized.onnx").graph.node]
