"""Runs an int8 ONNX model in ONNX Runtime, beside the float model in the same runtime."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from statistics import median
from typing import Any

from ..calibration.data import Feed
from ..comparison.similarity import as_float
from ..program.model import Model, copy_model
from ..program.onnx_model.export import to_onnx
from ..program.output_files import temporary_directory
from ..program.parameters import Array
from ..program.predictor import all_cores
from .compared import Compared, compared_parts, showing
from .outcome import OutputDifference, Verification, worst
from .output_sums import OutputSums
from .turns import Times

_PAIRS = 7
_MOST_DEPARTURE = 0.05**2  # a share of an output's power, which rounding otherwise explains
_INT8_NODES = ("QLinear", "QGemm", "MatMulIntegerToFloat")


def is_installed() -> bool:
    """Return whether ONNX Runtime is there."""
    return find_spec("onnxruntime") is not None


def check_onnx(model: Model, int8: Model, feeds: Sequence[Feed], opset: int) -> Verification:
    """Run both models on ``feeds``; neither is changed.

    A departure is from the run without optimization, which computes QDQ op by op in float.
    """
    parts = compared_parts(model)
    sessions = [
        _session(_serialized(one, parts, opset), optimizes)
        for one, optimizes in ((model, True), (int8, True), (int8, False))
    ]
    expected, found, says = ([_parts(one, parts, feed) for feed in feeds] for one in sessions)
    errors, departures = _compared(parts, expected, found), _compared(parts, says, found)
    departs = not worst(departures).power <= _MOST_DEPARTURE
    times = _in_turns(sessions[0], sessions[1], feeds[0])
    return Verification(errors, departures, departs, len(feeds), *times, repairs=(), kernels=())


def int8_nodes(int8: Model, opset: int) -> dict[str, int]:
    """Return how many nodes of each type ONNX Runtime computes with integers."""
    import onnx

    with temporary_directory() as directory:
        path = directory / "optimized.onnx"
        _session(to_onnx(copy_model(int8), opset).serialized(), True, str(path))
        types = Counter(node.op_type for node in onnx.load(path).graph.node)
    return {name: count for name, count in sorted(types.items()) if name.startswith(_INT8_NODES)}


def _serialized(model: Model, parts: Sequence[Compared], opset: int) -> bytes:
    shown = showing(copy_model(model), [part.name for part in parts])
    return to_onnx(shown, opset).serialized()


def _session(content: bytes, optimizes: bool, written: str | None = None) -> Any:
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = all_cores()
    options.log_severity_level = 3
    if not optimizes:
        options.graph_optimization_level = levels.ORT_DISABLE_ALL
    if written is not None:
        options.optimized_model_filepath = written
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(content, options, providers=providers)


def _parts(session: Any, parts: Sequence[Compared], feed: Feed) -> list[Array]:
    names = [one.name for one in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, dict(feed))))
    return [part.of(outputs[part.name]) for part in parts]


def _compared(
    parts: Sequence[Compared], expected: Sequence[list[Array]], found: Sequence[list[Array]]
) -> list[OutputDifference]:
    differences = []
    for at, part in enumerate(parts):
        sums = OutputSums(part.least)
        for references, outputs in zip(expected, found):
            sums.add(as_float(references[at]), as_float(outputs[at]))
        differences.append(OutputDifference(str(part), sums.similarity, sums.power))
    return differences


def _in_turns(first: Any, second: Any, feed: Feed) -> Times:
    pairs = [(_seconds(first, feed), _seconds(second, feed)) for _ in range(_PAIRS)]
    one, other = zip(*pairs)
    return Times(median(one), median(other), median(a / b for a, b in pairs))


def _seconds(session: Any, feed: Feed) -> float:
    start = time.perf_counter()
    session.run(None, dict(feed))
    return time.perf_counter() - start
