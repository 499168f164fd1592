"""Ops of numerical libraries: running products, medians, counts, and losses of classes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .. import proto
from .builder import Rows, Step, rows_of

ROWS: Rows = {}
_rows = rows_of(ROWS)

# Values that accumulate along an axis.


def _shifted(step: Step, value: str, axis: int, by: int, filler: str) -> str:
    """Move values along an axis, towards its end if ``by`` is positive; ``filler`` comes in."""
    rank = step.rank()
    pads = [0] * 2 * rank
    pads[axis], pads[rank + axis] = by, -by
    return step("Pad", value, step.ints(pads), filler)


def _shifts(step: Step, axis: int) -> list[int]:
    """Return by how much values move until each has met all in front of it."""
    length = step.dims()[axis]
    if length < 0:
        raise step.refused(f"axis {axis} of '{step.first}' has no fixed length")
    sign = -1 if step.op.attr("reverse", False) else 1
    return [sign << at for at in range(max(0, length - 1).bit_length())]


def _accumulated(
    step: Step, value: str, axis: int, neutral: str, combine: Callable[[str, str], str]
) -> str:
    """Return what ``combine`` makes of each value and of all in front of it."""
    shifts = _shifts(step, axis)
    for by in shifts:
        value = combine(value, _shifted(step, value, axis, by, neutral))
    if step.op.attr("exclusive", False):
        value = _shifted(step, value, axis, shifts[0] if shifts else 1, neutral)
    return value


@_rows("cumprod")
def _cumprod(step: Step) -> None:
    axis = step.axis("dim", -1)
    product = _accumulated(step, step.x, axis, step.number(1), lambda a, b: step("Mul", a, b))
    step.give("Out", product)


@_rows("logcumsumexp")
def _logcumsumexp(step: Step) -> None:
    if step.op.attr("flatten", False):
        raise step.refused("it flattens what it reads")
    one = step.number(1)

    def add(a: str, b: str) -> str:
        less = step("Neg", step("Abs", step("Sub", a, b)))
        return step("Add", step("Max", a, b), step("Log", step("Add", one, step("Exp", less))))

    least = step.number(float(np.finfo(np.float32).min))
    step.give("Out", _accumulated(step, step.x, step.axis("axis", -1), least, add))


@_rows("cummax", "cummin")
def _cummax(step: Step) -> None:
    """Give the values, and the place of the last one of the same value."""
    is_maximum, axis, dtype = step.op.type == "cummax", step.axis("axis", -1), step.dtype()
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    neutral = step.number(limits.min if is_maximum else limits.max)
    kind, passes = ("Max", "Greater") if is_maximum else ("Min", "Less")
    shape = [1] * step.rank()
    shape[axis] = -1
    along = step.constant(np.arange(max(0, step.dims()[axis]), dtype=np.int64).reshape(shape))
    values, places = step.x, step("Expand", along, step.shape(step.x))
    for by in _shifts(step, axis):
        earlier = _shifted(step, values, axis, by, neutral)
        earlier_places = _shifted(step, places, axis, by, step.constant(np.array(0, np.int64)))
        places = step("Where", step(passes, earlier, values), earlier_places, places)
        values = step(kind, values, earlier)
    step.give("out", values)
    step.give_as_declared("indices", places)


@_rows("frame")
def _frame(step: Step) -> None:
    """Cut an axis into windows: [..., length, windows], or [windows, length, ...] of axis 0."""
    is_first = step.op.attr("axis", -1) == 0
    axis = 0 if is_first else step.rank() - 1
    length, hop = step.op.attr("frame_length", 1), step.op.attr("hop_length", 1)
    end = step("Sub", step.size(step.x, axis), step.ints([length - 1]))
    zero, by = (step.constant(np.array(number, np.int64)) for number in (0, hop))
    starts = step("Range", zero, step("Squeeze", end), by)
    within = step.ints(range(length))
    places = step(
        "Add",
        step.unsqueeze(starts, [1 if is_first else 0]),
        step.unsqueeze(within, [0 if is_first else 1]),
    )
    step.give("Out", step("Gather", step.x, places, axis=axis))


# Values by their order or number.


@_rows("median", "nanmedian")
def _median(step: Step) -> None:
    """Give the middle one of the values that are numbers, or the mean of both in the middle."""
    keeps, given = step.op.attr("keepdim", False), step.op.value("axis")
    axes = step.axes([given] if isinstance(given, int) else list(given or ()))
    if len(axes) > 1 or (not axes and keeps):
        raise step.refused("it is that of several axes")
    (axis,) = axes or [0]
    x = step.x if axes else step.flat(step.x)
    is_nan = step("IsNaN", x)
    numbers = step("Where", is_nan, step.number(math.inf), x)
    ordered, _ = step.many("TopK", [numbers, step.size(x, axis)], 2, axis=axis, largest=0)
    count = step.reduce("Sum", step.as_int64(step("Not", is_nan)), [axis], keepdims=True)
    zero, one, two = (step.constant(np.array(number, np.int64)) for number in (0, 1, 2))
    lower = step("Max", step("Div", step("Sub", count, one), two), zero)
    found = step("GatherElements", ordered, lower, axis=axis)
    if step.op.attr("mode", "avg") == "avg":
        upper = step("GatherElements", ordered, step("Div", count, two), axis=axis)
        found = step("Mul", step("Add", found, upper), step.number(0.5))
    total = step.size(x, axis) if step.op.type == "median" else one
    is_known = step("Not", step("Less", count, total))
    found = step("Where", is_known, found, step.number(math.nan))
    found = found if keeps else step.squeeze(found, [axis])
    step.give("out" if step.op.type == "median" else "Out", found)


@_rows("histogram")
def _histogram(step: Step) -> None:
    if step.op.inputs("Weight") or step.op.attr("density", False):
        raise step.refused("it weighs values or gives a density")
    attr, x = step.op.attr, step.cast(step.flat(step.input("X")), proto.FP32)
    bins, least, most = attr("bins", 100), float(attr("min", 0.0)), float(attr("max", 0.0))
    if least == most:
        raise step.refused("its range is that of the data")
    bound = [step.constant(np.array(value, np.float32)) for value in (least, most, bins)]
    scaled = step(
        "Div", step("Mul", step("Sub", x, bound[0]), bound[2]), step("Sub", *bound[1::-1])
    )
    last = step.constant(np.array(bins - 1, np.float32))
    places = step("Min", step("Floor", scaled), last)
    is_inside = step(
        "And", step("LessOrEqual", x, bound[1]), step("Not", step("Less", x, bound[0]))
    )
    each = step.constant(np.arange(bins, dtype=np.float32))
    hits = step("Equal", step.unsqueeze(places, [1]), step.unsqueeze(each, [0]))
    counted = step.as_int64(step("And", hits, step.unsqueeze(is_inside, [1])))
    step.give_as_declared("Out", step.reduce("Sum", counted, [0]))


@_rows("unique_consecutive")
def _unique_consecutive(step: Step) -> None:
    """Give the values that differ from the one in front, which they equal, and how many do."""
    if step.op.value("axis"):
        raise step.refused("it compares slices of an axis")
    x = step.flat(step.x)
    end = np.iinfo(np.int64).max
    before, behind = step.slice(x, [0], [-1], [0]), step.slice(x, [1], [end], [0])
    first = step.constant(np.array([True]))
    is_new = step.concat([first, step("Not", step("Equal", before, behind))], 0)
    step.give("Out", step("Compress", x, is_new, axis=0))
    runs = step("CumSum", step.as_int64(is_new), step.constant(np.array(0, np.int64)))
    data_type = step.op.attr("dtype", proto.data_type_of("int64"))
    step.give_typed("Index", step("Sub", runs, step.ints([1])), data_type)
    starts = step.squeeze(step("NonZero", is_new), [0])
    ends = step.concat([step.slice(starts, [1], [end], [0]), step.size(x, 0)], 0)
    step.give_typed("Counts", step("Sub", ends, starts), data_type)


@_rows("renorm")
def _renorm(step: Step) -> None:
    """Shrink slices whose norm is too large."""
    power, most = step.op.attr("p", 2.0), step.number(step.op.attr("max_norm", 1.0))
    axis = step.axis("axis", 0)
    others = [at for at in range(step.rank()) if at != axis]
    sizes = step("Pow", step("Abs", step.x), step.number(power))
    norm = step("Pow", step.reduce("Sum", sizes, others, True), step.number(1 / power))
    factor = step("Where", step("Greater", norm, most), step("Div", most, norm), step.number(1))
    step.give("Out", step("Mul", step.x, factor))


# Losses of classes, which some models compute beside their outputs.


@_rows("kldiv_loss")
def _kldiv(step: Step) -> None:
    x, target, zero = step.input("X"), step.input("Target"), step.number(0)
    if step.op.attr("log_target", False):
        loss = step("Mul", step("Exp", target), step("Sub", target, x))
    else:
        loss = step("Mul", target, step("Sub", step("Log", target), x))
        loss = step("Where", step("Greater", target, zero), loss, zero)
    reduction = step.op.attr("reduction", "mean")
    if reduction == "mean":
        loss = step.reduce("Mean", loss, None)
    elif reduction != "none":
        loss = step.reduce("Sum", loss, None)
    if reduction == "batchmean":
        rows = step("Squeeze", step.size(x, 0))
        loss = step("Div", loss, step.cast(rows, step.data_type(step.first)))
    step.give("Loss", loss)


@_rows("nll_loss")
def _nll(step: Step) -> None:
    inputs = [step.input("X"), step.as_int64(step.input("Label")), step.optional("Weight")]
    attributes = {"ignore_index": step.op.attr("ignore_index", -100)}
    reduction = step.op.attr("reduction", "mean")
    loss = step.many("NegativeLogLikelihoodLoss", inputs, 1, reduction=reduction, **attributes)[0]
    step.give("Out", loss)


@_rows("softmax_with_cross_entropy")
def _cross_entropy(step: Step) -> None:
    axis, logits = step.axis("axis", -1), step.input("Logits")
    label, is_soft = step.input("Label"), step.op.attr("soft_label", False)
    if step.op.attr("use_softmax", True):
        step.give("Softmax", step("Softmax", logits, axis=axis))
        logs = step("LogSoftmax", logits, axis=axis)
    else:
        step.give("Softmax", step("Identity", logits))
        logs = step("Log", logits)
    if is_soft:
        hit = step.reduce("Sum", step("Mul", label, logs), [axis], keepdims=True)
        step.give("Loss", step("Neg", hit))
        return
    label, ignored, zero = step.as_int64(label), step.op.attr("ignore_index", -100), step.number(0)
    if step.rank(step.op.input("Label")) < step.rank():
        label = step.unsqueeze(label, [axis])
    first = step.constant(np.array(0, np.int64))
    is_ignored = step("Equal", label, step.constant(np.array(ignored, np.int64)))
    hit = step("GatherElements", logs, step("Where", is_ignored, first, label), axis=axis)
    step.give("Loss", step("Where", is_ignored, zero, step("Neg", hit)))
