"""Ops that look up, search, sort, or put values into places."""

from __future__ import annotations

import numpy as np

from .. import proto
from .builder import Rows, Step, rows_of
from .reductions import diagonal_mask

ROWS: Rows = {}
_rows = rows_of(ROWS)


def _axis_of(step: Step, slot: str, name: str) -> int:
    if step.op.inputs(slot):
        known = step.known(step.op.input(slot))
        if known is None:
            raise step.refused("its axis is computed")
        return int(known.reshape(-1)[0])
    return step.op.attr(name, 0)


@_rows("gather")
def _gather(step: Step) -> None:
    axis, index = _axis_of(step, "Axis", "axis"), step.op.input("Index")
    value = step.value(index)
    if step.rank(index) == 2:  # one column of numbers
        value = step.squeeze(value, [1])
    step.give("Out", step("Gather", step.input("X"), value, axis=axis))


@_rows("index_select")
def _index_select(step: Step) -> None:
    axis = step.op.attr("dim", 0)
    step.give("Out", step("Gather", step.input("X"), step.input("Index"), axis=axis))


@_rows("gather_nd")
def _gather_nd(step: Step) -> None:
    step.give("Out", step("GatherND", step.input("X"), step.as_int64(step.input("Index"))))


@_rows("index_sample")
def _index_sample(step: Step) -> None:
    step.give("Out", step("GatherElements", step.input("X"), step.input("Index"), axis=1))


@_rows("take_along_axis")
def _take_along_axis(step: Step) -> None:
    found = step(
        "GatherElements", step.input("Input"), step.input("Index"), axis=step.op.attr("Axis", 0)
    )
    step.give("Result", found)


_REDUCTIONS = {"assign": "none", "add": "add", "mul": "mul", "multiply": "mul"}


@_rows("put_along_axis")
def _put_along_axis(step: Step) -> None:
    kind = step.op.attr("Reduce", "assign")
    if kind not in _REDUCTIONS or not step.op.attr("Include_self", True):
        raise step.refused(f"it puts by '{kind}', or leaves out what was there")
    index = step.input("Index")
    value = step("Expand", step.input("Value"), step.shape(index))
    axis, inputs = step.op.attr("Axis", 0), (step.input("Input"), index, value)
    put = step("ScatterElements", *inputs, axis=axis, reduction=_REDUCTIONS[kind])
    step.give("Result", put)


def _rows_at(step: Step, index: str) -> str:
    """Return numbers of rows as ScatterND takes them: [rows, 1]."""
    return step("Reshape", step.as_int64(step.input(index)), step.ints([-1, 1]))


@_rows("scatter")
def _scatter(step: Step) -> None:
    x, places, updates = step.input("X"), _rows_at(step, "Ids"), step.input("Updates")
    if step.op.attr("overwrite", True):
        step.give("Out", step("ScatterND", x, places, updates))
        return
    zeros = step("Mul", updates, step.number(0, step.op.input("X")))
    cleared = step("ScatterND", x, places, zeros)  # rows are added to zeros, not to what was there
    step.give("Out", step("ScatterND", cleared, places, updates, reduction="add"))


@_rows("scatter_nd_add")
def _scatter_nd_add(step: Step) -> None:
    places = step.as_int64(step.input("Index"))
    inputs = step.input("X"), places, step.input("Updates")
    step.give("Out", step("ScatterND", *inputs, reduction="add"))


@_rows("index_add")
def _index_add(step: Step) -> None:
    x, axis = step.op.input("X"), step.op.attr("axis", 0)
    rank = step.rank(x)
    axis %= rank
    perm = [axis, *(one for one in range(rank) if one != axis)]
    back = [perm.index(one) for one in range(rank)]
    moved = [step.transpose(step.input(slot), perm) for slot in ("X", "AddValue")]
    added = step("ScatterND", moved[0], _rows_at(step, "Index"), moved[1], reduction="add")
    step.give("Out", step.transpose(added, back))


@_rows("index_put")
def _index_put(step: Step) -> None:
    x, indices = step.input("x"), step.inputs("indices")
    if any(step.dtype(name).kind == "b" for name in step.op.inputs("indices")):
        raise step.refused("its places are truth values")
    whole = [step.as_int64(one) for one in indices]
    shape = step.shape(whole[0])
    if len(whole) > 1:
        for other in whole[1:]:
            shape = step("Max", shape, step.shape(other))
        whole = [step("Expand", one, shape) for one in whole]
    places = step.concat(
        [step.unsqueeze(one, [step.rank(step.op.inputs("indices")[0])]) for one in whole], -1
    )
    after = step.slice(step.shape(x), [len(whole)], [step.rank(step.op.input("x"))], [0])
    value = step("Expand", step.input("value"), step.concat([shape, after], 0))
    kind = "add" if step.op.attr("accumulate", False) else "none"
    step.give("out", step("ScatterND", x, places, value, reduction=kind))


