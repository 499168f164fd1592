"""Ops that reduce, accumulate, normalize over an axis, or measure a loss."""

from __future__ import annotations

import math

import numpy as np

from .builder import Row, Rows, Step, rows_of

ROWS: Rows = {}
_rows = rows_of(ROWS)


def _axes(step: Step, name: str = "dim") -> list[int] | None:
    """Return the axes that are reduced, None for all."""
    given = step.op.value(name)
    given = [given] if isinstance(given, int) else list(given or ())
    if step.op.attr("reduce_all", False) or not given:
        return None
    axes = sorted(set(step.axes(given)))
    return None if len(axes) == step.rank() else axes


def _give(step: Step, kind: str, value: str, axes: list[int] | None, keeps: bool) -> str:
    """Reduce; without axes, Paddle 2 gives one value along one axis."""
    found = step.reduce(kind, value, axes, keeps)
    if axes is None and not keeps and step.rank(step.op.output("Out")) == 1:
        return step.unsqueeze(found, [0])
    return found


def _reduction(kind: str) -> Row:
    def row(step: Step) -> None:
        value = step.x
        out = step.data_type(step.op.output("Out"))
        if out != step.data_type(step.first):
            value = step.cast(value, out)
        step.give("Out", _give(step, kind, value, _axes(step), step.op.attr("keep_dim", False)))

    return row


for _name, _kind in {
    "sum": "Sum",
    "mean": "Mean",
    "max": "Max",
    "min": "Min",
    "amax": "Max",
    "amin": "Min",
    "prod": "Prod",
}.items():
    ROWS[f"reduce_{_name}"] = _reduction(_kind)


def _truth(kind: str) -> Row:
    def row(step: Step) -> None:
        numbers, keeps = step("Cast", step.x, to=6), step.op.attr("keep_dim", False)
        step.give("Out", step("Cast", _give(step, kind, numbers, _axes(step), keeps), to=9))

    return row


ROWS["reduce_all"] = _truth("Min")
ROWS["reduce_any"] = _truth("Max")


@_rows("mean")
def _mean(step: Step) -> None:
    step.give("Out", _give(step, "Mean", step.x, None, False))


@_rows("logsumexp")
def _logsumexp(step: Step) -> None:
    keeps = step.op.attr("keepdim", False) or step.op.attr("keep_dim", False)
    step.give("Out", _give(step, "LogSumExp", step.x, _axes(step, "axis"), keeps))


@_rows("frobenius_norm")
def _frobenius(step: Step) -> None:
    keeps = step.op.attr("keep_dim", False)
    step.give("Out", _give(step, "L2", step.x, _axes(step), keeps))


@_rows("p_norm")
def _p_norm(step: Step) -> None:
    power, keeps = step.op.attr("porder", 2.0), step.op.attr("keepdim", False)
    axes = None if step.op.attr("asvector", False) else [step.axis("axis", -1)]
    step.give("Out", _norm(step, step.x, power, axes, keeps))


def _norm(step: Step, value: str, power: float, axes: list[int] | None, keeps: bool) -> str:
    if power in (1, 2):
        return _give(step, f"L{int(power)}", value, axes, keeps)
    sizes = step("Abs", value)
    if math.isinf(power):
        return _give(step, "Max" if power > 0 else "Min", sizes, axes, keeps)
    if power == 0:
        used = step.cast(step("Greater", sizes, step.number(0)), step.data_type(step.first))
        return _give(step, "Sum", used, axes, keeps)
    total = _give(step, "Sum", step("Pow", sizes, step.number(power)), axes, keeps)
    return step("Pow", total, step.number(1 / power))


@_rows("dist")
def _dist(step: Step) -> None:
    apart = step("Sub", step.input("X"), step.input("Y"))
    step.give("Out", _norm(step, apart, step.op.attr("p", 2.0), None, False))


@_rows("cumsum")
def _cumsum(step: Step) -> None:
    flat = step.op.attr("flatten", False)
    value = step.flat(step.input("X")) if flat else step.input("X")
    axis = step.constant(np.array(0 if flat else step.op.attr("axis", -1), np.int64))
    exclusive, reverse = (int(step.op.attr(name, False)) for name in ("exclusive", "reverse"))
    step.give("Out", step("CumSum", value, axis, exclusive=exclusive, reverse=reverse))


