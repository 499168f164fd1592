"""The form of a program: checked once, when it is read, so that all code may rely on it.

A program of the right form has text for names, ops whose slots and attributes are as Paddle
describes them, declared variables, and inputs and outputs in a known order. What it computes is not
checked: Paddle says so when it runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import ModelFileError, UnsupportedError
from . import proto
from .op import Op, ops_of
from .op_facts import FACTS
from .op_protos import attribute_kinds, required_inputs, required_outputs, single_slots

# A variable that is not computed: Paddle's name, and what some exporters write.
_NO_VARIABLE = ("@EMPTY@", "")
EXPORT_ATTRIBUTES = ("op_callstack", "op_namescope", "op_role", "op_role_var", "op_device")
"""What Paddle's own exporter leaves out with clip_extra: how and where the model was made."""


def check_form(path: Path, program: Any) -> None:
    """Check a ``ProgramDesc``, read from the file ``path``.

    Raises ModelFileError if something is missing or of the wrong kind, and UnsupportedError if an
    op reads one of its attributes from a variable.
    """
    _refuse(path, _problems(program))
    for block in program.blocks:
        for op in ops_of(block):
            _refuse_variable_attributes(path, op)
    _refuse(path, _value_problems(program))


def _refuse(path: Path, problems: Iterator[str]) -> None:
    problem = next(problems, None)
    if problem is not None:
        raise ModelFileError(
            f"{path}: {problem}. The file is damaged, or no program for inference; export the "
            "model again."
        )


def _problems(program: Any) -> Iterator[str]:
    """Yield what is missing, of the wrong kind, or not declared."""
    missing = program.FindInitializationErrors()
    if missing:
        yield f"its field {missing[0]} is missing"
    if not program.blocks or not program.blocks[0].ops:
        yield "the program has no ops"
    for index, block in enumerate(program.blocks):
        parents = range(index) if index else (-1,)
        if block.idx != index or block.parent_idx not in parents:
            yield f"block {index} says that it is block {block.idx} in block {block.parent_idx}"
        yield from _variable_problems(block)
    for index, block in enumerate(program.blocks):
        declared = _visible(program, index)
        for position, desc in enumerate(block.ops):
            for problem in _op_problems(desc, declared):
                yield f"op {position} of block {index} ({desc.type!r}): {problem}"


def _value_problems(program: Any) -> Iterator[str]:
    """Yield what is wrong with the values of attributes."""
    for index, block in enumerate(program.blocks):
        declared = _visible(program, index)
        for position, op in enumerate(ops_of(block)):
            for problem in chain(  # the later ones rely on the earlier ones
                _block_problems(op, program.blocks),
                _geometry_problems(op),
                _group_problems(op, declared),
            ):
                yield f"op {position} of block {index} ({op.type!r}): {problem}"
    yield from _order_problems(program.blocks[0])


def _variable_problems(block: Any) -> Iterator[str]:
    for var in block.vars:
        problem = _name_problem(var.name)
        if problem:
            yield f"the name of variable {var.name!r} {problem}"
        desc = proto.tensor_desc(var)
        if desc is None:
            continue
        if len(desc.dims) > proto.MOST_DIMENSIONS:
            yield (
                f"variable {var.name!r} has {len(desc.dims)} dimensions, where Paddle has at most "
                f"{proto.MOST_DIMENSIONS}"
            )
        if any(dim < -1 for dim in desc.dims):
            yield f"variable {var.name!r} has the shape {list(desc.dims)}"


def _visible(program: Any, index: int) -> dict[str, Any]:
    """Return the variables that the ops of a block see, by name: its own and its parents'."""
    visible: dict[str, Any] = {}
    while index >= 0:
        block = program.blocks[index]
        visible = {**{var.name: var for var in block.vars}, **visible}
        index = block.parent_idx
    return visible


def _op_problems(desc: Any, declared: Mapping[str, Any]) -> Iterator[str]:
    problem = _name_problem(desc.type)
    if problem:
        yield f"its type {problem}"
    yield from _slot_problems(desc, declared)
    yield from _attribute_problems(desc)
    op_type = desc.type
    try:
        kinds, single = attribute_kinds(op_type), single_slots(op_type)
        required = required_inputs(op_type), required_outputs(op_type)
    except ValueError:  # an op that this Paddle lacks: it says so when it runs
        return
    for slots, names in zip((desc.inputs, desc.outputs), required):
        given = {slot.parameter: slot.arguments for slot in slots}
        for name in names:
            if not given.get(name):
                yield f"its slot {name!r} is empty"
            elif op_type in FACTS:
                yield from _tensor_problems(given[name], declared, _RANKS.get((op_type, name)))
        for name, variables in given.items():
            if len(variables) > 1 and name in single:
                yield f"its slot {name!r} has {len(variables)} variables"
    for attr in desc.attrs:
        declared_kind = kinds.get(attr.name)
        if declared_kind is not None and attr.type not in _ACCEPTED[declared_kind]:
            yield (
                f"its attribute {attr.name!r} is {proto.kind_name(attr.type)}, where Paddle has "
                f"{proto.kind_name(declared_kind)}"
            )


