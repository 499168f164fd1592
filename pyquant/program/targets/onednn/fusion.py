"""Which ops one int8 kernel of oneDNN computes: a linear op, its bias, a residual, an activation.

The kernels are Paddle's ``fused_conv2d`` and ``fc`` (``phi/kernels/onednn/conv_handler.h``,
``phi/kernels/fusion/onednn/fc_kernel.cc``). They fuse what Paddle's own passes for oneDNN, such as
``conv_activation_onednn_fuse_pass.cc``, fuse into them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...folding.affine import Vector, affine_reader
from ...graph import Graph
from ...op_facts import ACTIVATIONS, Activation
from ...quantizable import CONVOLUTIONS, WeightedOp


@dataclass
class FusedOp:
    """A linear op and the ops behind it that become one.

    Attributes:
        position: of the last of them, where the fused op belongs.
        replaced: the positions of all.
        output: the tensor that the last of them writes.
        biases: the positions of those that add or subtract a bias.
        residual: a tensor that is added before the activation.
    """

    op: WeightedOp
    position: int
    replaced: list[int]
    output: str
    biases: list[int] = field(default_factory=list)
    residual: str | None = None
    activation: Activation = field(default_factory=Activation)

    @property
    def channel_axis(self) -> int:
        """The axis of the channels of the output, from the end if negative."""
        return 1 if self.op.op_type in CONVOLUTIONS else -1

    def bias(self, graph: Graph, correction: Vector | None) -> Vector:
        """Return the corrected bias, float64 of one value or of one per channel.

        The correction goes into a float32 parameter: the first one that is added.
        """
        shifts, source = list[Vector](), self.op.output
        for position in self.biases:
            found = affine_reader(graph, position, source, self.channel_axis)
            assert found is not None
            shifts.append(found.affine.shift)
            source = found.output
        if correction is not None:
            is_added = bool(shifts) and graph.ops[self.biases[0]].type == "elementwise_add"
            first = shifts.pop(0) + correction if is_added else correction
            shifts.insert(0, first.astype(np.float32))
        total: Vector = sum(shifts, np.zeros(1))
        return total


def fuse(graph: Graph, op: WeightedOp) -> FusedOp:
    """Return the ops that one kernel can compute, starting at a linear op of the main block."""
    fused = FusedOp(op, op.position, [op.position], op.output)
    while _take_bias(graph, fused):
        pass
    if op.op_type in CONVOLUTIONS:
        _take_residual(graph, fused)
    _take_activation(graph, fused)
    return fused


def _take_bias(graph: Graph, fused: FusedOp) -> bool:
    position = graph.only_reader(fused.output)
    if position is None or graph.ops[position].type not in ("elementwise_add", "elementwise_sub"):
        return False
    channels = graph.model.parameters[fused.op.weight].shape[fused.op.channel_axis]
    found = affine_reader(graph, position, fused.output, fused.channel_axis)
    if found is None or not found.affine.fits(channels) or (found.affine.scale != 1).any():
        return False
    fused.biases.append(position)
    _take(fused, position, found.output)
    return True


def _take_residual(graph: Graph, fused: FusedOp) -> None:
    position = graph.only_reader(fused.output)
    if position is None or graph.ops[position].type != "elementwise_add":
        return
    op = graph.ops[position]
    other = op.operand_beside(fused.output)
    producer = graph.producer(other)
    # If two convolutions are added, the later one takes the sum: the other is computed by then.
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
