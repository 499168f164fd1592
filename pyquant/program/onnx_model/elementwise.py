"""Ops that compute each value by itself, and arithmetic of two tensors."""

from __future__ import annotations

import math
from collections.abc import Callable

from .. import proto
from .builder import Row, Rows, Step, rows_of

ROWS: Rows = {}
_rows = rows_of(ROWS)


def line(text: str) -> Row:
    """Return the row of a line: ``Elu X -> Out | alpha=1.0``.

    The ONNX type, the input slots, the output slot, and the attributes that both have, with
    Paddle's default. ``alpha:slope=0.2`` is ``alpha`` in ONNX and ``slope`` in Paddle.
    """
    signature, _, words = text.partition("|")
    left, _, slot = signature.partition("->")
    op_type, *slots = left.split()
    attributes = []
    for word in words.split():
        names, _, default = word.partition("=")
        name, _, paddles = names.partition(":")
        attributes.append((name, paddles or name, float(default)))

    def row(step: Step) -> None:
        given = {name: step.op.attr(ours, default) for name, ours, default in attributes}
        inputs = [value for name in slots for value in step.inputs(name)]
        step.give(slot.strip(), step(op_type, *inputs, **given))

    return row


_LINES = {
    **{
        op: f"{onnx} X -> Out"
        for op, onnx in {
            "abs": "Abs",
            "acos": "Acos",
            "acosh": "Acosh",
            "asin": "Asin",
            "asinh": "Asinh",
            "atan": "Atan",
            "atanh": "Atanh",
            "ceil": "Ceil",
            "cos": "Cos",
            "cosh": "Cosh",
            "determinant": "Det",
            "erf": "Erf",
            "exp": "Exp",
            "floor": "Floor",
            "isnan_v2": "IsNaN",
            "log": "Log",
            "logical_not": "Not",
            "reciprocal": "Reciprocal",
            "relu": "Relu",
            "sigmoid": "Sigmoid",
            "sign": "Sign",
            "sin": "Sin",
            "sinh": "Sinh",
            "softsign": "Softsign",
            "sqrt": "Sqrt",
            "tan": "Tan",
            "tanh": "Tanh",
            "sum": "Sum",
        }.items()
    },
    "determinant": "Det Input -> Out",
    "celu": "Celu X -> Out | alpha=1.0",
    "elu": "Elu X -> Out | alpha=1.0",
    "hard_sigmoid": "HardSigmoid X -> Out | alpha:slope=0.2 beta:offset=0.5",
    "hard_shrink": "Shrink X -> Out | lambd:threshold=0.5",
    "leaky_relu": "LeakyRelu X -> Out | alpha=0.02",
    "selu": "Selu X -> Out | gamma:scale=1.0507009873554805 alpha=1.6732632423543772",
    "softshrink": "Shrink X -> Out | lambd:lambda=0.5 bias:lambda=0.5",
    "where": "Where Condition X Y -> Out",
    "logical_and": "And X Y -> Out",
    "logical_or": "Or X Y -> Out",
    "logical_xor": "Xor X Y -> Out",
}
ROWS.update({op: line(text) for op, text in _LINES.items()})


Formula = Callable[[Step], str]


def _formula(*op_types: str) -> Callable[[Formula], Formula]:
    """Return a decorator for a function that returns the value of ``Out``."""

    def put(function: Formula) -> Formula:
        def row(step: Step) -> None:
            for slot in ("Out", "out"):
                if step.is_wanted(slot):
                    step.give(slot, function(step))

        ROWS.update(dict.fromkeys(op_types, row))
        return function

    return put


@_formula("square")
def _square(step: Step) -> str:
    return step("Mul", step.x, step.x)


@_formula("rsqrt")
def _rsqrt(step: Step) -> str:
    return step("Reciprocal", step("Sqrt", step.x))


@_formula("expm1")
def _expm1(step: Step) -> str:
    return step("Sub", step("Exp", step.x), step.number(1))


