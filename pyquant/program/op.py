"""A typed view of an op: what it reads and writes, and its attributes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from . import proto

T = TypeVar("T", bool, int, float, str)


class Op:
    """A view of one ``OpDesc``, which holds all of its state.

    Attributes:
        desc: the ``OpDesc``. A change of the view changes it.
    """

    __slots__ = ("desc",)

    def __init__(self, desc: Any) -> None:
        self.desc = desc

    @property
    def type(self) -> str:
        """The type of the op, as ``"conv2d"``."""
        return str(self.desc.type)

    def copy(self) -> Op:
        """Return a copy, which outlives the block of the op."""
        desc = proto.OpDesc()
        desc.CopyFrom(self.desc)
        return Op(desc)

    def reads(self) -> list[str]:
        """Return every variable that the op reads, slot by slot."""
        return list(proto.names(self.desc.inputs))

    def writes(self) -> list[str]:
        """Return every variable that the op writes, slot by slot."""
        return list(proto.names(self.desc.outputs))

    def inputs(self, slot: str) -> list[str]:
        """Return the variables in an input slot; none if the op lacks the slot."""
        return list(proto.arguments(self.desc.inputs, slot))

    def outputs(self, slot: str) -> list[str]:
        """Return the variables in an output slot; none if the op lacks the slot."""
        return list(proto.arguments(self.desc.outputs, slot))

    def input(self, slot: str) -> str:
        """Return the first variable in an input slot."""
        return self.inputs(slot)[0]

    def output(self, slot: str | None = None) -> str:
        """Return the first variable in an output slot, or in the first slot."""
        return (self.writes() if slot is None else self.outputs(slot))[0]

    def attr(self, name: str, default: T) -> T:
        """Return an attribute, as the type of ``default``."""
        value = proto.attribute(self.desc, name, None)
        return default if value is None else type(default)(value)

    def ints(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """Return an attribute that is a list of whole numbers."""
        return tuple(proto.attribute(self.desc, name, default))

    def floats(self, name: str, default: Sequence[float] = ()) -> tuple[float, ...]:
        """Return an attribute that is a list of numbers."""
        return tuple(proto.attribute(self.desc, name, default))

    def value(self, name: str) -> Any:
        """Return an attribute as it is stored, or None if the op lacks it."""
        return proto.attribute(self.desc, name, None)

    def attr_names(self) -> list[str]:
        """Return the names of all attributes."""
        return [attribute.name for attribute in self.desc.attrs]

    def has_block(self) -> bool:
        """Return whether the op runs a block of its own, as ``while`` does."""
        return "sub_block" in self.attr_names()

    def set_attr(self, name: str, value: proto.AttributeValue) -> None:
        """Set an attribute, whatever it was before."""
        proto.set_attribute(self.desc, name, value)

    def remove_attrs(self, names: Collection[str]) -> None:
        """Remove attributes."""
        proto.remove_attributes(self.desc, names)

    def take_attrs(self, source: Op, names: Collection[str]) -> None:
        """Take those of ``names`` that ``source`` has from there."""
        proto.copy_attributes(source.desc, self.desc, names)

    def set_inputs(self, slot: str, names: Sequence[str]) -> None:
        """Let an input slot that the op has hold other variables."""
        next(one for one in self.desc.inputs if one.parameter == slot).arguments[:] = names

    def rename_inputs(self, names: Mapping[str, str]) -> None:
        """Read other variables: ``names`` maps old names to new ones."""
        proto.rename(self.desc.inputs, names)

    def rename_outputs(self, names: Mapping[str, str]) -> None:
        """Write other variables: ``names`` maps old names to new ones."""
        proto.rename(self.desc.outputs, names)

    def remove_input(self, slot: str) -> None:
        """Remove an input slot."""
        proto.remove_slot(self.desc.inputs, slot)


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


def ops_of(block: Any) -> list[Op]:
    """Return the ops of a ``BlockDesc``."""
    return [Op(desc) for desc in block.ops]


def replace_ops(block: Any, ops: Iterable[Op]) -> None:
    """Let a ``BlockDesc`` hold copies of ``ops`` alone."""
    descs = [op.copy().desc for op in ops]
    del block.ops[:]
    block.ops.extend(descs)
