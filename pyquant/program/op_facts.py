"""Facts about op types that several passes need, one row each: a pass asks for a fact.

To add an op, add a row to `FACTS`. An activation that oneDNN's kernels compute needs two more rows:
one in `ACTIVATIONS` reads its attributes, and one in `FUNCTIONS` has its formula. What a single
pass of Paddle or a single target does with an op type is a table beside the code that follows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Flag, auto
from typing import NamedTuple, Protocol

from . import proto
from .op import Op


class Fact(Flag):
    """A fact that may hold for an op type."""

    PER_VALUE = auto()
    """Computes each value of its only input by itself."""
    ARITHMETIC = auto()
    """Adds, subtracts, multiplies or divides two tensors."""
    HOMOGENEOUS = auto()
    """f(a x) = a f(x) for a > 0, channel by channel."""
    CHANNELWISE = auto()
    """Computes each channel from the same channel of its inputs."""
    CARRIES_SCALE = auto()
    """Paddle's int8 passes give its output the scale of its input."""
    MAY_PRECEDE_RELU = auto()
    """Paddle's int8 passes look through it to find a relu."""
    KEEPS_ORDER = auto()
    """Its oneDNN kernel writes dimensions in the order in which it reads them."""
    WRITES_BLOCKS = auto()
    """Its oneDNN kernel writes samples outermost, and may write channels in blocks."""
    WRITES_IN_ORDER = auto()
    """Writes dimensions in their order."""
    IN_PLACE = auto()
    """Its oneDNN kernel may overwrite its input."""
    OWNS_OUTPUT = auto()
    """Its output shares no buffer with another tensor."""
    RESHAPES = auto()
    """Changes the shape or the type of a parameter, but not its values."""
    COMPUTABLE = auto()
    """Paddle can compute it from constants on a CPU."""
    SOURCE = auto()
    """Reads nothing, and computes the same each time."""
    SELECTS = auto()
    """Returns as many values, and such, as its inputs' values say."""
    INDEXES = auto()
    """Returns the values at the places that ``Index`` says."""


_F = Fact
_ARITHMETIC = _F.ARITHMETIC | _F.KEEPS_ORDER | _F.COMPUTABLE
_FLOATING = _F.PER_VALUE | _F.KEEPS_ORDER
_OWNED = _FLOATING | _F.OWNS_OUTPUT
_CONVOLUTION = _F.WRITES_BLOCKS | _F.OWNS_OUTPUT
_ENLARGING = _F.WRITES_BLOCKS | _F.KEEPS_ORDER
_NEAREST = _ENLARGING | _F.OWNS_OUTPUT | _F.CHANNELWISE | _F.CARRIES_SCALE
_MOVING = _F.COMPUTABLE | _F.RESHAPES
_PRODUCT = _F.WRITES_IN_ORDER

