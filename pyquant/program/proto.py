"""Paddle's ProgramDesc protobuf, its variables and the kinds of attribute that ops have.

The message classes come with Paddle (``paddle/phi/core/framework/framework.proto``). 2.6 says
``lod_tensor`` where 3.x says ``dense_tensor``; the field numbers, and so the files, are the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any, Union

import numpy as np

with warnings.catch_warnings():  # no extension is compiled here, with ccache or without
    warnings.filterwarnings("ignore", "No ccache found", UserWarning)
    from paddle.base.proto import framework_pb2

ProgramDesc = framework_pb2.ProgramDesc
OpDesc = framework_pb2.OpDesc
TensorDesc = framework_pb2.VarType.TensorDesc

AttributeValue = Union[bool, int, float, str, list[int], list[float]]

_TYPE = framework_pb2.VarType
_Scalar = framework_pb2.Scalar
FP32, INT32, INT8, UINT8 = (
    int(code) for code in (_TYPE.FP32, _TYPE.INT32, _TYPE.INT8, _TYPE.UINT8)
)
FEED_LIST, FETCH_LIST = _TYPE.FEED_MINIBATCH, _TYPE.FETCH_LIST
_DENSE_TENSOR = _TYPE.DESCRIPTOR.fields_by_number[3].name
_LOD_LEVEL = _TYPE.DESCRIPTOR.fields_by_number[3].message_type.fields_by_number[2].name
_DENSE_TENSOR_TYPE = 7


MOST_DIMENSIONS = 9
"""The most dimensions that Paddle's tensors have (``phi::DDim::kMaxRank``)."""

_NUMPY_DTYPES = {
    _TYPE.BOOL: np.dtype(np.bool_),
    _TYPE.INT16: np.dtype("<i2"),
    _TYPE.INT32: np.dtype("<i4"),
    _TYPE.INT64: np.dtype("<i8"),
    _TYPE.FP16: np.dtype("<f2"),
    _TYPE.FP32: np.dtype("<f4"),
    _TYPE.FP64: np.dtype("<f8"),
    _TYPE.UINT8: np.dtype(np.uint8),
    _TYPE.INT8: np.dtype(np.int8),
    _TYPE.BF16: np.dtype("<u2"),
}
_DATA_TYPES = {
    "bool": _TYPE.BOOL,
    "int8": _TYPE.INT8,
    "uint8": _TYPE.UINT8,
    "int16": _TYPE.INT16,
    "int32": _TYPE.INT32,
    "int64": _TYPE.INT64,
    "float16": _TYPE.FP16,
    "bfloat16": _TYPE.BF16,
    "float32": _TYPE.FP32,
    "float64": _TYPE.FP64,
    "complex64": _TYPE.COMPLEX64,
    "complex128": _TYPE.COMPLEX128,
}
_API_NAMES = {code: name for name, code in _DATA_TYPES.items()}
_PADDLE_DTYPES = {dtype: code for code, dtype in _NUMPY_DTYPES.items()}


def numpy_dtype(data_type: int) -> np.dtype[Any] | None:
    """Return the numpy dtype that stores Paddle's ``data_type``, or None if there is none."""
    return _NUMPY_DTYPES.get(data_type)


def paddle_dtype(dtype: np.dtype[Any]) -> int:
    """Return Paddle's code for an array of ``dtype``; ``uint16`` is taken for raw bfloat16."""
    return int(_PADDLE_DTYPES[dtype.newbyteorder("<") if dtype.itemsize > 1 else dtype])


def data_type_of(name: str) -> int:
    """Return Paddle's code for a dtype's name in its API, as ``"float32"``; KeyError if unknown."""
    return int(_DATA_TYPES[name])


def api_name(data_type: int) -> str:
    """Return the name of Paddle's ``data_type`` in its API, as ``"float32"``."""
    return _API_NAMES[data_type]


def is_float(data_type: int) -> bool:
    """Return whether a parameter of Paddle's ``data_type`` can be quantized."""
    return data_type in (_TYPE.FP32, _TYPE.FP16, _TYPE.BF16)


def dtype_name(data_type: int) -> str:
    """Return the name of Paddle's ``data_type``, as ``"FP32"``."""
    return str(_TYPE.Type.Name(data_type))


def tensor_desc(var: Any) -> Any:
    """Return the ``TensorDesc`` (dtype and dims) of a dense tensor's ``VarDesc``, else None."""
    if var.type.type != _DENSE_TENSOR_TYPE:
        return None
    return getattr(var.type, _DENSE_TENSOR).tensor


def lod_level(var: Any) -> int:
    """Return how many levels of offsets divide a dense tensor into sequences."""
    return int(getattr(getattr(var.type, _DENSE_TENSOR), _LOD_LEVEL))


def add_var(block: Any, name: str, data_type: int, dims: Iterable[int]) -> Any:
    """Add a dense tensor variable to ``block`` and return its ``VarDesc``."""
    var = block.vars.add(name=name)
    var.type.type = _DENSE_TENSOR_TYPE
    desc = tensor_desc(var)
    desc.data_type = data_type
    desc.dims.extend(dims)
    return var


def add_list_var(block: Any, name: str, kind: int) -> None:
    """Add the variable of all inputs (`FEED_LIST`) or of all outputs (`FETCH_LIST`)."""
    block.vars.add(name=name, persistable=True).type.type = kind


def attribute_value(attr: Any) -> Any:
    """Return the value of an attribute; a list is returned as a sequence."""
    field, _ = _SCALAR_KINDS.get(attr.type) or _LIST_KINDS[attr.type]
    return getattr(attr, field)


