"""Float16 and bfloat16 programs as float32 ones, since a CPU has few kernels for the others."""

from __future__ import annotations

import numpy as np

from . import proto
from .graph import Graph
from .model import Model, Pending
from .parameters import Array
from .quantizable import QUANTIZABLE_OPS
from .weights import float32_of_bfloat16

_HALF = {proto.data_type_of(name) for name in ("float16", "bfloat16")}
_NAMING_TYPES = ("dtype", "in_dtype", "out_dtype")  # attributes that hold the code of a type


def compute_in_float32(model: Model) -> bool:
    """Let a model compute in float32 what it computes in float16 or bfloat16.

    Inputs and outputs become float32, too. The parameters keep their values; the weights of
    products, convolutions and embeddings are converted each time they are needed, so that they take
    no memory until then. Returns whether there was anything of these types.
    """
    variables = [var for block in model.program.blocks for var in block.vars]
    descs = [desc for desc in map(proto.tensor_desc, variables) if desc is not None]
    half = [desc for desc in descs if desc.data_type in _HALF]
    if not half:
        return False
    for desc in half:
        desc.data_type = proto.FP32
    for op in model.ops():
        for name in _NAMING_TYPES:
            if op.value(name) in _HALF:
                op.set_attr(name, proto.FP32)
    _drop_casts(model)
    later = _read_as_weights_alone(model)
    for name, stored in model.parameters.items():
        if stored.dtype not in (np.float16, np.uint16):
            continue
        if name in later:
            model.parameters[name] = np.broadcast_to(np.float32(np.nan), stored.shape)
            model.pending[name] = _converted(stored)
        else:
            model.parameters[name] = _float32(stored)
    return True


def _converted(stored: Array) -> Pending:
    return Pending(stored, lambda: _float32(stored))


def _float32(stored: Array) -> Array:
    if stored.dtype == np.uint16:
        return float32_of_bfloat16(stored)
    return stored.astype(np.float32)


def _read_as_weights_alone(model: Model) -> set[str]:
    """Return the parameters that no op reads in another way."""
    weights: set[str] = set()
    others: set[str] = set()
    for op in model.ops():
        known = set(QUANTIZABLE_OPS[op.type].weights(op)) if op.type in QUANTIZABLE_OPS else set()
        weights |= known
        others.update(set(op.reads()) - known)
    return weights - others


def _drop_casts(model: Model) -> None:
    """Drop casts from float32 to float32."""
    graph = Graph(model)
    for position, op in sorted(graph.ops.items()):
        types = op.value("in_dtype"), op.value("out_dtype")
        if op.type != "cast" or types != (proto.FP32, proto.FP32):
            continue
        source, output = op.input("X"), op.output()
        if not graph.is_kept(source) and not graph.is_kept(output):
            graph.remove(position)
            graph.read_instead(output, source)
    if graph.is_edited:
        graph.write_back()
