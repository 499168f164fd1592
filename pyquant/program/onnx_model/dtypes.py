"""Paddle's dtypes as ONNX's."""

from __future__ import annotations

import math

from ...errors import UnsupportedError
from .. import proto
from ..parameters import DerivedTensor, Tensor

# The numbers of ONNX's TensorProto.DataType, which a row needs without the package being there.
_BY_NAME = {
    **{"float32": 1, "uint8": 2, "int8": 3, "int16": 5, "int32": 6, "int64": 7, "bool": 9},
    **{"float16": 10, "float64": 11, "bfloat16": 16},
}
_DTYPES = {proto.data_type_of(name): code for name, code in _BY_NAME.items()}


def has_onnx_dtype(data_type: int) -> bool:
    """Return whether ONNX has a dtype of Paddle's."""
    return data_type in _DTYPES


def onnx_dtype(data_type: int) -> int:
    """Return ONNX's code for Paddle's ``data_type``; raise UnsupportedError if it has none."""
    if data_type not in _DTYPES:
        raise UnsupportedError(
            f"{proto.dtype_name(data_type)}: ONNX has no such dtype. Write a .pdmodel instead."
        )
    return _DTYPES[data_type]


class Int4Tensor(DerivedTensor):
    """Integers of 4 bits. The shape counts them; the chunks hold two in a byte."""


_INT4 = 22


def tensor_type(tensor: Tensor) -> int:
    """Return ONNX's code for the dtype of a tensor."""
    if isinstance(tensor, Int4Tensor):
        return _INT4
    return onnx_dtype(proto.paddle_dtype(tensor.dtype))


def tensor_bytes(tensor: Tensor) -> int:
    """Return how many bytes the values of a tensor take in a file."""
    count = math.prod(tensor.shape)
    return -(-count // 2) if isinstance(tensor, Int4Tensor) else count * tensor.dtype.itemsize
