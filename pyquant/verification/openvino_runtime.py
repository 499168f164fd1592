"""OpenVINO, as results for it are checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from ..calibration.data import Feed
from ..program.folding.affine import make_scale
from ..program.graph import Graph
from ..program.model import Model, save_model
from ..program.op import make_op
from ..program.parameters import Array
from ..program.predictor import Optimization, all_cores, make_predictor, run_outputs
from ..program.targets.openvino import rewrite
from ..program.temporary import temporary_directory
from .runtime_check import Run, Runtime

_INT8_TYPES = ("u8", "i8")
_WEIGHTED = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


@cache
def _core() -> Any:
    """Return the one Core of the process.

    Each Core sets a stack for signal handlers, and puts back the one that it found when it ends
    (``sigstack_manager.cpp`` of the CPU plugin). If an earlier Core ended before, that stack is
    gone. The next signal with a handler, as for a truncated file, then ends the process.
    """
    import openvino

    return openvino.Core()


def _read(model: Model) -> None:
    rewrite(model)
    with temporary_directory() as directory:
        path, _ = save_model(model, directory, "model.pdmodel", "model.pdiparams")
        _core().read_model(path)


def _compiled(model: Model) -> Any:
    # Not bfloat16, on processors that have it.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": all_cores()}
    with temporary_directory() as directory:
        path, _ = save_model(model, directory, "model.pdmodel", "model.pdiparams")
        return _core().compile_model(path, "CPU", settings)


def _run(model: Model) -> Run:
    names, compiled = list(model.fetches), _compiled(model)

    def run(feed: Feed) -> Mapping[str, Array]:
        return dict(zip(names, map(np.array, compiled(dict(feed)).values())))

    return run


def _run_float(model: Model) -> Run:
    rewrite(model)
    return _run(model)


def _run_in_paddle(model: Model) -> Run:
    """Run an int8 model op by op in float, by zero points as OpenVINO reads them."""
    graph = Graph(model)
    for number, op in list(graph.ops.items()):
        if op.type == "quantize_linear" and model.parameters[op.input("ZeroPoint")].any():
            _round_by_floats(graph, number)
    graph.write_back()
    names, predictor = list(model.fetches), make_predictor(model, Optimization.NONE, all_cores())
    return lambda feed: dict(zip(names, run_outputs(predictor, feed)))


def _round_by_floats(graph: Graph, number: int) -> None:
    """Replace a quantize_linear, and the ops that dequantize its integers, by ops of floats."""
    op, parameters = graph.ops[number], graph.model.parameters
    factor = _LEVELS / float(parameters[op.input("Scale")].item())
    zero_point = int(parameters[op.input("ZeroPoint")].item())
    integers = op.output()
    scaled, rounded = (graph.add_variable(f"{integers}.{part}", integers) for part in _PARTS)
    limits = {"min": float(-_LEVELS - 1 - zero_point), "max": float(_LEVELS - zero_point)}
    readers = graph.readers(integers)
    graph.replace(
        number,
        make_scale(op.input("X"), scaled, factor, 0.0),
        make_op("round", {"X": [scaled]}, {"Out": [rounded]}, {}),
        make_op("clip", {"X": [rounded]}, {"Out": [integers]}, limits),
    )
    for reader in readers:
        graph.replace(reader, make_scale(integers, graph.ops[reader].output(), 1 / factor, 0.0))


_LEVELS = 127  # Paddle's Scale is the magnitude of this integer
_PARTS = ("scaled", "rounded")


def _int8_layers(int8: Model) -> Mapping[str, int]:
    found = Counter[str]()
    for node in _compiled(int8).get_runtime_model().get_ordered_ops():
        facts = {name: node.get_rt_info()[name].astype(str) for name in _FACTS}
        if facts["layerType"] in _WEIGHTED and facts["runtimePrecision"] in _INT8_TYPES:
            found[facts["layerType"]] += 1
    return dict(sorted(found.items()))


_FACTS = ("layerType", "runtimePrecision")

OPENVINO = Runtime(
    name="OpenVINO",
    module="openvino",
    extra="openvino",
    read=_read,
    run_float=_run_float,
    run_int8=_run,
    run_as_said=_run_in_paddle,
    int8_ops=_int8_layers,
)