@_formula("log1p")
def _log1p(step: Step) -> str:
    return step("Log", step("Add", step.x, step.number(1)))


@_formula("log2")
def _log2(step: Step) -> str:
    return step("Mul", step("Log", step.x), step.number(1 / math.log(2)))


@_formula("log10")
def _log10(step: Step) -> str:
    return step("Mul", step("Log", step.x), step.number(1 / math.log(10)))


@_formula("logit")
def _logit(step: Step) -> str:
    eps = step.op.attr("eps", 1e-6)
    x = step("Clip", step.x, step.number(eps), step.number(1 - eps)) if eps else step.x
    return step("Log", step("Div", x, step("Sub", step.number(1), x)))


@_formula("logsigmoid")
def _logsigmoid(step: Step) -> str:
    return step("Neg", step("Softplus", step("Neg", step.x)))


@_formula("relu6")
def _relu6(step: Step) -> str:
    return step("Clip", step.x, step.number(0), step.number(step.op.attr("threshold", 6.0)))


@_formula("brelu")
def _brelu(step: Step) -> str:
    least, most = step.op.attr("t_min", 0.0), step.op.attr("t_max", 24.0)
    return step("Clip", step.x, step.number(least), step.number(most))


@_formula("clip")
def _clip(step: Step) -> str:
    bounds = []
    for slot, attribute in (("Min", "min"), ("Max", "max")):
        if step.op.inputs(slot):
            bound = step.cast(step.input(slot), step.data_type(step.first))
            bounds.append(step("Reshape", bound, step.ints([])))
        else:
            bounds.append(step.number(step.op.attr(attribute, 0.0)))
    return step("Clip", step.x, *bounds)


@_formula("hard_swish")
def _hard_swish(step: Step) -> str:
    threshold, scale, offset = (
        step.op.attr(name, default)
        for name, default in (("threshold", 6.0), ("scale", 6.0), ("offset", 3.0))
    )
    if (threshold, scale, offset) == (6.0, 6.0, 3.0):
        return step("HardSwish", step.x)
    moved = step("Add", step.x, step.number(offset))
    clipped = step("Clip", moved, step.number(0), step.number(threshold))
    return step("Div", step("Mul", step.x, clipped), step.number(scale))


@_formula("swish")
def _swish(step: Step) -> str:
    beta = step.op.attr("beta", 1.0)
    inner = step.x if beta == 1 else step("Mul", step.x, step.number(beta))
    return step("Mul", step.x, step("Sigmoid", inner))


@_formula("silu")
def _silu(step: Step) -> str:
    return step("Mul", step.x, step("Sigmoid", step.x))


@_formula("swiglu")
def _swiglu(step: Step) -> str:
    if step.op.inputs("y"):
        x, y = step.input("x"), step.input("y")
    else:
        half = step.dims()[-1] // 2
        axis, ends = step.rank() - 1, [(0, half), (half, 2 * half)]
        x, y = (step.slice(step.x, [start], [end], [axis]) for start, end in ends)
    return step("Mul", step("Mul", x, step("Sigmoid", x)), y)


@_formula("gelu")
def _gelu(step: Step) -> str:
    half = step("Mul", step.x, step.number(0.5))
    if step.op.attr("approximate", False):
        cubed = step("Mul", step("Mul", step.x, step.x), step.x)
        inner = step("Add", step.x, step("Mul", cubed, step.number(0.044715)))
        bent = step("Tanh", step("Mul", inner, step.number(math.sqrt(2 / math.pi))))
    else:
        bent = step("Erf", step("Div", step.x, step.number(math.sqrt(2))))
    return step("Mul", half, step("Add", bent, step.number(1)))


@_formula("mish")
def _mish(step: Step) -> str:
    return step("Mul", step.x, step("Tanh", step("Softplus", step.x)))


@_formula("softplus")
def _softplus(step: Step) -> str:
    beta, threshold = step.op.attr("beta", 1.0), step.op.attr("threshold", 20.0)
    scaled = step("Mul", step.x, step.number(beta))
    soft = step("Div", step("Softplus", scaled), step.number(beta))
    return step("Where", step("Greater", scaled, step.number(threshold)), step.x, soft)


