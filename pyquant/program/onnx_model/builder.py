"""The ONNX graph while it is made, and the view that a row of the table has of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np

from ...errors import UnsupportedError
from .. import proto
from ..model import Model
from ..op import Op
from ..parameters import Array, DerivedTensor
from .dtypes import has_onnx_dtype, onnx_dtype

Attribute = Union[int, float, str, Sequence[int], Sequence[float], Sequence[str]]


@dataclass
class Node:
    """A node of the ONNX graph."""

    op_type: str
    inputs: list[str]
    outputs: list[str]
    attributes: Mapping[str, Attribute]


@dataclass
class Builder:
    """An ONNX graph while it is made.

    Attributes:
        opset: the version of ONNX's operators.
        values: the name in ONNX of what each of Paddle's variables holds at this point.
        constants: the tensors that rows made, by name.
        stored: other tensors that rows made, by name.
        data_types: Paddle's codes of variables that are declared in another dtype than they have.
    """

    model: Model
    opset: int
    nodes: list[Node] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    stored: dict[str, DerivedTensor] = field(default_factory=dict)
    data_types: dict[str, int] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _known: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        blocks = self.model.program.blocks
        self._descs = {var.name: proto.tensor_desc(var) for var in blocks[0].vars}
        self.reads = self.model.reads()

    def desc(self, name: str) -> Any:
        """Return the declared dtype and dims of a variable, None if it is no dense tensor."""
        return self._descs.get(name)

    def data_type(self, name: str) -> int:
        """Return Paddle's code of a variable's dtype."""
        known = self.data_types.get(name)
        return int(self.desc(name).data_type) if known is None else known

    def unused(self, name: str) -> str:
        """Return the name, or a longer one if another value has it."""
        found, count = name, 1
        while found in self._taken:
            count += 1
            found = f"{name}.{count}"
        self._taken.add(found)
        return found

    def constant(self, array: Array) -> str:
        """Return the name of a constant; those of the same values share one."""
        array = np.asarray(array)  # keeps no axes for a scalar, as ascontiguousarray would
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._known:
            name = self.unused(f"constant.{len(self._known)}")
            self.constants[name] = array
            self._known[key] = name
        return self._known[key]

    def store(self, name: str, tensor: DerivedTensor) -> str:
        """Return the name of a tensor that is made when it is written."""
        name = self.unused(name)
        self.stored[name] = tensor
        return name

    def rename(self, old: str, new: str) -> str:
        """Give the output of the last node the name of a variable, if it has none yet."""
        outputs = self.nodes[-1].outputs if self.nodes else []
        if old not in outputs or not old.startswith(_TEMPORARY):
            return old
        outputs[outputs.index(old)] = found = self.unused(new)
        return found


_TEMPORARY = "pyquant."


class Step:
    """One op of the program, and the nodes that it becomes.

    Calling it adds a node: ``step("Mul", x, y)`` returns the name of the product.
    """

    def __init__(self, builder: Builder, op: Op) -> None:
        self.builder = builder
        self.op = op

    def __call__(self, op_type: str, *inputs: str, **attributes: Attribute) -> str:
        return self.many(op_type, inputs, 1, **attributes)[0]

    def many(
        self, op_type: str, inputs: Sequence[str], outputs: int, **attributes: Attribute
    ) -> list[str]:
        """Add a node of several outputs, and return their names."""
        given = list(inputs)
        while given and not given[-1]:
            given.pop()
        unused = self.builder.unused
        names = [unused(f"{_TEMPORARY}{op_type}.{len(self.builder.nodes)}") for _ in range(outputs)]
        self.builder.nodes.append(Node(op_type, given, names, attributes))
        return names

    @property
    def opset(self) -> int:
        return self.builder.opset

    # What the op reads.

    def input(self, slot: str) -> str:
        """Return the value in an input slot."""
        return self.value(self.op.input(slot))

    def inputs(self, slot: str) -> list[str]:
        return [self.value(name) for name in self.op.inputs(slot)]

    def optional(self, slot: str) -> str:
        """Return the value in an input slot, the empty name if there is none."""
        return self.input(slot) if self.op.inputs(slot) else ""

    def value(self, variable: str) -> str:
        """Return what a variable holds."""
        found = self.builder.values.get(variable)
        if found is None:
            raise self.refused(f"it reads '{variable}', which no op has written")
        return found

    @property
    def first(self) -> str:
        """The first variable that the op reads."""
        return self.op.reads()[0]

    @property
    def x(self) -> str:
        """The value of the first variable that the op reads."""
        return self.value(self.first)

    def data_type(self, variable: str) -> int:
        """Return Paddle's code of a variable's dtype."""
        return self.builder.data_type(variable)

    def dtype(self, variable: str | None = None) -> np.dtype[Any]:
        """Return the dtype of a variable, or of the first one that the op reads."""
        found = proto.numpy_dtype(self.data_type(self.first if variable is None else variable))
        if found is None:
            raise self.refused("it computes with complex numbers, which ONNX lacks")
        return found

    def is_float(self, variable: str | None = None) -> bool:
        return self.dtype(variable).kind == "f" or self.dtype(variable) == np.uint16

    def dims(self, variable: str | None = None) -> list[int]:
        """Return the declared dims of a variable, or of the first one that the op reads."""
        return list(self.builder.desc(self.first if variable is None else variable).dims)

    def rank(self, variable: str | None = None) -> int:
        return len(self.dims(variable))

    def axis(self, name: str, default: int, variable: str | None = None) -> int:
        """Return an attribute that is an axis, counted from the first one."""
        axis = self.op.attr(name, default)
        return axis + self.rank(variable) if axis < 0 else axis

    def axes(self, given: Sequence[int], variable: str | None = None) -> list[int]:
        """Return axes, counted from the first one."""
        rank = self.rank(variable)
        return [axis + rank if axis < 0 else axis for axis in given]

    def known(self, variable: str) -> Array | None:
        """Return the values of a parameter or a constant, None if they are computed."""
        model, value = self.builder.model, self.builder.values.get(variable, "")
        if value == variable and variable in model.derived:
            return np.concatenate([np.array(part) for part in model.derived[variable].chunks()])
        if value == variable and variable in model.parameters:
            return model.made(variable)
        return self.builder.constants.get(value)

    # Constants.

    def ints(self, values: Sequence[int]) -> str:
        """Return int64 values along one axis."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float, variable: str | None = None) -> str:
        """Return a scalar of the dtype of a variable, or of the first one that the op reads."""
        dtype = self.dtype(variable)
        if dtype == np.uint16:
            return self.cast(self.constant(np.array(value, np.float32)), self.data_type(self.first))
        with np.errstate(over="ignore"):
            return self.constant(np.array(value).astype(dtype))

    def constant(self, array: Array) -> str:
        return self.builder.constant(array)

    # Frequent nodes.

    def cast(self, value: str, data_type: int) -> str:
        return self("Cast", value, to=onnx_dtype(data_type))

    def as_int64(self, value: str) -> str:
        return self("Cast", value, to=onnx_dtype(_INT64))

    def flat(self, value: str) -> str:
        """Return the values along one axis."""
        return self("Reshape", value, self.ints([-1]))

    def shape(self, value: str) -> str:
        return self("Shape", value)

    def squeeze(self, value: str, axes: Sequence[int]) -> str:
        return self("Squeeze", value, self.ints(axes)) if axes else value

    def unsqueeze(self, value: str, axes: Sequence[int]) -> str:
        return self("Unsqueeze", value, self.ints(axes)) if axes else value

    def transpose(self, value: str, perm: Sequence[int]) -> str:
        return self("Transpose", value, perm=list(perm))

    def concat(self, values: Sequence[str], axis: int) -> str:
        return self("Concat", *values, axis=axis)

    def slice(
        self, value: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]
    ) -> str:
        return self("Slice", value, self.ints(starts), self.ints(ends), self.ints(axes))

    def size(self, value: str, axis: int) -> str:
        """Return the length of an axis: int64, along one axis."""
        return self.slice(self.shape(value), [axis], [axis + 1], [0])

    def reduce(
        self, kind: str, value: str, axes: Sequence[int] | None, keepdims: bool = False
    ) -> str:
        """Return ReduceSum or another reduction, over all axes for None."""
        if axes is None:
            return self(f"Reduce{kind}", value, keepdims=int(keepdims))
        if kind == "Sum" or self.opset >= _REDUCE_BY_INPUT:
            return self(f"Reduce{kind}", value, self.ints(axes), keepdims=int(keepdims))
        return self(f"Reduce{kind}", value, axes=list(axes), keepdims=int(keepdims))

    def numbers(self, attribute: str, slot: str, list_slot: str = "") -> str:
        """Return int64 values along one axis: an attribute, or what tensors hold in its place."""
        if self.op.inputs(slot):
            return self.flat(self.as_int64(self.input(slot)))
        if self.op.inputs(list_slot):
            parts = [self.flat(self.as_int64(value)) for value in self.inputs(list_slot)]
            return parts[0] if len(parts) == 1 else self.concat(parts, 0)
        found = self.op.value(attribute)
        return self.ints([found] if isinstance(found, int) else list(found or ()))

    def lacks(self, slots: Sequence[str]) -> bool:
        """Return whether the op reads nothing in these slots, so that an attribute counts."""
        return not any(self.op.inputs(slot) for slot in slots)

    # What the op writes.

    def give(self, slot: str, value: str) -> None:
        """Let the variable in an output slot hold a value."""
        for variable in self.op.outputs(slot)[:1]:
            self.hold(variable, value)

    def give_as_declared(self, slot: str, value: str) -> None:
        """Do the same with the value in the dtype that the variable has."""
        for variable in self.op.outputs(slot)[:1]:
            self.hold(variable, self.cast(value, self.data_type(variable)))

    def give_all(self, slot: str, values: Sequence[str]) -> None:
        for variable, value in zip(self.op.outputs(slot), values):
            self.hold(variable, value)

    def hold(self, variable: str, value: str) -> None:
        self.builder.values[variable] = self.builder.rename(value, variable)

    def give_typed(self, slot: str, value: str, data_type: int) -> None:
        """Let a variable hold a value of a dtype in which Paddle does not declare it."""
        for variable in self.op.outputs(slot)[:1]:
            self.builder.data_types[variable] = data_type
            self.give_as_declared(slot, value)

    def is_wanted(self, slot: str) -> bool:
        """Return whether an output slot has a variable."""
        return bool(self.op.outputs(slot))

    def refused(self, why: str) -> UnsupportedError:
        """Return the error of an op that cannot be written."""
        name = next(iter(self.op.writes()), "?")
        return UnsupportedError(
            f"{self.builder.model.model_path}: {self.op.type} -> '{name}' cannot be written as "
            f"ONNX: {why}. Write a .pdmodel instead, by another deploy_backend in static mode, or "
            "export the model without this op."
        )

    def check_dtypes(self) -> None:
        """Raise UnsupportedError if a tensor of the op has a dtype that ONNX lacks."""
        for name in (*self.op.reads(), *self.op.writes()):
            desc = self.builder.desc(name)
            if desc is not None and not has_onnx_dtype(desc.data_type):
                dtype = proto.dtype_name(desc.data_type)
                raise self.refused(f"'{name}' is {dtype}, which ONNX lacks")

    def needs_opset(self, least: int) -> None:
        """Raise UnsupportedError if the opset is older."""
        if self.opset < least:
            raise self.refused(f"it needs opset {least}, not {self.opset}")


Row = Callable[[Step], None]
Rows = dict[str, Row]

_INT64 = proto.data_type_of("int64")
_REDUCE_BY_INPUT = 18


def rows_of(rows: Rows) -> Callable[..., Callable[[Row], Row]]:
    """Return a decorator that puts a function into ``rows`` under the types of its ops."""

    def of(*op_types: str) -> Callable[[Row], Row]:
        def put(row: Row) -> Row:
            rows.update(dict.fromkeys(op_types, row))
            return row

        return put

    return of
