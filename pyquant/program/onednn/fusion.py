"""Which ops one int8 kernel of oneDNN computes: a linear op, its bias, a residual, an activation.

The kernels are Paddle's ``fused_conv2d`` and ``fc`` (``phi/kernels/onednn/conv_handler.h``,
``phi/kernels/fusion/onednn/fc_kernel.cc``); what they fuse is what Paddle's own passes for oneDNN
fuse, as ``conv_activation_onednn_fuse_pass.cc``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..folding.affine import Vector, affine_op
from ..graph import Graph
from ..op import Op
from ..quantizable import CONVOLUTIONS, WeightedOp


class Activation(NamedTuple):
    """An activation function as the kernels take it.

    Attributes:
        name: of Paddle's ``fuse_activation``.
        alpha: its first parameter.
        beta: its second one.
    """

    name: str = ""
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def is_relu(self) -> bool:
        """Whether its results are never negative, and cut the range of what they are of."""
        return self.name in ("relu", "relu6")

    @property
    def keeps_zero(self) -> bool:
        """Whether it makes zero of zero."""
        if self.name == "clip":
            return self.alpha <= 0 <= self.beta
        return self.name not in NEVER_ZERO

    @property
    def is_lopsided(self) -> bool:
        """Whether its results reach much further up than down."""
        return self.name in ("swish", "hard_swish", "gelu_erf", "gelu_tanh", "mish", "leaky_relu")


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
    operands = [op.input(slot) for slot in ("X", "Y")]
    other = operands[1] if operands[0] == fused.output else operands[0]
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
    read = _ACTIVATIONS.get(op.type)
    activation = None if read is None or len(op.desc.inputs) != 1 else read(op)
    if activation is not None:
        fused.activation = activation
        _take(fused, position, op.output("Out"))


def _take(fused: FusedOp, position: int, output: str) -> None:
    fused.replaced.append(position)
    fused.position = max(fused.position, position)
    fused.output = output


def _hard_swish(op: Op) -> Activation | None:
    threshold, scale, offset = (
        op.attr(name, default)
        for name, default in (("threshold", 6.0), ("scale", 6.0), ("offset", 3.0))
    )
    return Activation("hard_swish", 1 / scale, offset / scale) if threshold == scale else None


def _gelu(op: Op) -> Activation:
    return Activation("gelu_tanh" if op.attr("approximate", False) else "gelu_erf")


def _with(
    name: str, alpha: tuple[str, float] | None = None, beta: tuple[str, float] | None = None
) -> Callable[[Op], Activation]:
    def read(op: Op) -> Activation:
        values = [0.0 if given is None else op.attr(*given) for given in (alpha, beta)]
        return Activation(name, *map(float, values))

    return read


# Attributes and defaults as in activation_onednn_fuse_pass.h.
_ACTIVATIONS: Mapping[str, Callable[[Op], Activation | None]] = {
    "relu": _with("relu"),
    "relu6": lambda op: Activation("relu6", 0.0, op.attr("threshold", 6.0)),
    "hard_swish": _hard_swish,
    "swish": _with("swish", ("beta", 1.0)),
    "silu": lambda op: Activation("swish", 1.0),
    "hard_sigmoid": _with("hard_sigmoid", ("slope", 0.2), ("offset", 0.5)),
    "leaky_relu": _with("leaky_relu", ("alpha", 0.02)),
    "clip": _with("clip", ("min", 0.0), ("max", 0.0)),
    "gelu": _gelu,
    "mish": _with("mish"),
    "sigmoid": _with("sigmoid"),
    "tanh": _with("tanh"),
    "abs": _with("abs"),
}

ACTIVATIONS = tuple(_ACTIVATIONS)
"""The types of the ops that a kernel can fuse."""
NEVER_ZERO = ("sigmoid", "hard_sigmoid")
"""Of these, the ones that make something else of zero, whatever their attributes."""