@_rows("masked_fill")
def _masked_fill(step: Step) -> None:
    x, value = step.op.input("x"), step.input("value")
    found = step("Where", step.input("mask"), step.cast(value, step.data_type(x)), step.value(x))
    step.give("out", found)


@_rows("masked_select")
def _masked_select(step: Step) -> None:
    x, mask = step.input("X"), step.input("Mask")
    shape = step("Max", step.shape(x), step.shape(mask))
    flat = [step.flat(step("Expand", one, shape)) for one in (x, mask)]
    step.give("Y", step("Compress", flat[0], flat[1], axis=0))


@_rows("where_index")
def _nonzero(step: Step) -> None:
    step.give("Out", step.transpose(step("NonZero", step.input("Condition")), [1, 0]))


@_rows("multiplex")
def _multiplex(step: Step) -> None:
    stacked = step.concat([step.unsqueeze(one, [0]) for one in step.inputs("X")], 0)
    which = step.as_int64(step("Reshape", step.input("Ids"), step.ints([-1])))
    zero, one = (step.constant(np.array(number, np.int64)) for number in (0, 1))
    count = step("Squeeze", step.size(which, 0), step.ints([0]))
    places = step("Range", zero, count, one)
    both = step.concat([step.unsqueeze(part, [1]) for part in (which, places)], 1)
    step.give("Out", step("GatherND", stacked, both))


@_rows("set_value")
def _set_value(step: Step) -> None:
    """Put values where a slice of the numbered places says."""
    x, axes = step.input("Input"), list(step.op.ints("axes"))
    if step.op.ints("none_axes"):
        raise step.refused("it adds axes")
    shape, size = step.shape(x), step("Size", x)
    zero, one = (step.constant(np.array(number, np.int64)) for number in (0, 1))
    places = step("Reshape", step("Range", zero, size, one), shape)
    bounds = [
        step.numbers(name, "", f"{slot}TensorList")
        for name, slot in (("starts", "Starts"), ("ends", "Ends"), ("steps", "Steps"))
    ]
    chosen = step("Slice", places, bounds[0], bounds[1], step.ints(axes), bounds[2])
    dropped = sorted(step.op.ints("decrease_axes"))
    target = step.squeeze(chosen, dropped)
    value = step("Expand", _value(step), step.shape(target))
    put = step("ScatterElements", step.flat(x), step.flat(chosen), step.flat(value), axis=0)
    step.give("Out", step("Reshape", put, shape))


def _value(step: Step) -> str:
    if step.op.inputs("ValueTensor"):
        return step.input("ValueTensor")
    values = next(list(found) for name in _VALUES if (found := step.op.value(name)))
    array = np.array([proto.plain(one) for one in values]).astype(step.dtype())
    return step.constant(array.reshape(step.op.ints("shape") or (-1,)))


_VALUES = ("values", "fp32_values", "int32_values", "int64_values", "fp64_values", "bool_values")


# Searching and sorting.


@_rows("arg_max", "arg_min")
def _arg(step: Step) -> None:
    kind = "ArgMax" if step.op.type == "arg_max" else "ArgMin"
    keeps = step.op.attr("keepdims", False)
    if step.op.attr("flatten", False):
        found = step(kind, step.flat(step.x), axis=0, keepdims=0)
        out = step.dims(step.op.output("Out"))
        found = step("Reshape", found, step.ints([1] * len(out)))
    else:
        found = step(kind, step.x, axis=step.op.attr("axis", -1), keepdims=int(keeps))
    step.give_as_declared("Out", found)


def _top(step: Step, count: str, axis: int, largest: bool) -> list[str]:
    return step.many("TopK", [step.input("X"), count], 2, axis=axis, largest=int(largest))


@_rows("argsort")
def _argsort(step: Step) -> None:
    axis = step.axis("axis", -1)
    count = step.size(step.input("X"), axis)
    values, places = _top(step, count, axis, step.op.attr("descending", False))
    step.hold(step.op.output("Out"), values)
    step.give("Indices", places)


@_rows("top_k_v2", "top_k")
def _top_k(step: Step) -> None:
    axis = step.op.attr("axis", -1) if step.op.type == "top_k_v2" else -1
    count = step.numbers("k", "K")
    values, places = _top(step, count, axis, step.op.attr("largest", True))
    step.hold(step.op.output("Out"), values)
    step.give("Indices", places)


@_rows("kthvalue")
def _kthvalue(step: Step) -> None:
    axis, k = step.axis("axis", -1), step.op.attr("k", 1)
    for slot, found in zip(("Out", "Indices"), _top(step, step.ints([k]), axis, False)):
        last = step("Gather", found, step.constant(np.array(k - 1, np.int64)), axis=axis)
        if step.op.attr("keepdim", False):
            last = step.unsqueeze(last, [axis])
        step.give(slot, last)


