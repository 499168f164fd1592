"""Damages files: single bytes, fields of a ``ProgramDesc``, values of a JSON."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from pyquant.program import proto

_INTEGERS = (
    *(0, 1, -1, 2, 3, 7, 8, 64, 127, 128, 255, 1000, 65536),
    *(2**31 - 1, 2**31, -(2**31), 2**32, 2**63 - 1, -(2**63)),
)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"))
_TEXTS = ("", "x", "\0", "a\0b", "../x", "/", ".", "é", "\x1b[31m", "n" * 300, "feed", "fetch")


def damaged_bytes(data: bytes, random: Random) -> bytes:
    """Return ``data`` with one to four changes: bytes set, removed, doubled, or cut off."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(changed) + 1)
        size = random.choice((1, 1, 2, 4, 8, random.randint(1, 64)))
        kind = random.randrange(6)
        if kind == 0:
            changed[start : start + size] = random.randbytes(size)
        elif kind == 1:
            del changed[start : start + size]
        elif kind == 2:
            changed[start:start] = changed[start : start + size]
        elif kind == 3 and start < len(changed):
            changed[start] ^= 1 << random.randrange(8)
        elif kind == 4:
            changed[start : start + size] = b"\xff" * size
        elif random.random() < 0.2:
            del changed[start:]
    return bytes(changed)


def damaged_program(data: bytes, random: Random) -> bytes:
    """Return a serialized ``ProgramDesc`` with one to three fields changed."""
    program = proto.ProgramDesc()
    program.ParseFromString(data)
    for _ in range(random.randint(1, 3)):
        _change_message(program, random)
    return bytes(program.SerializePartialToString())


def damaged_json(data: bytes, random: Random) -> bytes:
    """Return a JSON with one to three values changed."""
    document = json.loads(data)
    for _ in range(random.randint(1, 3)):
        document = _changed_value(document, random)
    return json.dumps(document).encode()


def _change_message(message: Any, random: Random) -> None:
    """Change a field of ``message`` or, more often, of a message inside."""
    fields = message.ListFields()
    inside = [(field, value) for field, value in fields if _is_message(field)]
    if inside and random.random() < 0.9:
        field, value = random.choice(inside)
        if not _is_list(field):
            _change_message(value, random)
        elif random.random() < 0.12:
            _change_list(value, random)
        else:
            _change_message(random.choice(value), random)
        return
    field = random.choice(message.DESCRIPTOR.fields)
    if random.random() < 0.15 or _is_message(field):
        message.ClearField(field.name)
    elif _is_list(field):
        values = getattr(message, field.name)
        if values and random.random() < 0.5:
            _change_list(values, random)
        elif values:
            values[random.randrange(len(values))] = _scalar(field, random)
        else:
            values.append(_scalar(field, random))
    else:
        setattr(message, field.name, _scalar(field, random))


def _change_list(values: Any, random: Random) -> None:
    index = random.randrange(len(values))
    kind = random.randrange(3)
    if kind == 0:
        del values[index]
    elif kind == 1:
        values.extend([values[index]])
    else:
        members = list(values)
        other = random.randrange(len(values))
        members[index], members[other] = members[other], members[index]
        copies = [_copy(member) for member in members]
        del values[:]
        values.extend(copies)


def _copy(member: Any) -> Any:
    if not hasattr(member, "CopyFrom"):
        return member
    copied = type(member)()
    copied.CopyFrom(member)
    return copied


def _is_message(field: Any) -> bool:
    return bool(field.type == FieldDescriptor.TYPE_MESSAGE)


def _is_list(field: Any) -> bool:
    repeated = getattr(field, "is_repeated", None)  # since protobuf 6
    return bool(field.label == FieldDescriptor.LABEL_REPEATED if repeated is None else repeated)


def _scalar(field: Any, random: Random) -> Any:
    if field.enum_type is not None:
        return random.choice(field.enum_type.values).number
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return random.choice(_TEXTS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return random.choice(_FLOATS)
    bits = 31 if field.cpp_type == FieldDescriptor.CPPTYPE_INT32 else 63
    return random.choice([number for number in _INTEGERS if -(2**bits) <= number < 2**bits])


def _changed_value(value: Any, random: Random) -> Any:
    """Return a JSON value with a change in it, or in its place."""
    if isinstance(value, (dict, list)) and value and random.random() < 0.93:
        keys: Any = list(value) if isinstance(value, dict) else range(len(value))
        key = random.choice(keys)
        kind = random.random()
        if kind < 0.88:
            value[key] = _changed_value(value[key], random)
        elif kind < 0.94:
            del value[key]
        elif isinstance(value, list):
            value.insert(random.randrange(len(value) + 1), value[key])
        else:
            value[random.choice(_TEXTS)] = value.pop(key)
        return value
    if isinstance(value, str) and random.random() < 0.3:
        return value[: random.randrange(len(value) + 1)]
    return random.choice(
        [
            *(random.choice(_INTEGERS), random.choice(_FLOATS), random.choice(_TEXTS)),
            *(None, True, [], {}, [value], 2**70, "\ud800"),
        ]
    )
