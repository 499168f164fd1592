"""Numpy views of other libraries' arrays: nothing is copied or converted."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Protocol, Union

import numpy as np
from numpy.typing import NDArray

from . import _native


class SupportsDLPack(Protocol):
    """An array of another library."""

    def __dlpack__(self, *, stream: Any = None) -> Any:
        """Export as a DLPack capsule."""


class PaddleTensor(Protocol):
    """The part of `paddle.Tensor` that is used, so that Paddle need not be imported."""

    @property
    def place(self) -> Any:
        """The device."""

    def data_ptr(self) -> int:
        """The address of the first value."""


Values = Union[NDArray[Any], SupportsDLPack, PaddleTensor]  # | at run time needs Python 3.10


def view_values(x: Values, dtype: str | None = None) -> NDArray[Any]:
    """Return a view of the values: float32, float16, or bfloat16's bits as uint16.

    ``x`` is a numpy array, a Paddle tensor on the CPU, or another object with ``__dlpack__``.
    ``dtype`` is ``"bfloat16"`` if ``x`` holds its raw bits as uint16. Raises TypeError for another
    type, another byte order or another device.
    """
    if dtype not in (None, "bfloat16"):
        raise ValueError(f"dtype is given only for raw bits, as 'bfloat16', got {dtype!r}")
    if isinstance(x, np.ndarray):
        return _numpy_array(x, dtype)
    if hasattr(x, "data_ptr") and hasattr(x, "place"):
        array, dtype = _paddle_array(x, dtype)
        return _numpy_array(array, dtype)
    if hasattr(x, "__dlpack__"):
        return _numpy_array(_dlpack_array(x), dtype)
    raise TypeError(f"expected a numpy array or a tensor, got {type(x).__name__}")


def _numpy_array(x: NDArray[Any], dtype: str | None) -> NDArray[Any]:
    if not x.dtype.isnative:
        raise TypeError(
            f"{x.dtype} is not in this machine's byte order: convert with "
            "x.astype(x.dtype.newbyteorder('='))"
        )
    if dtype == "bfloat16":
        if x.dtype != np.uint16:
            raise TypeError(f"dtype='bfloat16' takes raw bits in uint16, got {x.dtype}")
    elif x.dtype == np.uint16:
        raise TypeError("uint16 is taken for raw bfloat16 bits only with dtype='bfloat16'")
    elif x.dtype not in (np.float32, np.float16):
        raise TypeError(
            f"{x.dtype} is not supported: convert to float32, float16 or bfloat16, "
            "e.g. with x.astype('float32')"
        )
    return x


_PADDLE_TYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
}


@cache
def _paddle_type(dtype: Any) -> tuple[np.dtype[Any], str | None]:
    """Return numpy's dtype for one of Paddle's, and the ``dtype`` of `_numpy_array` for it."""
    name = str(dtype).rpartition(".")[2]
    if name not in _PADDLE_TYPES:
        raise TypeError(
            f"{name} is not supported: convert to float32, float16 or bfloat16, "
            "e.g. with x.astype('float32')"
        )
    return _PADDLE_TYPES[name], "bfloat16" if name == "bfloat16" else None


def _paddle_array(x: Any, dtype: str | None) -> tuple[NDArray[Any], str | None]:
    # DLPack will not do: Paddle 2.6 has no `__dlpack__`, and numpy no bfloat16.
    if not x.place.is_cpu_place():
        raise TypeError(f"the tensor is on {x.place}: move it to the CPU with x.cpu()")
    values_type, element = _paddle_type(x.dtype)
    shape = x.shape
    if 0 in shape:
        return np.empty(tuple(shape), values_type), element or dtype
    if not x._is_initialized():
        raise ValueError("the tensor has no memory yet")
    values = _native.view_memory(x, x.data_ptr(), values_type, shape, x.strides)
    return values, element or dtype


def _dlpack_array(x: Any) -> NDArray[Any]:
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError) as error:
        raise TypeError(
            f"numpy cannot import this {type(x).__name__} by DLPack ({error}): "
            "pass a numpy array, bfloat16 as uint16 with dtype='bfloat16'"
        ) from error


def overwrite(view: NDArray[Any], values: NDArray[Any]) -> None:
    """Write values into memory that a view of `view_values` shows; both are of one shape and type.

    The view itself is read-only, since its owner does not expect its values to change.
    """
    if not view.flags.c_contiguous:
        raise ValueError("the view is not contiguous")
    source = np.ascontiguousarray(values, view.dtype)
    ctypes.memmove(view.ctypes.data, source.ctypes.data, view.nbytes)