@_formula("stanh")
def _stanh(step: Step) -> str:
    inner = step("Mul", step.x, step.number(step.op.attr("scale_a", 0.67)))
    return step("Mul", step("Tanh", inner), step.number(step.op.attr("scale_b", 1.7159)))


@_formula("tanh_shrink")
def _tanh_shrink(step: Step) -> str:
    return step("Sub", step.x, step("Tanh", step.x))


@_formula("thresholded_relu")
def _thresholded_relu(step: Step) -> str:
    passes = step("Greater", step.x, step.number(step.op.attr("threshold", 1.0)))
    return step("Where", passes, step.x, step.number(step.op.attr("value", 0.0)))


@_formula("rrelu")
def _rrelu(step: Step) -> str:
    slope = (step.op.attr("lower", 0.125) + step.op.attr("upper", 1 / 3)) / 2
    return step("LeakyRelu", step.x, alpha=slope)


@_formula("prelu")
def _prelu(step: Step) -> str:
    slope, mode = step.input("Alpha"), step.op.attr("mode", "all")
    rank, is_last = step.rank(), step.op.attr("data_format", "NCHW") == "NHWC"
    if mode == "channel" and not is_last:
        slope = step("Reshape", slope, step.ints([-1] + [1] * (rank - 2)))
    elif mode == "all":
        slope = step("Reshape", slope, step.ints([1]))
    return step("PRelu", step.x, slope)


@_formula("pow")
def _pow(step: Step) -> str:
    if step.op.inputs("FactorTensor"):
        return step("Pow", step.x, step.input("FactorTensor"))
    return step("Pow", step.x, step.number(step.op.attr("factor", 1.0)))


@_formula("scale")
def _scale(step: Step) -> str:
    x, bias = step.x, step.op.attr("bias", 0.0)
    if step.op.inputs("ScaleTensor"):
        factor = step.cast(step.flat(step.input("ScaleTensor")), step.data_type(step.first))
        factor = step("Reshape", factor, step.ints([]))
    else:
        factor = step.number(step.op.attr("scale", 1.0))
    is_one = not step.op.inputs("ScaleTensor") and step.op.attr("scale", 1.0) == 1.0
    if not step.is_float() and float(bias).is_integer() and is_one:
        return step("Add", x, step.number(bias))
    if not step.op.attr("bias_after_scale", True):
        return step("Mul", step("Add", x, step.number(bias)), factor)
    scaled = x if is_one and bias else step("Mul", x, factor)
    return step("Add", scaled, step.number(bias)) if bias else scaled


@_formula("round")
def _round(step: Step) -> str:
    """Round halves away from zero, unlike ONNX."""
    factor = 10.0 ** step.op.attr("decimals", 0)
    x = step.x if factor == 1 else step("Mul", step.x, step.number(factor))
    size = step("Abs", x)
    whole = step("Floor", size)
    is_half = step("GreaterOrEqual", step("Sub", size, whole), step.number(0.5))
    up = step.cast(is_half, step.data_type(step.first))
    rounded = step("Mul", step("Sign", x), step("Add", whole, up))
    return rounded if factor == 1 else step("Div", rounded, step.number(factor))


@_formula("trunc")
def _trunc(step: Step) -> str:
    return step("Mul", step("Sign", step.x), step("Floor", step("Abs", step.x)))


@_formula("isinf_v2")
def _isinf(step: Step) -> str:
    return step("Equal", step("Abs", step.x), step.number(math.inf))


@_formula("isfinite_v2")
def _isfinite(step: Step) -> str:
    return step("Less", step("Abs", step.x), step.number(math.inf))


@_formula("assign", "conj")
def _assign(step: Step) -> str:
    step.dtype()
    return step("Identity", step.x)


@_formula("cast")
def _cast(step: Step) -> str:
    return step.cast(step.x, step.data_type(step.op.output("Out")))


