"""Corrections of biases: what the outputs of ops lack by their integers is added to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .folding.addition import make_addition
from .folding.affine import Vector, affine_op
from .folding.linear import linear_op
from .graph import Graph
from .model import Model
from .op import Op
from .quantizable import WeightedOp, located


def add_to_outputs(
    model: Model,
    corrections: Mapping[WeightedOp, Vector],
    ops: Sequence[WeightedOp],
    inserts: bool,
) -> list[WeightedOp]:
    """Add to what linear ops write: to the bias behind an op, or as one.

    Args:
        model: its program is changed.
        corrections: float64[outputs] of ops of the main block.
        ops: those and others.
        inserts: whether an op that has no bias gets one.

    Returns:
        ``ops`` where they are now.
    """
    graph = Graph(model)
    inserted = {}
    for op, correction in corrections.items():
        if not _add_to_bias(graph, op, correction) and inserts:
            inserted[op.output] = _insert_bias(graph, op, correction)
    graph.write_back()
    return located(model, ops, inserted)


def _add_to_bias(graph: Graph, op: WeightedOp, correction: Vector) -> bool:
    position, dims = graph.only_reader(op.output), graph.dims(op.output)
    if position is None or not dims or graph.ops[position].type != "elementwise_add":
        return False
    axis = _channel_axis(graph, op) % len(dims)
    found = affine_op(graph.ops[position], len(dims), axis, graph.model.parameters)
    if found is None or found.source != op.output or not found.affine.fits(correction.size):
        return False
    total = found.affine.shift + correction
    graph.replace(position, _addition(graph, op, op.output, found.output, total))
    return True


def _insert_bias(graph: Graph, op: WeightedOp, correction: Vector) -> str:
    """Return the name of what the op itself then writes."""
    desc = graph.ops[op.position]
    product = graph.add_variable(f"{op.output}.product", op.output)
    desc.rename_outputs({op.output: product})
    addition = _addition(graph, op, product, op.output, correction)
    graph.replace(op.position, desc, addition)
    return product


def _addition(graph: Graph, op: WeightedOp, source: str, output: str, vector: Vector) -> Op:
    return make_addition(graph, source, output, vector, _channel_axis(graph, op), "corrected")


def _channel_axis(graph: Graph, op: WeightedOp) -> int:
    rank = len(graph.dims(op.activation) or ())
    linear = linear_op(graph.ops[op.position], rank, graph.model.parameters)
    assert linear is not None
    return linear.channel_axis
