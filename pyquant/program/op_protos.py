"""Paddle's own description of ops. All functions raise ValueError for an op Paddle lacks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from . import proto
from .op import Op
from .proto import AttributeValue


@cache
def attribute_kinds(op_type: str) -> dict[str, int]:
    """Return the kind (an ``AttrType`` of the protobuf) of each attribute of an op."""
    return {attribute.name: attribute.type for attribute in _op_proto(op_type).attrs}


@cache
def required_inputs(op_type: str) -> tuple[str, ...]:
    """Return the input slots that an op needs."""
    return tuple(slot.name for slot in _op_proto(op_type).inputs if not slot.dispensable)


@cache
def required_outputs(op_type: str) -> tuple[str, ...]:
    """Return the output slots that an op needs at inference."""
    return tuple(
        slot.name
        for slot in _op_proto(op_type).outputs
        if not (slot.dispensable or slot.intermediate or slot.extra)
    )


@cache
def single_slots(op_type: str) -> frozenset[str]:
    """Return the slots that take one variable."""
    described = _op_proto(op_type)
    slots = [*described.inputs, *described.outputs]
    return frozenset(slot.name for slot in slots if not slot.duplicable)


def complete(op: Op) -> None:
    """Give ``op`` the attributes that it lacks, with the defaults that it would run with.

    Paddle's own exporter does so (``OpDesc::CheckAttrs``), as Paddle's passes read attributes
    without checking that they exist. Like it, this leaves out attributes that only training or
    another library reads.
    """
    given = {attribute.name for attribute in op.desc.attrs}
    op.desc.attrs.extend(default for default in _defaults(op.type) if default.name not in given)


def complete_for_lite(op: Op) -> None:
    """Give ``op`` the attributes that Paddle-Lite reads and Paddle's exporter leaves out."""
    for name, value in _READ_BY_PADDLE_LITE.get(op.type, {}).items():
        if op.value(name) is None:
            op.set_attr(name, value)


# Older Paddles wrote them. Paddle-Lite ends the process without them (GetAttr in op_desc.h).
_READ_BY_PADDLE_LITE: Mapping[str, dict[str, AttributeValue]] = {
    "relu6": {"threshold": 6.0},
    "swish": {"beta": 1.0},
    "fill_constant": {"force_cpu": False},
}


@cache
def _defaults(op_type: str) -> tuple[Any, ...]:
    from paddle.base import core

    described = [attribute for attribute in _op_proto(op_type).attrs if not attribute.extra]
    values = core.get_op_attrs_default_value(op_type.encode())
    op = Op(proto.OpDesc())
    for attribute in described:
        if attribute.name in values:
            op.set_attr(attribute.name, values[attribute.name], attribute.type)
    op.desc.type = op_type
    complete_for_lite(op)
    return tuple(op.desc.attrs)


def _op_proto(op_type: str) -> Any:
    from paddle.base.framework import OpProtoHolder

    return OpProtoHolder.instance().get_op_proto(op_type)
