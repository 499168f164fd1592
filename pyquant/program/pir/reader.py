"""Reading Paddle 3's ``.json`` programs (PIR) into plain operations.

The format is that of ``paddle/fluid/pir/serialize_deserialize``: names are shortened by their
dialect's number, a value is an integer id, and a parameter has a form of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from ...errors import ModelFileError, UnsupportedError

VERSIONS = range(1, 5)
"""The versions of the format that are read."""

_DIALECTS = {"0": "builtin", "1": "pd_op", "2": "cf", "3": "custom_op", "4": "dist"}
_DTYPES = {
    "t_bool": "bool",
    "t_i8": "int8",
    "t_ui8": "uint8",
    "t_i16": "int16",
    "t_i32": "int32",
    "t_i64": "int64",
    "t_f16": "float16",
    "t_bf16": "bfloat16",
    "t_f32": "float32",
    "t_f64": "float64",
    "t_c64": "complex64",
    "t_c128": "complex128",
}
DTYPE_TAGS = {dtype: tag for tag, dtype in _DTYPES.items()}
_SCALARS = {
    "a_bool": bool,
    "a_i32": int,
    "a_i64": int,
    "a_index": int,
    "a_f32": float,
    "a_f64": float,
    "a_str": str,
    "a_dtype": str,
    "a_layout": str,
}

Attribute = Union[bool, int, float, str, list[Any], None]


@dataclass(frozen=True)
class TensorType:
    """Type of a dense tensor: Paddle's name of its dtype, and its dims; unknown ones are -1."""

    dtype: str
    dims: tuple[int, ...]


ValueType = Union[TensorType, tuple[TensorType, ...], None]
"""A tensor, a list of tensors, or something else that is not handled."""


@dataclass(frozen=True)
class Value:
    """A result of an operation."""

    id: int  # by which operands refer to it
    type: ValueType


@dataclass(frozen=True)
class Operation:
    """One operation of a PIR program."""

    position: int  # among the program's operations
    name: str  # such as ``"pd_op.conv2d"``
    attributes: dict[str, Attribute]  # None for a kind that does not affect what it computes
    operands: tuple[int, ...]  # ids of values; 0 for an operand that is not given
    results: tuple[Value, ...]


def parse_json(path: Path, data: bytes) -> Any:
    """Return the JSON of a program in ``data``, the content of the file ``path``.

    Raises ModelFileError if it is not JSON or PIR, and UnsupportedError if its version is unknown.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path}: is not JSON, or is truncated ({error}). Export the model again."
        ) from error
    _check_header(path, document)
    return document


def json_operations(path: Path, document: Any) -> list[Any]:
    """Return the operations of a document's only block; raise ModelFileError if it has none."""
    try:
        operations = document["program"]["regions"][0]["blocks"][0]["ops"]
    except (KeyError, IndexError, TypeError) as error:
        raise ModelFileError(
            f"{path}: has no program.regions[0].blocks[0].ops. Export the model again."
        ) from error
    if not isinstance(operations, list) or not operations:
        raise ModelFileError(f"{path}: the program has no ops. Export the model again.")
    return operations


def parse_operations(path: Path, operations: list[Any]) -> Iterator[Operation]:
    """Yield the operations of `json_operations`, checked.

    Raises ModelFileError if one is malformed, or reads a value that no earlier one computes.
    """
    known = {0}
    for position, json_operation in enumerate(operations):
        try:
            operation = _operation(position, json_operation)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as e:
            raise _malformed(path, position, json_operation, f"{type(e).__name__}: {e}") from e
        for operand in operation.operands:
            if operand not in known:
                raise _malformed(
                    path, position, json_operation, f"value %{operand} is not computed before it"
                )
        for result in operation.results:
            if result.id in known:
                raise _malformed(
                    path, position, json_operation, f"value %{result.id} is computed before it"
                )
            known.add(result.id)
        yield operation


def _check_header(path: Path, document: Any) -> None:
    header = document.get("base_code") if isinstance(document, dict) else None
    if not isinstance(header, dict) or header.get("magic") != "pir":
        raise ModelFileError(
            f"{path}: is not a Paddle 3 program (base_code.magic is not 'pir'). "
            "Name the model's .json by model_filename."
        )
    version = header.get("version")
    if type(version) is not int or version not in VERSIONS:
        raise UnsupportedError(
            f"{path}: its PIR version is {version!r}; {VERSIONS[0]} to {VERSIONS[-1]} are read. "
            "Export it by Paddle 3.0 to 3.3."
        )


def _malformed(path: Path, position: int, operation: Any, problem: str) -> ModelFileError:
    name = operation.get("#") if isinstance(operation, dict) else None
    return ModelFileError(
        f"{path}: op {position} ({name}): malformed ({problem}). Export the model again."
    )


def _operation(position: int, source: dict[str, Any]) -> Operation:
    if source["#"] == "p":
        return _parameter(position, source)
    attributes = {item["N"]: _attribute(item["AT"]) for item in source["A"]}
    return Operation(
        position,
        _full_name(source["#"]),
        attributes,
        tuple(_id(operand["%"]) for operand in source["I"]),
        tuple(Value(_id(result["%"]), _type(result["TT"])) for result in source["O"]),
    )


def _parameter(position: int, source: dict[str, Any]) -> Operation:
    name, persistable, result = source["A"][3], source["OA"][0], source["O"]
    if not _checked(str, name):
        raise ValueError("the parameter has no name")
    value = Value(_id(result["%"]), _type(result["TT"]))
    attributes: dict[str, Attribute] = {"name": name, "persistable": bool(persistable)}
    return Operation(position, "builtin.parameter", attributes, (), (value,))


def _full_name(name: str) -> str:
    dialect, _, rest = name.partition(".")
    return f"{_DIALECTS.get(dialect, dialect)}.{rest}"


def _id(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no id of a value")
    return value


def _kind(tag: str) -> str:
    return tag.partition(".")[2]


def _type(source: dict[str, Any]) -> ValueType:
    kind = _kind(source["#"])
    if kind == "t_vec":
        members = [_type(member) for member in source["D"]]
        tensors = tuple(member for member in members if isinstance(member, TensorType))
        return tensors if len(tensors) == len(members) else None
    if kind != "t_dtensor":
        return None
    dtype, dims = source["D"][0], source["D"][1]
    return TensorType(_DTYPES[_kind(dtype["#"])], tuple(_dim(dim) for dim in dims))


def _dim(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"{value!r} is no size of a dimension")
    return max(value, -1)  # a product of unknown sizes is some other negative number


def _attribute(source: dict[str, Any]) -> Any:
    kind = _kind(source["#"])
    if kind == "a_array":
        return [_attribute(member) for member in source["D"]]
    if kind == "a_intarray":
        return [_checked(int, member) for member in source["D"]]
    if kind in _SCALARS:
        return _checked(_SCALARS[kind], _datum(source))
    return None


def _datum(source: dict[str, Any]) -> Any:
    """Return the datum; VD holds infinity and NaN as text, since JSON has neither."""
    if "VD" in source:
        return float(source["VD"])
    return source["D"]


def _checked(expected: type, value: Any) -> Any:
    if expected is float and type(value) is int:
        return float(value)
    if not _fits(expected, value):
        raise ValueError(f"{value!r} where {expected.__name__} is expected")
    return value


def _fits(expected: type, value: Any) -> bool:
    if expected is int and type(value) is int:
        return -(2**63) <= value < 2**63
    if expected is str and isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return type(value) is expected
