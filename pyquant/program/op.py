"""A typed view of an op: what it reads and writes, its attributes, a convolution's geometry."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from . import proto

T = TypeVar("T", bool, int, float, str)


Padding = tuple[int, int]
"""Zeros before the start and after the end of an axis."""


class Geometry(NamedTuple):
    """How a convolution moves over its input; pairs are of height and width."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    paddings: tuple[Padding, Padding] | None  # None if they depend on the input's size ("SAME")
    groups: int
    is_channels_last: bool  # whether feature maps are [samples, height, width, channels]

    @property
    def pads(self) -> bool:
        """Whether zeros are padded, or may be."""
        return self.paddings != ((0, 0), (0, 0))

    @property
    def is_dense(self) -> bool:
        """Whether it moves by one place, has one group, and reads channels first."""
        return set(self.strides) == {1} and self.groups == 1 and not self.is_channels_last


class Op:
    """A view of one ``OpDesc``, which holds all of its state: a change of the view changes it."""

    __slots__ = ("desc",)

    def __init__(self, desc: Any) -> None:
        self.desc = desc

    @property
    def type(self) -> str:
        return str(self.desc.type)

    def copy(self) -> Op:
        """Return a copy, which outlives the block of the op."""
        desc = proto.OpDesc()
        desc.CopyFrom(self.desc)
        return Op(desc)

    def reads(self) -> list[str]:
        """Return every variable that the op reads, slot by slot."""
        return [name for slot in self.desc.inputs for name in slot.arguments]

    def writes(self) -> list[str]:
        """Return every variable that the op writes, slot by slot."""
        return [name for slot in self.desc.outputs for name in slot.arguments]

    def inputs(self, slot: str) -> list[str]:
        """Return the variables in an input slot; none if the op lacks the slot."""
        return _arguments(self.desc.inputs, slot)

    def outputs(self, slot: str) -> list[str]:
        """Return the variables in an output slot; none if the op lacks the slot."""
        return _arguments(self.desc.outputs, slot)

    def input(self, slot: str) -> str:
        """Return the first variable in an input slot."""
        return self.inputs(slot)[0]

    def output(self, slot: str | None = None) -> str:
        """Return the first variable in an output slot, or in the first slot."""
        return (self.writes() if slot is None else self.outputs(slot))[0]

    def operands(self) -> tuple[str, str]:
        """Return the two variables that an elementwise op reads."""
        return self.input("X"), self.input("Y")

    def operand_beside(self, name: str) -> str:
        """Return the other operand of an elementwise op that reads ``name``."""
        x, y = self.operands()
        return y if name == x else x

    def attr(self, name: str, default: T) -> T:
        """Return an attribute, converted to the type of ``default``."""
        value = self.value(name)
        return default if value is None else type(default)(value)

    def ints(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        return tuple(default if (value := self.value(name)) is None else value)

    def floats(self, name: str, default: Sequence[float] = ()) -> tuple[float, ...]:
        return tuple(default if (value := self.value(name)) is None else value)

    def value(self, name: str) -> Any:
        """Return an attribute as it is stored, or None if the op lacks it."""
        found = (attr for attr in self.desc.attrs if attr.name == name)
        return next((proto.attribute_value(attr) for attr in found), None)

    def attr_names(self) -> list[str]:
        return [attribute.name for attribute in self.desc.attrs]

    @property
    def is_channels_last(self) -> bool:
        """Whether it reads [samples, height, width, channels], as a layout attribute says."""
        return "NHWC" in (self.attr("data_format", ""), self.attr("data_layout", ""))

    def geometry(self) -> Geometry:
        """Return how a convolution moves over its input."""
        strides, dilations = self.ints("strides", (1, 1)), self.ints("dilations", (1, 1))
        groups = max(1, self.attr("groups", 1))
        return Geometry(strides, dilations, self._paddings(), groups, self.is_channels_last)

    def _paddings(self) -> tuple[Padding, Padding] | None:
        algorithm = self.attr("padding_algorithm", "EXPLICIT")
        if algorithm == "SAME":
            return None
        given = (0, 0) if algorithm == "VALID" else self.ints("paddings", (0, 0))
        if len(given) == 2:
            return (given[0], given[0]), (given[1], given[1])
        return (given[0], given[1]), (given[2], given[3])

    def has_block(self) -> bool:
        """Return whether the op runs a block of its own, as ``while`` does."""
        return "sub_block" in self.attr_names()

    def set_attr(self, name: str, value: Any, kind: int | None = None) -> None:
        """Set or replace an attribute; ``value`` is as `proto.make_attribute` takes it.

        ``kind`` is an ``AttrType`` of the protobuf, or None to choose it by the value's type.
        """
        made = proto.make_attribute(
            name, proto.attribute_kind(value) if kind is None else kind, value
        )
        self.remove_attrs((name,))
        self.desc.attrs.append(made)

    def remove_attrs(self, names: Collection[str]) -> None:
        for index in reversed(range(len(self.desc.attrs))):
            if self.desc.attrs[index].name in names:
                del self.desc.attrs[index]

    def take_attrs(self, source: Op, names: Collection[str]) -> None:
        """Copy the attributes of ``names`` that ``source`` has."""
        for attr in source.desc.attrs:
            if attr.name in names:
                self.remove_attrs((attr.name,))
                self.desc.attrs.add().CopyFrom(attr)

    def set_inputs(self, slot: str, names: Sequence[str]) -> None:
        """Put other variables into an existing input slot."""
        next(one for one in self.desc.inputs if one.parameter == slot).arguments[:] = names

    def rename_inputs(self, names: Mapping[str, str]) -> None:
        """Read other variables: ``names`` maps old names to new ones."""
        _rename(self.desc.inputs, names)

    def rename_outputs(self, names: Mapping[str, str]) -> None:
        """Write other variables: ``names`` maps old names to new ones."""
        _rename(self.desc.outputs, names)

    def remove_input(self, slot: str) -> None:
        _remove(self.desc.inputs, slot)

    def remove_output(self, slot: str) -> None:
        _remove(self.desc.outputs, slot)


def _arguments(slots: Any, slot: str) -> list[str]:
    return next((list(one.arguments) for one in slots if one.parameter == slot), [])


def _remove(slots: Any, slot: str) -> None:
    for index in reversed(range(len(slots))):
        if slots[index].parameter == slot:
            del slots[index]


def _rename(slots: Any, names: Mapping[str, str]) -> None:
    for slot in slots if names else ():
        slot.arguments[:] = [names.get(name, name) for name in slot.arguments]


def make_op(
    op_type: str,
    inputs: Mapping[str, Sequence[str]],
    outputs: Mapping[str, Sequence[str]],
    attributes: Mapping[str, proto.AttributeValue],
) -> Op:
    """Return a new op; ``inputs`` and ``outputs`` are variables by slot."""
    op = Op(proto.OpDesc(type=op_type))
    for slot, names in inputs.items():
        op.desc.inputs.add(parameter=slot, arguments=names)
    for slot, names in outputs.items():
        op.desc.outputs.add(parameter=slot, arguments=names)
    for name, value in attributes.items():
        op.set_attr(name, value)
    return op


def make_cast(source: str, output: str, from_type: int, to_type: int) -> Op:
    """Return a ``cast`` between two of Paddle's data types."""
    types = {"in_dtype": from_type, "out_dtype": to_type}
    return make_op("cast", {"X": [source]}, {"Out": [output]}, types)


def make_elementwise(op_type: str, x: str, y: str, output: str) -> Op:
    """Return an elementwise op; ``y`` is aligned to the last axes of ``x``."""
    return make_op(op_type, {"X": [x], "Y": [y]}, {"Out": [output]}, {"axis": -1})


def ops_of(block: Any) -> list[Op]:
    """Return the ops of a ``BlockDesc``."""
    return [Op(desc) for desc in block.ops]


def replace_ops(block: Any, ops: Iterable[Op]) -> None:
    """Replace the ops of a ``BlockDesc`` by copies of ``ops``."""
    descs = [op.copy().desc for op in ops]
    del block.ops[:]
    block.ops.extend(descs)
