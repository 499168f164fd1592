"""Runs a model's files by OpenVINO, and tells which of its layers compute with integers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from paddle_run import Arrays


def compiled(path: Path) -> Any:
    """As float32: on processors that have it, OpenVINO computes in bfloat16 otherwise."""
    return openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def outputs(path: Path, feed: Arrays) -> list[Any]:
    """Return the outputs for a batch, in the order of the file."""
    return [np.array(value) for value in compiled(path)(feed).values()]


def layers(path: Path, *kinds: str) -> Counter[str]:
    """Count the layers of these kinds by the type of the numbers that they read."""
    found = Counter[str]()
    for node in compiled(path).get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        if facts["layerType"].astype(str) in kinds:
            found[facts["runtimePrecision"].astype(str)] += 1
    return found
