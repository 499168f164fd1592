"""Integer weights in a program, and the ops that dequantize them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from . import proto
from .graph import Graph
from .grouped_weights import GroupedWeight, Step
from .names import DEQUANTIZED, QUANTIZED, SCALE
from .op import Op, make_cast, make_elementwise, make_op
from .parameters import DerivedTensor
from .quantizable import WeightedOp
from .weights import QuantizedWeight

Weight = TypeVar("Weight", QuantizedWeight, GroupedWeight)
Dequantizer = Callable[[Graph, int, Weight, str], tuple[list[Op], str]]
"""Takes a graph, a block's index, a weight and the name of its integers; returns the ops that
dequantize them, and the name of the result."""


def dequantize_by_scale(
    graph: Graph, weights: Mapping[str, QuantizedWeight], ops: Sequence[WeightedOp]
) -> None:
    """Let ``ops`` read float weights made by ``cast`` and ``elementwise_mul``.

    These run in every Paddle for every integer width, and constant folding removes them at load
    time, while ``dequantize_linear`` takes only int8 and stays in the graph.
    """
    read_dequantized(graph, weights, ops, _cast_and_scale)


def dequantize_groups(
    graph: Graph, weights: Mapping[str, GroupedWeight], ops: Sequence[WeightedOp]
) -> None:
    """Let ``ops`` read float weights made from integers in groups."""
    read_dequantized(graph, weights, ops, _dequantize_groups)


def read_dequantized(
    graph: Graph,
    weights: Mapping[str, Weight],
    ops: Sequence[WeightedOp],
    dequantizer: Dequantizer[Weight],
) -> None:
    """Store the integers of weights, and let ``ops`` read the dequantized values."""
    stored = store_weights(graph, {op.weight: weights[op.weight].values for op in ops}, ops)
    dequantized: dict[tuple[int, str], str] = {}
    for op in sorted(ops, key=lambda op: (op.block, op.read_at)):
        key, number = (op.block, op.weight), graph.number(op.block, op.read_at)
        if key not in dequantized:
            made, name = dequantizer(graph, op.block, weights[op.weight], stored[op.weight])
            dequantized[key] = name
            graph.insert_before(number, made)
        graph.rename_input(number, op.weight, dequantized[key])


def store_weights(
    graph: Graph, tensors: Mapping[str, DerivedTensor], ops: Sequence[WeightedOp]
) -> dict[str, str]:
    """Put new values of weights into the model's parameters, for ``ops`` alone.

    A weight that only ``ops`` read is replaced under its own name. If another op reads it as well,
    the new values are stored beside it. Returns the name of each weight's new values.
    """
    shared = _read_by_others(graph, ops)
    stored = {}
    for name, tensor in tensors.items():
        if name in shared:
            stored[name] = graph.add_parameter(f"{name}{QUANTIZED}", tensor)
        else:
            graph.replace_parameter(name, tensor)
            stored[name] = name
    return stored


def _cast_and_scale(
    graph: Graph, block: int, weight: QuantizedWeight, stored: str
) -> tuple[list[Op], str]:
    float_type, dims = proto.paddle_dtype(weight.stored.dtype), weight.stored.shape
    integer_type = proto.paddle_dtype(weight.values.dtype)
    shape, scale, ops = dims, weight.scale, list[Op]()
    if weight.axis == 0 and len(dims) > 1:
        # Only a reference kernel of oneDNN multiplies by a value for each place of axis 0. It takes
        # most of the time of loading, and a jitted kernel takes channels along axis 1.
        shape = 1, dims[0], math.prod(dims[1:])
        scale = replace(scale, shape=(1, dims[0], 1))
        rows = graph.add_tensor(f"{weight.name}.rows", shape, integer_type, block)
        ops.append(_reshape(stored, rows, shape))
        stored = rows
    values = graph.add_tensor(f"{weight.name}.cast", shape, block=block)
    factors = graph.shared_parameter(f"{weight.name}{SCALE}", scale)
    ops.append(make_cast(stored, values, integer_type, proto.FP32))
    scaled = graph.add_tensor(f"{weight.name}{DEQUANTIZED}", dims, block=block)
    product = scaled
    if shape != dims:
        product = graph.add_tensor(f"{weight.name}.scaled", shape, block=block)
    ops.append(make_elementwise("elementwise_mul", values, factors, product))
    if shape != dims:
        ops.append(_reshape(product, scaled, dims))
    if float_type != proto.FP32:
        # A step in half precision would lose bits, or underflow: scale first, then round once.
        half = graph.add_tensor(f"{weight.name}.half", dims, float_type, block)
        ops.append(make_cast(scaled, half, proto.FP32, float_type))
        scaled = half
    return ops, scaled


def _dequantize_groups(
    graph: Graph, block: int, weight: GroupedWeight, stored: str
) -> tuple[list[Op], str]:
    scale = graph.shared_parameter(f"{weight.name}{SCALE}", weight.scale)
    names, types = {"values": stored, "scale": scale}, {"values": weight.values.dtype}
    for name, array in weight.constants.items():
        names[name] = graph.shared_parameter(name, array)
    ops = list[Op]()
    for step in weight.dequantization():
        types[step.makes] = step.dtype
        data_type = proto.paddle_dtype(step.dtype)
        output = graph.add_tensor(f"{weight.name}.{step.makes}", step.shape, data_type, block)
        reads = [names[name] for name in step.reads]
        ops.append(_op_of(step, types[step.reads[0]], reads, output))
        names[step.makes] = output
    return ops, output


def _op_of(step: Step, from_type: np.dtype[Any], reads: list[str], output: str) -> Op:
    """Return an op of a ``.pdmodel``; ``from_type`` is the type of the first tensor it reads."""
    if step.kind == "cast":
        return make_cast(reads[0], output, *map(proto.paddle_dtype, (from_type, step.dtype)))
    if step.kind == "reshape":
        return _reshape(reads[0], output, step.shape)
    if step.kind == "stack":
        return make_op("stack", {"X": reads}, {"Y": [output]}, {"axis": step.value})
    if step.kind == "add":
        attributes = {"scale": 1.0, "bias": float(step.value), "bias_after_scale": True}
        return make_op("scale", {"X": reads}, {"Out": [output]}, attributes)
    x, y = reads
    return make_elementwise(_OF_TWO[step.kind], x, y, output)


_OF_TWO = {
    "divide": "elementwise_floordiv",
    "and": "bitwise_and",
    "multiply": "elementwise_mul",
}


def _reshape(source: str, output: str, shape: Sequence[int]) -> Op:
    """Return a ``reshape2`` that keeps no shape for a backward pass."""
    return make_op("reshape2", {"X": [source]}, {"Out": [output]}, {"shape": list(shape)})


def _read_by_others(graph: Graph, ops: Iterable[WeightedOp]) -> set[str]:
    """Return the tensors that are read other than as the weight of one of ``ops``.

    An op that runs a block of its own lists what the ops of the block read; those read it.
    """
    weights = {(graph.number(op.block, op.read_at), op.weight) for op in ops}
    return {
        name
        for _, number in graph.in_order()
        if not graph.op(number).has_block()
        for name in graph.op(number).reads()
        if (number, name) not in weights
    }
