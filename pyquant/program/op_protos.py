"""What Paddle itself says of the ops of a ProgramDesc: their attributes and inputs."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def attribute_kinds(op_type: str) -> dict[str, int]:
    """Return the kind (an ``AttrType`` of the protobuf) of each attribute of an op.

    Raises:
        ValueError: Paddle has no such op.
    """
    return {attribute.name: attribute.type for attribute in _op_proto(op_type).attrs}


@cache
def required_inputs(op_type: str) -> tuple[str, ...]:
    """Return the input slots that an op cannot do without.

    Raises:
        ValueError: Paddle has no such op.
    """
    return tuple(slot.name for slot in _op_proto(op_type).inputs if not slot.dispensable)


def _op_proto(op_type: str) -> Any:
    from paddle.base.framework import OpProtoHolder

    return OpProtoHolder.instance().get_op_proto(op_type)