def _slot_problems(desc: Any, declared: Mapping[str, Any]) -> Iterator[str]:
    for slots in (desc.inputs, desc.outputs):
        yield from _repeated("slot", [slot.parameter for slot in slots])
        for slot in slots:
            for name in slot.arguments:
                if name not in declared and name not in _NO_VARIABLE:
                    yield f"variable {name!r} in its slot {slot.parameter!r} is not declared"


def _tensor_problems(
    names: Sequence[str], declared: Mapping[str, Any], rank: int | None
) -> Iterator[str]:
    for name in names:
        desc = proto.tensor_desc(declared[name]) if name in declared else None
        if desc is None:
            yield f"{name!r} is not declared as a dense tensor"
        elif rank is not None and len(desc.dims) != rank:
            yield f"{name!r} has {len(desc.dims)} dimensions, where it takes {rank}"


def _attribute_problems(desc: Any) -> Iterator[str]:
    yield from _repeated("attribute", [attr.name for attr in desc.attrs])
    for attr in desc.attrs:
        if attr.type not in proto.VARIABLE_KINDS and attr.name not in EXPORT_ATTRIBUTES:
            value = proto.attribute_value(attr)
            members = value if proto.is_list_kind(attr.type) else (value,)
            if any(isinstance(member, bytes) for member in members):
                yield f"its attribute {attr.name!r} is not UTF-8"


def _repeated(what: str, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        problem = _name_problem(name)
        if problem:
            yield f"the name of its {what} {name!r} {problem}"
        if names.count(name) > 1:
            yield f"its {what} {name!r} is there twice"


def _block_problems(op: Op, blocks: Any) -> Iterator[str]:
    for attr in op.desc.attrs:
        if attr.type in proto.BLOCK_KINDS:
            value = proto.attribute_value(attr)
            named = list(value) if proto.is_list_kind(attr.type) else [value]
            if any(not 0 < index < len(blocks) for index in named):
                yield f"its attribute {attr.name!r} names the blocks {named}, of {len(blocks)}"


def _geometry_problems(op: Op) -> Iterator[str]:
    """Yield what is wrong with the numbers by which a convolution or a pooling moves."""
    for name, lengths, least in _GEOMETRY.get(op.type, ()):
        if name not in op.attr_names():
            continue
        numbers = op.ints(name)
        if len(numbers) not in lengths or not all(number >= least for number in numbers):
            yield f"its attribute {name!r} is {list(numbers)}"


def _group_problems(op: Op, declared: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the groups of a convolution: they divide axis 0 of its filter."""
    if op.type in _CONVOLUTIONS:
        size, groups = proto.tensor_desc(declared[op.input("Filter")]).dims[0], op.geometry().groups
        if size > 0 and size % groups:
            yield f"its {groups} groups do not divide the {size} channels of its filter"


_PAIRS = (("strides", (2,), 1), ("dilations", (2,), 1), ("paddings", (2, 4), 0))
_CONVOLUTIONS = ("conv2d", "depthwise_conv2d", "conv2d_transpose", "fused_conv2d")
_RANKS = {(op, slot): 4 for op in _CONVOLUTIONS for slot in ("Input", "Filter", "Output")}
_GEOMETRY: Mapping[str, tuple[tuple[str, tuple[int, ...], int], ...]] = {
    **dict.fromkeys(_CONVOLUTIONS, _PAIRS),
    "pool2d": (("strides", (1, 2), 1), ("ksize", (0, 1, 2), -1), ("paddings", (1, 2, 4), 0)),
}


def _order_problems(block: Any) -> Iterator[str]:
    """Yield what is wrong with the inputs and outputs of the model."""
    variables = {var.name: var for var in block.vars}
    for op_type, slot in (("feed", "Out"), ("fetch", "X")):
        ops = [op for op in ops_of(block) if op.type == op_type]
        columns = Counter(op.attr("col", 0) for op in ops)
        if columns and sorted(columns) != list(range(len(ops))):
            yield f"the columns of its {op_type} ops are {sorted(columns.elements())}"
        for op in ops:
            names = op.outputs(slot) if op_type == "feed" else op.inputs(slot)
            if len(names) != 1:
                yield f"a {op_type} op has {len(names)} tensors"
                continue
            var = variables.get(names[0])
            if var is None or proto.tensor_desc(var) is None:
                yield f"{names[0]!r}, of a {op_type} op, is not declared as a dense tensor"


def _refuse_variable_attributes(path: Path, op: Op) -> None:
    for attr in op.desc.attrs:
        if attr.type in proto.VARIABLE_KINDS:
            raise UnsupportedError(
                f"{path}: {op.type} -> {next(iter(op.writes()), '?')}: its attribute "
                f"{attr.name!r} is read from a variable, which pyquant does not follow. Export the "
                "model with a constant there."
            )


def _name_problem(name: str | bytes) -> str:
    """Return what is wrong with a name, which protobuf shows as bytes if it is not UTF-8."""
    if isinstance(name, bytes):
        return "is not UTF-8"
    if not name:
        return "is empty"
    return "holds a NUL" if "\0" in name else ""


_ACCEPTED = proto.accepted_kinds()
