"""Ops that add one value per channel, as biases do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..graph import Graph
from ..op import Op, make_op
from ..quantizable import WeightedOp
from .affine import Vector, affine_reader
from .linear import linear_op


def make_addition(
    graph: Graph, source: str, output: str, vector: Vector, channel_axis: int, suffix: str = "bias"
) -> Op:
    """Return an op that adds a vector along an axis: a new parameter called ``OUTPUT.SUFFIX``."""
    name = graph.add_parameter(f"{output}.{suffix}", vector.astype(np.float32))
    inputs = {"X": [source], "Y": [name]}
    return make_op("elementwise_add", inputs, {"Out": [output]}, {"axis": channel_axis})


def add_to_outputs(graph: Graph, corrections: Mapping[WeightedOp, Vector], inserts: bool) -> None:
    """Add ``corrections``, float64[outputs], to the biases of linear ops of the main block.

    An op without a bias gets one if ``inserts``, and otherwise no correction.
    """
    for op, correction in corrections.items():
        if not _add_to_bias(graph, op, correction) and inserts:
            _insert_bias(graph, op, correction)


def _add_to_bias(graph: Graph, op: WeightedOp, correction: Vector) -> bool:
    position = graph.only_reader(op.output)
    if position is None or graph.ops[position].type != "elementwise_add":
        return False
    found = affine_reader(graph, position, op.output, _channel_axis(graph, op))
    if found is None or not found.affine.fits(correction.size):
        return False
    total = found.affine.shift + correction
    graph.replace(position, _addition(graph, op, op.output, found.output, total))
    return True


def _insert_bias(graph: Graph, op: WeightedOp, correction: Vector) -> None:
    product = graph.add_variable(f"{op.output}.product", op.output)
    graph.rename_output(op.position, op.output, product)
    graph.insert_after(op.position, [_addition(graph, op, product, op.output, correction)])


def _addition(graph: Graph, op: WeightedOp, source: str, output: str, vector: Vector) -> Op:
    return make_addition(graph, source, output, vector, _channel_axis(graph, op), "corrected")


def _channel_axis(graph: Graph, op: WeightedOp) -> int:
    rank = len(graph.dims(op.activation) or ())
    linear = linear_op(graph.ops[op.position], rank, graph.model)
    assert linear is not None
    return linear.channel_axis
