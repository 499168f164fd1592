"""Weights in Paddle-Lite's form: integers, and their scales as attributes of the ops.

``LightPredictor::DequantizeWeight`` (lite/api/light_api.cc) dequantizes them as it loads a model.
It knows four op types, each with its channels along one axis; the weight of any other op with such
attributes would be uninitialised memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from .. import proto
from ..graph import Graph
from ..model import Model
from ..quantizable import FloatOp, WeightedOp, stays_float
from ..stored_weights import store_weights
from ..weights import QuantizedWeight

_CHANNEL_AXES = {"conv2d": 0, "depthwise_conv2d": 0, "mul": 1, "lookup_table": 1}
_OF_MATRICES = ("mul", "lookup_table")


def ops_for_lite(model: Model, ops: Sequence[WeightedOp]) -> tuple[list[WeightedOp], list[FloatOp]]:
    """Return the ops whose integer weights Paddle-Lite takes, along its axes, and the others."""
    taken, kept = [], []
    for op in ops:
        reason = _why_float(model, op)
        if reason is None:
            taken.append(replace(op, channel_axis=_CHANNEL_AXES[op.op_type]))
        else:
            kept.append(stays_float(model, op, reason))
    return taken, kept


def store_for_lite(
    model: Model, weights: Mapping[str, QuantizedWeight], ops: Sequence[WeightedOp]
) -> None:
    """Store integer weights, and write the attributes that Paddle-Lite reads.

    If several ops share a weight, only the first one gets them: for the next one, Paddle-Lite would
    take the floats that it has made for integers.
    """
    graph = Graph(model)
    stored = store_weights(graph, {name: weight.values for name, weight in weights.items()}, ops)
    scaled = set()
    for op in ops:
        weight = weights[op.weight]
        desc = graph.op(graph.number(op.block, op.position))
        desc.rename_inputs(stored)
        if op.weight in scaled:
            continue
        scaled.add(op.weight)
        kind = "abs_max" if weight.axis < 0 else "channel_wise_abs_max"
        channels = weight.stored.shape[_CHANNEL_AXES[op.op_type]]
        scales = np.broadcast_to(weight.step, (channels,)).tolist()
        desc.set_attr("quantization_type", f"post_weight_{kind}")
        desc.set_attr("quantize_weight_bits", weight.bits)
        desc.set_attr(f"{stored[op.weight]}_quant_scale", scales)
        desc.set_attr("with_quant_attr", True)
    graph.write_back()
    _declare_floats(model, set(stored.values()))


def _declare_floats(model: Model, names: Collection[str]) -> None:
    """Declare weights as float32, which they become when they are loaded.

    Declared as integers, they would be cast for the float op, for which Paddle-Lite has no kernel
    (AddCastInst in type_precision_cast_pass.cc).
    """
    for block in model.program.blocks:
        for var in block.vars:
            if var.name in names:
                proto.tensor_desc(var).data_type = proto.FP32


def _why_float(model: Model, op: WeightedOp) -> str | None:
    if op.op_type not in _CHANNEL_AXES:
        return (
            f"Paddle-Lite takes integer weights only for {', '.join(_CHANNEL_AXES)} "
            "(DequantizeWeight in lite/api/light_api.cc)"
        )
    weight = model.parameters[op.weight]
    if weight.dtype != np.float32:
        return f"weight '{op.weight}' is {weight.dtype}; Paddle-Lite dequantizes to float32"
    if op.op_type in _OF_MATRICES and weight.ndim != 2:
        return f"Paddle-Lite takes integer weights of '{op.op_type}' only with two dimensions"
    return None