FACTS: Mapping[str, Fact] = {
    "conv2d": _CONVOLUTION,
    "depthwise_conv2d": _CONVOLUTION,
    "fused_conv2d": _F.OWNS_OUTPUT,
    "conv2d_transpose": _F.WRITES_BLOCKS,
    "mul": _PRODUCT,
    "matmul": _PRODUCT,
    "matmul_v2": _PRODUCT,
    "batch_norm": _F.WRITES_BLOCKS | _F.MAY_PRECEDE_RELU,
    "layer_norm": _F.WRITES_IN_ORDER,
    "lookup_table": _F.WRITES_IN_ORDER,
    "lookup_table_v2": _F.WRITES_IN_ORDER,
    "pool2d": _F.WRITES_BLOCKS
    | _F.CHANNELWISE
    | _F.HOMOGENEOUS
    | _F.CARRIES_SCALE
    | _F.MAY_PRECEDE_RELU,
    "nearest_interp": _NEAREST,
    "nearest_interp_v2": _NEAREST | _F.HOMOGENEOUS,
    "bilinear_interp": _ENLARGING,
    "bilinear_interp_v2": _ENLARGING,
    "elementwise_add": _ARITHMETIC
    | _F.CHANNELWISE
    | _F.IN_PLACE
    | _F.OWNS_OUTPUT
    | _F.MAY_PRECEDE_RELU,
    "elementwise_sub": _ARITHMETIC,
    "elementwise_mul": _ARITHMETIC | _F.CHANNELWISE | _F.IN_PLACE | _F.OWNS_OUTPUT,
    "elementwise_div": _ARITHMETIC,
    "elementwise_pow": _F.COMPUTABLE,
    "sum": _F.KEEPS_ORDER,
    "scale": _OWNED | _F.CHANNELWISE | _F.IN_PLACE | _F.COMPUTABLE,
    "relu": _OWNED | _F.CHANNELWISE | _F.HOMOGENEOUS | _F.MAY_PRECEDE_RELU,
    "relu6": _OWNED | _F.CHANNELWISE | _F.MAY_PRECEDE_RELU,
    "leaky_relu": _OWNED | _F.CHANNELWISE | _F.HOMOGENEOUS,
    "hard_swish": _OWNED | _F.CHANNELWISE,
    "swish": _OWNED | _F.CHANNELWISE,
    "gelu": _OWNED | _F.CHANNELWISE,
    "mish": _OWNED | _F.CHANNELWISE,
    "silu": _F.PER_VALUE | _F.CHANNELWISE | _F.OWNS_OUTPUT,
    "sigmoid": _FLOATING | _F.CHANNELWISE,
    "hard_sigmoid": _FLOATING | _F.CHANNELWISE,
    "tanh": _FLOATING | _F.CHANNELWISE,
    "abs": _F.PER_VALUE | _F.CHANNELWISE | _F.COMPUTABLE,
    "clip": _F.KEEPS_ORDER | _F.CHANNELWISE,
    "softsign": _F.CHANNELWISE,
    "elu": _F.PER_VALUE,
    "softplus": _F.PER_VALUE,
    "exp": _F.PER_VALUE | _F.COMPUTABLE,
    "sqrt": _F.PER_VALUE | _F.COMPUTABLE,
    "square": _F.PER_VALUE | _F.COMPUTABLE,
    "rsqrt": _F.COMPUTABLE,
    "concat": _F.KEEPS_ORDER | _F.CARRIES_SCALE | _F.COMPUTABLE,
    "split": _F.CARRIES_SCALE,
    "slice": _F.CARRIES_SCALE | _F.COMPUTABLE,
    "shape": _F.CARRIES_SCALE | _F.COMPUTABLE,
    "stack": _F.COMPUTABLE,
    "expand_v2": _F.COMPUTABLE,
    "cast": _MOVING,
    "assign": _MOVING,
    "reshape2": _MOVING | _F.WRITES_IN_ORDER | _F.CARRIES_SCALE,
    "transpose2": _MOVING | _F.WRITES_IN_ORDER | _F.CARRIES_SCALE,
    "fused_transpose": _F.CARRIES_SCALE,
    "squeeze2": _MOVING | _F.WRITES_IN_ORDER,
    "unsqueeze2": _MOVING | _F.WRITES_IN_ORDER,
    "flatten2": _F.WRITES_IN_ORDER,
    "flatten_contiguous_range": _F.WRITES_IN_ORDER | _F.COMPUTABLE,
    "range": _F.COMPUTABLE | _F.SOURCE,
    "fill_constant": _F.SOURCE,
    "assign_value": _F.SOURCE,
    "linspace": _F.SOURCE,
    "eye": _F.SOURCE,
    "masked_select": _F.SELECTS,
    "matrix_nms": _F.SELECTS,
    "multiclass_nms": _F.SELECTS,
    "multiclass_nms2": _F.SELECTS,
    "multiclass_nms3": _F.SELECTS,
    "gather": _F.INDEXES,
    "gather_nd": _F.INDEXES,
    "index_sample": _F.INDEXES,
    "index_select": _F.INDEXES,
    "take_along_axis": _F.INDEXES,
}
"""The ops that carry scales are scale_immutable_ops in compute_propagate_scales_onednn_pass.cc, and
concat, which gives its scale to its inputs (UpdateScales there)."""


def has(op_type: str, fact: Fact) -> bool:
    """Return whether a fact holds for an op type; none holds without a row."""
    return fact in FACTS.get(op_type, Fact(0))


class FloatOps(Protocol):
    """The float ops that a function's formula is written with."""

    def apply(self, op_type: str, source: str, **attributes: proto.AttributeValue) -> str:
        """Add an op of one input, and return its output."""

    def multiply(self, first: str, second: str) -> str:
        """Add a product, and return it."""


Formula = Callable[[FloatOps, str, float, float], str]
"""Takes the ops, the argument, and the two parameters, alpha and beta; returns the result."""


class Function(NamedTuple):
    """A function that oneDNN's kernels compute, by the name of Paddle's ``fuse_activation``.

    Attributes:
        formula: as oneDNN defines it.
        is_relu: whether it clips its argument to a range without negative values.
        is_lopsided: whether its results reach much further up than down.
        moves_zero: whether its result for zero is not zero, whatever its parameters.
    """

    formula: Formula
    is_relu: bool = False
    is_lopsided: bool = False
    moves_zero: bool = False


def _as(op_type: str, **attributes: proto.AttributeValue) -> Formula:
    return lambda ops, value, alpha, beta: ops.apply(op_type, value, **attributes)