@_formula("dropout")
def _dropout(step: Step) -> str:
    if step.op.attr("dropout_implementation", "downgrade_in_infer") == "upscale_in_train":
        return step("Identity", step.x)
    return step("Mul", step.x, step.number(1 - step.op.attr("dropout_prob", 0.5)))


# Two tensors.


def operands(step: Step) -> tuple[str, str]:
    """Return both operands of an elementwise op, for ONNX to broadcast, of one dtype.

    The axes of Y start at ``axis`` of X, or end where those of X end.
    """
    first, second = step.op.operands()
    x, y = step.value(first), step.value(second)
    axis, missing = step.op.attr("axis", -1), 0
    if axis >= 0:
        missing = step.rank(first) - axis - step.rank(second)
    if missing > 0:
        y = step.unsqueeze(y, range(step.rank(second), step.rank(second) + missing))
    types = [step.data_type(name) for name in (first, second)]
    if types[0] != types[1]:
        out = step.data_type(step.op.output("Out"))
        common = out if step.op.type.startswith("elementwise") else max(types)
        x, y = step.cast(x, common), step.cast(y, common)
    return x, y


def _binary(onnx: str) -> Row:
    def row(step: Step) -> None:
        step.give("Out", step(onnx, *operands(step)))

    return row


for _op, _onnx in {
    "elementwise_add": "Add",
    "elementwise_sub": "Sub",
    "elementwise_mul": "Mul",
    "elementwise_div": "Div",
    "elementwise_max": "Max",
    "elementwise_min": "Min",
    "elementwise_pow": "Pow",
    "equal": "Equal",
    "less_than": "Less",
    "less_equal": "LessOrEqual",
    "greater_than": "Greater",
    "greater_equal": "GreaterOrEqual",
}.items():
    ROWS[_op] = _binary(_onnx)


@_formula("not_equal")
def _not_equal(step: Step) -> str:
    return step("Not", step("Equal", *operands(step)))


@_formula("elementwise_mod")
def _mod(step: Step) -> str:
    x, y = operands(step)
    return _float_mod(step, x, y) if step.is_float() else step("Mod", x, y)


def _float_mod(step: Step, x: str, y: str) -> str:
    return step("Sub", x, step("Mul", step("Floor", step("Div", x, y)), y))


@_formula("elementwise_floordiv")
def _floordiv(step: Step) -> str:
    x, y = operands(step)
    if step.is_float():
        return step("Floor", step("Div", x, y))
    return step("Div", step("Sub", x, step("Mod", x, y)), y)


def _without_nan(onnx: str) -> Row:
    def row(step: Step) -> None:
        x, y = operands(step)
        if step.is_float():
            x, y = (
                step("Where", step("IsNaN", one), other, one) for one, other in ((x, y), (y, x))
            )
        step.give("Out", step(onnx, x, y))

    return row


ROWS["elementwise_fmax"] = _without_nan("Max")
ROWS["elementwise_fmin"] = _without_nan("Min")


@_formula("elementwise_heaviside")
def _heaviside(step: Step) -> str:
    x, y = operands(step)
    positive = step.cast(step("Greater", x, step.number(0)), step.data_type(step.first))
    return step("Where", step("Equal", x, step.number(0)), y, positive)


def _bitwise(onnx: str, logical: str) -> Row:
    def row(step: Step) -> None:
        if step.dtype().kind == "b":
            step.give("Out", step(logical, step.input("X"), step.input("Y")))
            return
        step.needs_opset(18)
        step.give("Out", step(onnx, step.input("X"), step.input("Y")))

    return row


ROWS["bitwise_and"] = _bitwise("BitwiseAnd", "And")
ROWS["bitwise_or"] = _bitwise("BitwiseOr", "Or")
ROWS["bitwise_xor"] = _bitwise("BitwiseXor", "Xor")


@_formula("bitwise_not")
def _bitwise_not(step: Step) -> str:
    if step.dtype().kind == "b":
        return step("Not", step.x)
    return step("Sub", step("Neg", step.x), step.number(1))