def attribute_kind(value: AttributeValue) -> int:
    """Return the ``AttrType`` of the protobuf that stores a value."""
    if isinstance(value, list):
        return _LIST_KIND_OF_TYPE[type(value[0])]
    return _KIND_OF_TYPE[type(value)]


def make_attribute(name: str, kind: int, value: Any) -> Any:
    """Return an attribute of a kind, an ``AttrType`` of the protobuf.

    A single value may become a list of one, and the name of a dtype its code. Raises TypeError,
    ValueError, KeyError or OverflowError if the value cannot be of that kind.
    """
    attr = OpDesc.Attr(name=name, type=kind)
    if kind in _LIST_KINDS:
        field, convert = _LIST_KINDS[kind]
        values = value if isinstance(value, list) else [value]
        getattr(attr, field).extend(convert(member) for member in values)
    else:
        field, convert = _SCALAR_KINDS[kind]
        (single,) = value if isinstance(value, list) else [value]
        setattr(attr, field, convert(single))
    return attr


def _integer(value: Any) -> int:
    """Return a whole number, or the code of a dtype's name; -1 is "as the input"."""
    if isinstance(value, str) and not value.lstrip("-").isdecimal():
        return -1 if value.lower().startswith("undefined") else data_type_of(value)
    if isinstance(value, float) and not value.is_integer():
        raise ValueError("not a whole number")
    return int(value)


def _boolean(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError("not a truth value")
    return bool(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def plain(value: Any) -> Any:
    """Return the number that a ``Scalar`` holds, and any other value as it is."""
    if not isinstance(value, _Scalar):
        return value
    return {_Scalar.BOOLEAN: value.b, _Scalar.LONG: value.i}.get(value.type, value.r)


def _scalar(value: Any) -> Any:
    if isinstance(value, bool):
        return _Scalar(type=_Scalar.BOOLEAN, b=value)
    if isinstance(value, int):
        return _Scalar(type=_Scalar.LONG, i=value)
    return _Scalar(type=_Scalar.FLOAT64, r=float(value))


def accepted_kinds() -> dict[int, frozenset[int]]:
    """Return, for each kind of attribute that an op may ask for, the kinds that can be given.

    Paddle converts numbers (``ExtractAttribute`` in ``attribute_checker.h``).
    """
    integers = {framework_pb2.INT, framework_pb2.LONG, framework_pb2.BOOLEAN}
    integer_lists = {framework_pb2.INTS, framework_pb2.LONGS, framework_pb2.BOOLEANS}
    accepted = {kind: {kind} for kind in framework_pb2.AttrType.values()}
    for exact, wider in (
        (integers, (framework_pb2.FLOAT, framework_pb2.FLOAT64, framework_pb2.SCALAR)),
        (integer_lists, (framework_pb2.FLOATS, framework_pb2.FLOAT64S, framework_pb2.SCALARS)),
    ):
        accepted |= dict.fromkeys(exact, exact)
        for position, kind in enumerate(wider):  # each takes those before it
            accepted[kind] = {*exact, *wider[: position + 1]}
    return {kind: frozenset(given | VARIABLE_KINDS) for kind, given in accepted.items()}


def kind_name(kind: int) -> str:
    """Return the name of a kind of attribute, as ``"INTS"``."""
    return str(framework_pb2.AttrType.Name(kind))


def is_list_kind(kind: int) -> bool:
    """Return whether a kind of attribute holds several values."""
    return kind in _LIST_KINDS


# For each kind of attribute: its field, and the conversion of a value to the field's type.
_SCALAR_KINDS: dict[int, tuple[str, Callable[[Any], Any]]] = {
    framework_pb2.INT: ("i", _integer),
    framework_pb2.LONG: ("l", _integer),
    framework_pb2.FLOAT: ("f", float),
    framework_pb2.FLOAT64: ("float64", float),
    framework_pb2.BOOLEAN: ("b", _boolean),
    framework_pb2.STRING: ("s", _text),
    framework_pb2.BLOCK: ("block_idx", _integer),
    framework_pb2.SCALAR: ("scalar", _scalar),
}
_LIST_KINDS: dict[int, tuple[str, Callable[[Any], Any]]] = {
    framework_pb2.INTS: ("ints", _integer),
    framework_pb2.LONGS: ("longs", _integer),
    framework_pb2.FLOATS: ("floats", float),
    framework_pb2.FLOAT64S: ("float64s", float),
    framework_pb2.BOOLEANS: ("bools", _boolean),
    framework_pb2.STRINGS: ("strings", _text),
    framework_pb2.SCALARS: ("scalars", _scalar),
    framework_pb2.BLOCKS: ("blocks_idx", _integer),
}
BLOCK_KINDS = {framework_pb2.BLOCK, framework_pb2.BLOCKS}
"""The kinds of attribute that name blocks of the program."""
VARIABLE_KINDS = {framework_pb2.VAR, framework_pb2.VARS}
"""The kinds of attribute that name variables, whose values the op reads."""
NUMBER_KINDS = {framework_pb2.INT, framework_pb2.LONG, framework_pb2.FLOAT, framework_pb2.FLOAT64}
"""The kinds of attribute that hold one number."""

_KIND_OF_TYPE: dict[type, int] = {
    bool: framework_pb2.BOOLEAN,
    int: framework_pb2.INT,
    float: framework_pb2.FLOAT,
    str: framework_pb2.STRING,
}
_LIST_KIND_OF_TYPE: dict[type, int] = {int: framework_pb2.INTS, float: framework_pb2.FLOATS}
