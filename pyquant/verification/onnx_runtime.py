"""ONNX Runtime, as results for it are checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..calibration.data import Feed
from ..program.model import Model
from ..program.onnx_model.export import OPSET, to_onnx
from ..program.parameters import Array
from ..program.predictor import all_cores
from ..program.temporary import temporary_directory
from .runtime_check import Run, Runtime

_INT8_NODES = ("QLinear", "QGemm", "MatMulIntegerToFloat")


def _session(model: Model | Path, optimizes: bool = True, written: str | None = None) -> Any:
    """Load a model, or an ``.onnx`` file."""
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = all_cores()
    options.log_severity_level = 3
    if not optimizes:
        options.graph_optimization_level = levels.ORT_DISABLE_ALL
    if written is not None:
        options.optimized_model_filepath = written
    content = str(model) if isinstance(model, Path) else to_onnx(model, OPSET).serialized()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run(session: Any) -> Run:
    names = [one.name for one in session.get_outputs()]

    def run(feed: Feed) -> Mapping[str, Array]:
        return dict(zip(names, session.run(names, dict(feed))))

    return run


def of_file(path: Path) -> Runtime:
    """Return the runtime in which the int8 model is an ``.onnx`` file, whatever model is given."""
    return replace(
        ONNX_RUNTIME,
        run_int8=lambda _: _run(_session(path)),
        run_as_said=lambda _: _run(_session(path, optimizes=False)),
        int8_ops=lambda _: _int8_nodes(path),
    )


def _int8_nodes(int8: Model | Path) -> Mapping[str, int]:
    import onnx

    with temporary_directory() as directory:
        path = directory / "optimized.onnx"
        _session(int8, written=str(path))
        types = Counter(node.op_type for node in onnx.load(path).graph.node)
    return {name: count for name, count in sorted(types.items()) if name.startswith(_INT8_NODES)}


ONNX_RUNTIME = Runtime(
    name="ONNX Runtime",
    module="onnxruntime",
    extra="runtimes",
    read=lambda model: _session(model, optimizes=False),
    run_float=lambda model: _run(_session(model)),
    run_int8=lambda model: _run(_session(model)),
    # Without optimization, QDQ is computed op by op in float.
    run_as_said=lambda model: _run(_session(model, optimizes=False)),
    int8_ops=_int8_nodes,
)
