"""Tensors that override an op's attributes, although Paddle's passes read only the attributes.

When an op runs, a tensor overrides its attribute. Passes that fuse the op ignore the tensor:
``SetActivationAttrs`` (activation_onednn_fuse_pass.h) takes the limits of a ``clip`` from the
attributes, and ``operator_reshape2_onednn_fuse_pass.cc`` the shape of a ``reshape2``.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple, Union

import numpy as np

from . import proto
from .op import Op, make_op, ops_of, replace_ops
from .op_protos import attribute_kinds, complete
from .parameters import Array
from .pir.table import TABLE

ConstantOf = Callable[[str], Union[Array, None]]
"""Returns the value of a tensor by its name, or None if the model computes it."""

# By op type, the attributes that tensors may override, and the slots of these tensors.
_TWINS: defaultdict[str, list[tuple[str, list[str]]]] = defaultdict(list)
for _line in TABLE.values():
    for _spec in _line.operands:
        if _spec.attribute is not None:
            _slots = [slot for slot in (_spec.slot, _spec.list_slot) if slot is not None]
            _TWINS[_line.op_type].append((_spec.attribute, _slots))
_RAW_BFLOAT16 = np.uint16
_MOST_VALUES = 1 << 16
"""A constant of more values is no attribute; a damaged program may ask for any number of them."""


class _Limit(NamedTuple):
    """A limit of a ``clip``."""

    attribute: str
    slot: str  # of the tensor that overrides the attribute
    op_type: str  # the op that applies this limit alone
    sign: int
    of_integers: Mapping[int, float]  # by integer data type, the attribute that limits nothing

    def none(self, data_type: int) -> float:
        """Return the attribute that limits nothing, as ``paddle.clip`` writes it."""
        return self.of_integers.get(data_type, self.sign * _FLOAT_MAX)


_FLOAT_MAX = float(np.finfo(np.float32).max)
_INT64 = proto.data_type_of("int64")
_LIMITS = (
    _Limit("min", "Min", "elementwise_max", -1, {proto.INT32: -(2.0**31), _INT64: -(2.0**63)}),
    _Limit(
        *("max", "Max", "elementwise_min", 1),
        {proto.INT32: 2.0**31 - 128, _INT64: 2.0**63 - 2.0**39},
    ),
)


def settle_tensor_inputs(program: Any, parameters: Mapping[str, Array]) -> list[int] | None:
    """Change a ``ProgramDesc`` so that Paddle's passes never miss a tensor beside an attribute.

    Constants become attributes. A ``clip`` between limits that the model computes becomes
    ``elementwise_max`` and ``elementwise_min``, which no pass fuses. Returns the earlier position
    of each op of the main block, or of the op that it replaces; None if nothing has changed.
    """
    constants = _Constants(program, parameters)
    went = [use_attributes(op, constants) for block in program.blocks for op in ops_of(block)]
    limited = [_has_computed_limits(op) for block in program.blocks for op in ops_of(block)]
    if not any(went + limited):
        return None
    read = {name for block in program.blocks for op in ops_of(block) for name in op.reads()}
    positions: list[int] = []
    for block in program.blocks:
        new = [
            (position, other)
            for position, op in enumerate(ops_of(block))
            for other in _written(program, block, op, constants, read)
        ]
        replace_ops(block, (op for _, op in new))
        if block.idx == 0:
            positions = [position for position, _ in new]
    return positions


def _written(program: Any, block: Any, op: Op, constants: _Constants, read: Set[str]) -> list[Op]:
    """Return the ops that replace an op: none for a constant that became an attribute.

    Paddle's constant_folding_pass crashes on a constant that no op reads.
    """
    if _has_computed_limits(op):
        return _limited(program, block, op)
    if constants.has(op) and read.isdisjoint(op.writes()):
        return []
    return [op.copy()]


def use_attributes(op: Op, constant_of: ConstantOf) -> bool:
    """Turn constant tensors that ``op`` reads into attributes; return whether there were any.

    A tensor stays if the attribute cannot hold its value exactly.
    """
    went = False
    for attribute, slots in _TWINS.get(op.type, ()):
        for slot in slots:
            arrays = [constant_of(name) for name in op.inputs(slot)]
            known = [a for a in arrays if a is not None and a.dtype != _RAW_BFLOAT16]
            if known and len(known) == len(arrays) and _set(op, attribute, known):
                op.remove_input(slot)
                went = True
    return went


def _set(op: Op, attribute: str, arrays: Sequence[Array]) -> bool:
    """Set an attribute to the values of tensors if it can hold them; return whether it can."""
    values = np.concatenate([array.reshape(-1) for array in arrays]).tolist()
    trial = Op(proto.OpDesc())
    try:
        kind = attribute_kinds(op.type)[attribute]
        trial.set_attr(attribute, values, kind)
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    if np.asarray(trial.value(attribute)).reshape(-1).tolist() != values:
        return False
    op.take_attrs(trial, (attribute,))
    return True


class _Constants:
    """The values of parameters, and of constants that the program writes once."""

    def __init__(self, program: Any, parameters: Mapping[str, Array]) -> None:
        self._parameters = parameters
        ops = [op for block in program.blocks for op in ops_of(block)]
        writes = Counter(name for op in ops for name in op.writes())
        self._made = {
            name: op
            for op in ops
            if op.type in _VALUES and not any(op.reads())
            for name in op.writes()
            if writes[name] == 1
        }

    def has(self, op: Op) -> bool:
        """Return whether ``op`` makes one of these constants."""
        return any(name in self._made for name in op.writes())

    def __call__(self, name: str) -> Array | None:
        op = self._made.get(name)
        return self._parameters.get(name) if op is None else _VALUES[op.type](op)


def _filled(op: Op) -> Array | None:
    text = op.attr("str_value", "") or str(op.attr("value", 0.0))
    count = math.prod(op.ints("shape"))
    return _array(op, [_number(text)] * count) if 0 <= count <= _MOST_VALUES else None


def _assigned(op: Op) -> Array | None:
    """Return the only attribute of values that is not empty: Paddle 2.6 has one per dtype."""
    for name in (name for name in op.attr_names() if name.endswith("values")):
        values = list(op.value(name))
        if values:
            return _array(op, [proto.plain(value) for value in values])
    return None


_VALUES: Mapping[str, Callable[[Any], Array | None]] = {
    "fill_constant": _filled,
    "assign_value": _assigned,
}


def _array(op: Op, values: list[Any]) -> Array | None:
    dtype = proto.numpy_dtype(op.attr("dtype", proto.FP32))
    if dtype is None or dtype == _RAW_BFLOAT16:
        return None
    return np.array(values, dtype)


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def _has_computed_limits(op: Op) -> bool:
    return op.type == "clip" and any(op.inputs(limit.slot) for limit in _LIMITS)


def _limited(program: Any, block: Any, op: Op) -> list[Op]:
    """Return the ops that replace a ``clip``: one per computed limit, a ``clip`` for the other.

    Like ``paddle.clip``, this assumes that the lower limit is not above the upper one.
    """
    (source,), (output,) = op.inputs("X"), op.outputs("Out")
    desc = next(
        proto.tensor_desc(var) for one in program.blocks for var in one.vars if var.name == output
    )
    clip, ops = op.copy(), []
    for limit in _LIMITS:
        for name in op.inputs(limit.slot):
            inputs, outputs = {"X": [source], "Y": [name]}, {"Out": [output]}
            ops.append(make_op(limit.op_type, inputs, outputs, {"axis": -1}))
            complete(ops[-1])
            clip.remove_input(limit.slot)
            clip.set_attr(limit.attribute, limit.none(desc.data_type))
    values = [clip.attr(limit.attribute, 0.0) for limit in _LIMITS]
    if values != [limit.none(desc.data_type) for limit in _LIMITS]:
        ops.append(clip)
    if len(ops) == 2:
        between = f"{output}.limited"
        proto.add_var(block, between, desc.data_type, desc.dims)
        ops[0].rename_outputs({output: between})
        ops[1].rename_inputs({source: between})
    return ops