@_rows("softmax", "log_softmax")
def _softmax(step: Step) -> None:
    kind = "Softmax" if step.op.type == "softmax" else "LogSoftmax"
    if not step.rank():  # one value
        found = step(kind, step.flat(step.x), axis=0)
        step.give("Out", step("Reshape", found, step.ints([])))
        return
    step.give("Out", step(kind, step.x, axis=step.axis("axis", -1)))


@_rows("maxout")
def _maxout(step: Step) -> None:
    groups, axis, rank = step.op.attr("groups", 1), step.axis("axis", 1), step.rank()
    length = step.dims()[axis] // groups
    shape = [0] * axis + [length, groups] + [0] * (rank - axis - 1)
    if axis + 1 < rank:  # ONNX's 0 copies the length of the same place
        before = step.slice(step.shape(step.x), [0], [axis], [0])
        after = step.slice(step.shape(step.x), [axis + 1], [rank], [0])
        split = step.concat([before, step.ints([length, groups]), after], 0)
    else:
        split = step.ints(shape)
    step.give("Out", step.reduce("Max", step("Reshape", step.x, split), [axis + 1]))


@_rows("trace")
def _trace(step: Step) -> None:
    first, second = step.axis("axis1", 0), step.axis("axis2", 1)
    mask = diagonal_mask(step, step.x, step.rank(), first, second, step.op.attr("offset", 0))
    kept = step("Where", mask, step.input("Input"), step.number(0))
    step.give("Out", step.reduce("Sum", kept, sorted((first, second))))


def diagonal_mask(step: Step, value: str, rank: int, row: int, column: int, offset: int) -> str:
    """Return where the places of two axes lie on a diagonal, for values of this rank."""
    places = []
    for axis in (row, column):
        zero, one = (step.constant(np.array(number, np.int64)) for number in (0, 1))
        size = step("Squeeze", step.size(value, axis), step.ints([0]))
        along = step("Range", zero, size, one)
        places.append(step.unsqueeze(along, [at for at in range(rank) if at != axis]))
    moved = step("Add", places[0], step.ints([offset]))
    return step("Equal", moved, places[1])


# Losses, which some models compute beside their outputs.


@_rows("huber_loss")
def _huber(step: Step) -> None:
    x, y = step.op.operands()
    delta = step.op.attr("delta", 1.0)
    apart = step("Sub", step.value(y), step.value(x))
    size, half = step("Abs", apart), step.number(0.5)
    near = step("Mul", step("Mul", apart, apart), half)
    far = step("Mul", step("Sub", size, step.number(delta / 2)), step.number(delta))
    is_near = step("LessOrEqual", size, step.number(delta))
    step.hold(step.op.output("Out"), step("Where", is_near, near, far))


@_rows("bce_loss")
def _bce(step: Step) -> None:
    x, label, one = step.input("X"), step.input("Label"), step.number(1)
    logs = [step("Log", part) for part in (x, step("Sub", one, x))]
    least = step.number(-100)
    positive, negative = (step("Max", part, least) for part in logs)
    total = step(
        "Add",
        step("Mul", label, positive),
        step("Mul", step("Sub", one, label), negative),
    )
    step.give("Out", step("Neg", total))


@_rows("log_loss")
def _log_loss(step: Step) -> None:
    x, label = step.input("Predicted"), step.input("Labels")
    epsilon, one = step.number(step.op.attr("epsilon", 1e-4)), step.number(1)
    hit = step("Mul", label, step("Log", step("Add", x, epsilon)))
    rest = step("Log", step("Add", step("Sub", one, x), epsilon))
    miss = step("Mul", step("Sub", one, label), rest)
    step.give("Loss", step("Neg", step("Add", hit, miss)))


@_rows("sigmoid_cross_entropy_with_logits")
def _sigmoid_cross_entropy(step: Step) -> None:
    if step.op.inputs("pos_weight") or step.op.attr("normalize", False):
        raise step.refused("it weighs classes or normalizes")
    x, label = step.input("X"), step.input("Label")
    apart = step("Sub", step("Max", x, step.number(0)), step("Mul", x, label))
    tail = step("Softplus", step("Neg", step("Abs", x)))
    step.give("Out", step("Add", apart, tail))