@_rows("searchsorted")
def _searchsorted(step: Step) -> None:
    """Count the values of the sequence that are less."""
    sequence, values = step.op.input("SortedSequence"), step.op.input("Values")
    if step.rank(sequence) != 1:
        raise step.refused("it searches many sequences")
    wanted = step.unsqueeze(step.value(values), [step.rank(values)])
    kind = "LessOrEqual" if step.op.attr("right", False) else "Less"
    less = step("Cast", step(kind, step.value(sequence), wanted), to=7)
    step.give_as_declared("Out", step.reduce("Sum", less, [step.rank(values)]))


@_rows("unique")
def _unique(step: Step) -> None:
    axes = step.op.ints("axis")
    attributes = {"axis": axes[0]} if axes else {}
    names = step.many("Unique", [step.x], 4, sorted=1, **attributes)
    places = proto.data_type_of("int64") if step.op.attr("dtype", 3) == 3 else proto.INT32
    step.builder.data_types[step.op.output("Out")] = step.data_type(step.first)
    step.hold(step.op.output("Out"), names[0])
    for slot, found in zip(("Indices", "Index", "Counts"), names[1:]):
        step.give_typed(slot, found, places)


@_rows("one_hot_v2")
def _one_hot(step: Step) -> None:
    depth = step.numbers("depth", "depth_tensor")
    values = step.constant(np.array([0, 1], np.float32))
    found = step("OneHot", step.input("X"), depth, values, axis=-1)
    step.give_as_declared("Out", found)


@_rows("sequence_mask")
def _sequence_mask(step: Step) -> None:
    if step.op.inputs("MaxLenTensor") or step.op.attr("maxlen", -1) < 0:
        raise step.refused("the length of its mask is computed")
    places = step.constant(np.arange(step.op.attr("maxlen", -1)).astype(step.dtype()))
    lengths = step.unsqueeze(step.x, [step.rank()])
    step.give_as_declared("Y", step("Less", places, lengths))


@_rows("shard_index")
def _shard_index(step: Step) -> None:
    numbers, shards = step.op.attr("index_num", 1), step.op.attr("nshards", 1)
    size = step.number((numbers + shards - 1) // shards)
    mine = step.number(step.op.attr("shard_id", 0))
    is_mine = step("Equal", step("Div", step.x, size), mine)
    other = step.number(step.op.attr("ignore_value", -1))
    step.give("Out", step("Where", is_mine, step("Mod", step.x, size), other))


@_rows("bincount")
def _bincount(step: Step) -> None:
    """Add one at the place of each value."""
    if step.op.inputs("Weights"):
        raise step.refused("its values are weighted")
    x = step.as_int64(step.input("X"))
    most = step("Add", step.reduce("Max", x, [0], keepdims=True), step.ints([1]))
    length = step("Max", most, step.ints([step.op.attr("minlength", 0)]))
    zeros = step("Expand", step.ints([0]), length)
    ones = step("Expand", step.ints([1]), step.shape(x))
    counts = step("ScatterElements", zeros, x, ones, axis=0, reduction="add")
    step.give_as_declared("Out", counts)


# Diagonals.


@_rows("diagonal")
def _diagonal(step: Step) -> None:
    first, second = step.axis("axis1", 0), step.axis("axis2", 1)
    rank, dims = step.rank(), step.dims()
    offset = step.op.attr("offset", 0)
    if min(dims[first], dims[second]) < 0:
        raise step.refused("the sizes of its matrices are not known")
    length = min(dims[first] + min(offset, 0), dims[second] - max(offset, 0))
    start = np.arange(max(length, 0))
    places = np.stack([start - min(offset, 0), start + max(offset, 0)], -1)
    others = [axis for axis in range(rank) if axis not in (first, second)]
    front = step.transpose(step.x, [first, second, *others])
    found = step("GatherND", front, step.constant(places.astype(np.int64)))
    step.give("Out", step.transpose(found, [*range(1, rank - 1), 0]))


@_rows("diag_v2")
def _diag(step: Step) -> None:
    if step.rank() != 1 or step.op.attr("offset", 0):
        raise step.refused("it takes a diagonal, or one beside the main one")
    size = step.size(step.x, 0)
    square = step("Expand", step.x, step.concat([size, size], 0))
    mask = diagonal_mask(step, square, 2, 0, 1, 0)
    padding = step.number(step.op.attr("padding_value", 0.0))
    step.give("Out", step("Where", mask, square, padding))


@_rows("diag_embed")
def _diag_embed(step: Step) -> None:
    rank = step.rank()
    ends = step.op.attr("dim1", -2) % (rank + 1), step.op.attr("dim2", -1) % (rank + 1)
    if step.op.attr("offset", 0) or ends != (rank - 1, rank):
        raise step.refused("its diagonal is not the main one of the last two axes")
    column = step.unsqueeze(step.x, [rank])
    size = step.size(step.x, rank - 1)
    zero, one = (step.constant(np.array(number, np.int64)) for number in (0, 1))
    along = step("Range", zero, step("Squeeze", size, step.ints([0])), one)
    is_here = step("Equal", step.unsqueeze(along, [1]), step.unsqueeze(along, [0]))
    step.give("Out", step("Where", is_here, column, step.number(0)))
