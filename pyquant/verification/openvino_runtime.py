"""OpenVINO, as results for it are checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from ..calibration.data import Feed
from ..program.graph import Graph
from ..program.model import Model, save_model
from ..program.output_files import temporary_directory
from ..program.parameters import Array
from ..program.predictor import all_cores
from ..program.targets.openvino import substitute
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


def _compiled(model: Model, **settings: Any) -> Any:
    settings["INFERENCE_PRECISION_HINT"] = "f32"  # not bfloat16, on processors that have it
    settings["INFERENCE_NUM_THREADS"] = all_cores()
    with temporary_directory() as directory:
        path, _ = save_model(model, directory, "model.pdmodel", "model.pdiparams")
        return _core().compile_model(path, "CPU", settings)


def _run(model: Model, **settings: Any) -> Run:
    names, compiled = list(model.fetches), _compiled(model, **settings)

    def run(feed: Feed) -> Mapping[str, Array]:
        return dict(zip(names, map(np.array, compiled(dict(feed)).values())))

    return run


def _run_float(model: Model) -> Run:
    graph = Graph(model)
    substitute(graph)
    graph.write_back()
    return _run(model)


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
    run_float=_run_float,
    run_int8=_run,
    # In float, without the low-precision passes (config.cpp of its CPU plugin). Paddle cannot say
    # it: it reads these zero points in another way.
    run_as_said=lambda model: _run(model, LP_TRANSFORMS_MODE="NO"),
    int8_ops=_int8_layers,
)