def _clip(ops: FloatOps, value: str, alpha: float, beta: float) -> str:
    return ops.apply("clip", value, min=alpha, max=beta)


def _hard_sigmoid(ops: FloatOps, value: str, alpha: float, beta: float) -> str:
    return ops.apply("hard_sigmoid", value, slope=alpha, offset=beta)


def _hard_swish(ops: FloatOps, value: str, alpha: float, beta: float) -> str:
    return ops.multiply(value, _hard_sigmoid(ops, value, alpha, beta))


def _swish(ops: FloatOps, value: str, alpha: float, beta: float) -> str:
    return ops.multiply(value, ops.apply("sigmoid", ops.apply("scale", value, scale=alpha)))


def _leaky_relu(ops: FloatOps, value: str, alpha: float, beta: float) -> str:
    return ops.apply("leaky_relu", value, alpha=alpha)


FUNCTIONS: Mapping[str, Function] = {
    "": Function(lambda ops, value, alpha, beta: value),
    "relu": Function(_as("relu"), is_relu=True),
    "relu6": Function(_clip, is_relu=True),
    "clip": Function(_clip),
    "leaky_relu": Function(_leaky_relu, is_lopsided=True),
    "hard_swish": Function(_hard_swish, is_lopsided=True),
    "swish": Function(_swish, is_lopsided=True),
    "gelu_erf": Function(_as("gelu", approximate=False), is_lopsided=True),
    "gelu_tanh": Function(_as("gelu", approximate=True), is_lopsided=True),
    "mish": Function(_as("mish"), is_lopsided=True),
    "hard_sigmoid": Function(_hard_sigmoid, moves_zero=True),
    "sigmoid": Function(_as("sigmoid"), moves_zero=True),
    "tanh": Function(_as("tanh")),
    "abs": Function(_as("abs")),
}


class Activation(NamedTuple):
    """An activation function as the kernels take it."""

    name: str = ""  # of Paddle's ``fuse_activation``
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def function(self) -> Function:
        return FUNCTIONS[self.name]

    @property
    def keeps_zero(self) -> bool:
        """Whether it maps zero to zero."""
        if self.name == "clip":
            return self.alpha <= 0 <= self.beta
        return not self.function.moves_zero


def _with(
    name: str, alpha: tuple[str, float] | None = None, beta: tuple[str, float] | None = None
) -> Callable[[Op], Activation]:
    def read(op: Op) -> Activation:
        return Activation(
            name, *(0.0 if given is None else op.attr(*given) for given in (alpha, beta))
        )

    return read


def _read_hard_swish(op: Op) -> Activation | None:
    threshold, scale, offset = (
        op.attr(name, default)
        for name, default in (("threshold", 6.0), ("scale", 6.0), ("offset", 3.0))
    )
    return Activation("hard_swish", 1 / scale, offset / scale) if threshold == scale else None


def _read_gelu(op: Op) -> Activation:
    return Activation("gelu_tanh" if op.attr("approximate", False) else "gelu_erf")


ACTIVATIONS: Mapping[str, Callable[[Op], Activation | None]] = {
    "relu": _with("relu"),
    "relu6": lambda op: Activation("relu6", 0.0, op.attr("threshold", 6.0)),
    "hard_swish": _read_hard_swish,
    "swish": _with("swish", ("beta", 1.0)),
    "silu": lambda op: Activation("swish", 1.0),
    "hard_sigmoid": _with("hard_sigmoid", ("slope", 0.2), ("offset", 0.5)),
    "leaky_relu": _with("leaky_relu", ("alpha", 0.02)),
    "clip": _with("clip", ("min", 0.0), ("max", 0.0)),
    "gelu": _read_gelu,
    "mish": _with("mish"),
    "sigmoid": _with("sigmoid"),
    "tanh": _with("tanh"),
    "abs": _with("abs"),
}
"""Functions that read the activation of an op that a kernel can fuse; None if the kernel lacks its
attributes. Attributes and defaults are as in activation_onednn_fuse_pass.h."""


Limits = tuple[float, float]
NO_LIMITS: Limits = (-math.inf, math.inf)


def varies_between(op: Op) -> Limits:
    """Return the least and the greatest value between which the results of an activation vary.

    Integers for values beyond them would be wasted.
    """
    read = ACTIVATIONS.get(op.type)
    activation = None if read is None else read(op)
    if activation is None:
        return NO_LIMITS
    name, slope, offset = activation.name, activation.alpha, activation.beta
    if name in ("hard_swish", "hard_sigmoid") and slope > 0:
        return -offset / slope, math.inf if name == "hard_swish" else (1 - offset) / slope
    return NO_LIMITS