@_formula("bitwise_left_shift")
def _left_shift(step: Step) -> str:
    return step("Mul", step.input("x"), step("Pow", step.number(2), step.input("y")))


@_formula("bitwise_right_shift")
def _right_shift(step: Step) -> str:
    x, power = step.input("x"), step("Pow", step.number(2), step.input("y"))
    return step("Div", step("Sub", x, step("Mod", x, power)), power)


@_formula("copysign")
def _copysign(step: Step) -> str:
    x, y = step("Abs", step.input("x")), step.input("y")
    return step("Where", step("Less", y, step.number(0)), step("Neg", x), x)


@_formula("atan2")
def _atan2(step: Step) -> str:
    y, x = step.input("X1"), step.input("X2")
    zero, pi = step.number(0), step.number(math.pi)
    angle = step("Atan", step("Div", y, x))
    up, down = step("Add", angle, pi), step("Sub", angle, pi)
    turned = step("Where", step("Less", y, zero), down, up)
    upright = step("Mul", step("Sign", y), step.number(math.pi / 2))
    known = step("Where", step("Less", x, zero), turned, angle)
    return step("Where", step("Equal", x, zero), upright, known)


@_formula("angle")
def _angle(step: Step) -> str:
    return step("Where", step("Less", step.x, step.number(0)), step.number(math.pi), step.number(0))


@_formula("lerp")
def _lerp(step: Step) -> str:
    x, y = step.input("X"), step.input("Y")
    return step("Add", x, step("Mul", step.input("Weight"), step("Sub", y, x)))


def _near(step: Step) -> str:
    """Return where two tensors are close."""
    x, y = step.input("Input"), step.input("Other")
    tolerances = []
    for slot, default in (("Rtol", 1e-5), ("Atol", 1e-8)):
        if step.op.inputs(slot):
            tolerances.append(step.cast(step.input(slot), step.data_type(step.first)))
        else:
            tolerances.append(step.number(float(step.op.value(slot.lower()) or default)))
    relative, absolute = tolerances
    most = step("Add", absolute, step("Mul", relative, step("Abs", y)))
    close = step("LessOrEqual", step("Abs", step("Sub", x, y)), most)
    close = step("Or", close, step("Equal", x, y))
    if step.op.attr("equal_nan", False):
        close = step("Or", close, step("And", step("IsNaN", x), step("IsNaN", y)))
    return close


@_formula("isclose")
def _isclose(step: Step) -> str:
    return _near(step)


@_formula("allclose")
def _allclose(step: Step) -> str:
    return all_true(step, _near(step))


@_formula("equal_all")
def _equal_all(step: Step) -> str:
    step.builder.data_types[step.op.output("Out")] = proto.data_type_of("bool")
    return all_true(step, step("Equal", step.input("X"), step.input("Y")))


def all_true(step: Step, truths: str) -> str:
    """Return whether all are true; a reduction takes no truths before opset 20."""
    least = step.reduce("Min", step("Cast", truths, to=6), None)
    return step("Cast", least, to=9)


@_formula("label_smooth")
def _label_smooth(step: Step) -> str:
    epsilon = step.op.attr("epsilon", 0.0)
    kept = step("Mul", step.input("X"), step.number(1 - epsilon, step.op.input("X")))
    if step.op.inputs("PriorDist"):
        prior = step("Mul", step.input("PriorDist"), step.number(epsilon))
        return step("Add", kept, prior)
    return step("Add", kept, step.number(epsilon / step.dims(step.op.input("X"))[-1]))


@_formula("affine_channel")
def _affine_channel(step: Step) -> str:
    rank, x = step.rank(step.op.input("X")), step.input("X")
    is_last = step.op.attr("data_layout", "NCHW") == "NHWC"
    after = [] if is_last else [1] * (rank - 2)
    scale, bias = (
        step("Reshape", step.input(slot), step.ints([-1, *after])) for slot in ("Scale", "Bias")
    )
    return step("Add", step("Mul", x, scale), bias)
