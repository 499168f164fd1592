"""Ops that make tensors."""

from __future__ import annotations

import math

import numpy as np

from .. import proto
from ..parameters import Array
from .builder import Rows, Step, rows_of

ROWS: Rows = {}
_rows = rows_of(ROWS)


def _number(step: Step, name: str) -> float:
    """Return an attribute that is a number, a Scalar or text."""
    found = proto.plain(step.op.value(name))
    return float(found) if isinstance(found, str) else found


@_rows("fill_constant")
def _fill_constant(step: Step) -> None:
    out = step.op.output("Out")
    text = step.op.attr("str_value", "")
    value = text if text not in ("", "nan") else step.op.attr("value", 0.0)
    dtype = step.dtype(out)
    number = int(value) if dtype.kind in "iu" and _is_whole(value) else float(value)
    if step.op.inputs("ValueTensor"):
        filling = step.cast(step.flat(step.input("ValueTensor")), step.data_type(out))
    else:
        filling = step.constant(np.array([number]).astype(dtype))
    shape = step.op.ints("shape")
    if step.lacks(("ShapeTensor", "ShapeTensorList")):
        if not step.op.inputs("ValueTensor") and math.prod(shape) <= _SMALL:
            step.give("Out", step.constant(np.full(shape, number).astype(dtype)))
            return
        lengths = step.ints(shape)
    else:
        lengths = step.numbers("shape", "ShapeTensor", "ShapeTensorList")
    step.give("Out", step("Expand", step("Reshape", filling, step.ints([])), lengths))


_SMALL = 1024  # values that are stored one by one


def _is_whole(value: object) -> bool:
    try:
        int(value)  # type: ignore[call-overload]
    except ValueError:
        return False
    return True


@_rows("fill_any_like")
def _fill_any_like(step: Step) -> None:
    out = step.op.output("Out")
    filling = step.number(step.op.attr("value", 0.0), out)
    step.give("Out", step("Expand", filling, step.shape(step.x)))


@_rows("fill_constant_batch_size_like")
def _like_batch(step: Step) -> None:
    shape, out = list(step.op.ints("shape")), step.op.output("Out")
    source, target = step.op.attr("input_dim_idx", 0), step.op.attr("output_dim_idx", 0)
    size = step.size(step.input("Input"), source)
    lengths = step.concat([step.ints(shape[:target]), size, step.ints(shape[target + 1 :])], 0)
    filling = step.number(step.op.attr("value", 0.0), out)
    step.give("Out", step("Expand", filling, lengths))


@_rows("assign_value")
def _assign_value(step: Step) -> None:
    values = next((list(found) for name in _VALUES if (found := step.op.value(name))), [])
    array = np.array([proto.plain(one) for one in values])
    shape = step.op.ints("shape")
    step.give("Out", step.constant(array.astype(step.dtype(step.op.output("Out"))).reshape(shape)))


_VALUES = ("values", "fp32_values", "int32_values", "int64_values", "fp64_values", "bool_values")


@_rows("range")
def _range(step: Step) -> None:
    out = step.op.output("Out")
    bounds = []
    for name in ("Start", "End", "Step"):
        if step.op.inputs(name):
            bound = step.cast(step.input(name), step.data_type(out))
            bounds.append(step("Reshape", bound, step.ints([])))
        else:
            bounds.append(step.number(_number(step, name.lower()), out))
    step.give("Out", step("Range", *bounds))


def _made(step: Step, array: Array) -> None:
    out = step.op.outputs("Out") or step.op.outputs("out")
    step.hold(out[0], step.constant(array.astype(step.dtype(out[0]))))


@_rows("linspace", "logspace")
def _linspace(step: Step) -> None:
    given = []
    for slot in ("Start", "Stop", "Num", "Base"):
        for variable in step.op.inputs(slot):
            known = step.known(variable)
            if known is None:
                raise step.refused("its ends are computed")
            given.append(known.reshape(-1)[0])
    places = np.linspace(float(given[0]), float(given[1]), int(given[2]))
    _made(step, places if step.op.type == "linspace" else float(given[3]) ** places)


@_rows("tril_indices", "triu_indices")
def _triangle(step: Step) -> None:
    attr = step.op.attr
    if step.op.type == "tril_indices":
        found = np.tril_indices(attr("rows", 1), attr("offset", 0), attr("cols", 1))
    else:
        found = np.triu_indices(attr("row", 1), attr("offset", 0), attr("col", 1))
    _made(step, np.stack(found))


@_rows("eye")
def _eye(step: Step) -> None:
    rows, columns = step.op.attr("num_rows", 1), step.op.attr("num_columns", -1)
    _made(step, np.eye(rows, columns if columns > 0 else None))
