"""Which ops one int8 kernel of oneDNN computes: a linear op, its bias, a residual, an activation.

The kernels are Paddle's ``fused_conv2d`` and ``fc`` (``phi/kernels/onednn/conv_handler.h``,
``phi/kernels/fusion/onednn/fc_kernel.cc``); what they fuse is what Paddle's own passes for oneDNN
fuse, as ``conv_activation_onednn_fuse_pass.cc``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..folding.affine import Vector, affine_op
from ..graph import Graph
from ..op_facts import ACTIVATIONS, Activation
from ..quantizable import CONVOLUTIONS, WeightedOp


@dataclass
class FusedOp:
    """Ops that become one.

    Attributes:
        op: the linear op.
        position: of the last of them, where the one belongs.
        replaced: the positions of all.
        output: the tensor that the last of them writes.
        bias: float64, of one value or of one per output channel.
        residual: a tensor that is added before the activation.
        activation: the activation function.
    """

    op: WeightedOp
    position: int
    replaced: list[int]
    output: str
    bias: Vector = field(default_factory=lambda: np.zeros(1))
    residual: str | None = None
    activation: Activation = field(default_factory=Activation)


def fuse(graph: Graph, op: WeightedOp, channel_axis: int, channels: int) -> FusedOp:
    """Return what one kernel can compute from ``op`` on.

    Args:
        graph: the program.
        op: a linear op of its main block.
        channel_axis: of the op's output, from the end if negative.
        channels: how many it has.
    """
    fused = FusedOp(op, op.position, [op.position], op.output)
    while _take_bias(graph, fused, channel_axis, channels):
        pass
    if op.op_type in CONVOLUTIONS:
        _take_residual(graph, fused)
    _take_activation(graph, fused)
    return fused


def _take_bias(graph: Graph, fused: FusedOp, channel_axis: int, channels: int) -> bool:
    position = graph.only_reader(fused.output)
    dims = graph.dims(fused.output)
    if position is None or dims is None:
        return False
    rank = len(dims)
    op = graph.ops[position]
    found = affine_op(op, rank, channel_axis % rank, graph.model.parameters)
    if found is None or found.source != fused.output or not found.affine.fits(channels):
        return False
    if op.type not in ("elementwise_add", "elementwise_sub") or (found.affine.scale != 1).any():
        return False
    fused.bias = fused.bias + found.affine.shift
    _take(fused, position, found.output)
    return True


def _take_residual(graph: Graph, fused: FusedOp) -> None:
    position = graph.only_reader(fused.output)
    if position is None or graph.ops[position].type != "elementwise_add":
        return
    op = graph.ops[position]
    other = op.operand_beside(fused.output)
    producer = graph.producer(other)
    # Of two convolutions that are added, the later one takes the sum: the other is computed then.
    if other == fused.output or producer is None or producer > fused.op.position:
        return
    if other in graph.model.parameters or graph.dims(other) != graph.dims(fused.output):
        return
    fused.residual = other
    _take(fused, position, op.output("Out"))


def _take_activation(graph: Graph, fused: FusedOp) -> None:
    position = graph.only_reader(fused.output)
    if position is None:
        return
    op = graph.ops[position]
    read = ACTIVATIONS.get(op.type)
    activation = None if read is None or len(op.desc.inputs) != 1 else read(op)
    if activation is not None:
        fused.activation = activation
        _take(fused, position, op.output("Out"))


def _take(fused: FusedOp, position: int, output: str) -> None:
    fused.replaced.append(position)
    fused.position = max(fused.position, position)
    fused.output = output
