"""Paddle's parameter files: reading by memory map, writing as a stream.

A combined file (``.pdiparams``) holds its tensors one after the other, sorted by name, without a
header. A separate parameter file holds one such tensor. A tensor consists of
(``paddle/phi/core/framework/dense_tensor_serialize.cc``): u32 version, u64 number of LoD levels
(each u64 bytes and data), u32 tensor version, i32 length and bytes of a ``TensorDesc``, then the
raw little-endian values.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Union

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tqdm import tqdm

from ..errors import ModelFileError
from . import proto
from .mapped_files import changed_file, forget_pages, map_file

Array = NDArray[Any]

_CHUNK_BYTES = 1 << 24
_WORTH_A_THREAD = 1 << 20  # as many bytes or more are written while the next ones are made


@dataclass(frozen=True)
class DerivedTensor:
    """A tensor that is made from others while it is written, so that it is never whole in memory.

    ``chunks`` yields its values in C order. Each chunk is valid until the next but one is taken, so
    that it can be written while the next one is made.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: Callable[[], Iterable[Array]]


Tensor = Union[Array, DerivedTensor]


class _Reader:
    """A position in a mapped file; every read is checked against the file's end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        self.buffer = _mapped(path)
        self.name = ""

    def fail(self, problem: str) -> ModelFileError:
        return ModelFileError(
            f"{self.path}: parameter '{self.name}' at byte {self.position}: {problem}. "
            "The file is truncated, damaged, or belongs to another model; export it again."
        )

    def take(self, size: int) -> memoryview:
        left = len(self.buffer) - self.position
        if size < 0 or size > left:
            raise self.fail(f"{size} bytes wanted, {left} left")
        start, self.position = self.position, self.position + size
        return self.buffer[start : self.position]

    def number(self, layout: str) -> int:
        (value,) = struct.unpack(layout, self.take(struct.calcsize(layout)))
        return int(value)

    def at_end(self) -> bool:
        return self.position == len(self.buffer)


def read_combined(path: Path, names: list[str]) -> dict[str, Array]:
    """Map a combined parameter file that holds ``names``, given in any order.

    Returns read-only arrays on the mapped file by name; bfloat16 is raw ``uint16``. Raises
    ModelFileError if the file is missing or truncated, or holds more or fewer tensors.
    """
    reader = _Reader(path)
    arrays = {}
    for count, name in enumerate(sorted(names)):
        reader.name = name
        if reader.at_end():
            raise ModelFileError(
                f"{path}: ends after {count} of {len(names)} parameters; '{name}' is the first one "
                "missing. Use the parameter file that was exported together with the model."
            )
        arrays[name] = _read_tensor(reader)
    if not reader.at_end():
        raise ModelFileError(
            f"{path}: {len(reader.buffer) - reader.position} bytes are left behind the model's "
            f"{len(names)} parameters. Use the parameter file that was exported with the model."
        )
    return arrays


def read_separate(directory: Path, names: list[str]) -> dict[str, Array]:
    """Map one file per parameter, named like it; otherwise as `read_combined`."""
    arrays = {}
    for name in names:
        arrays.update(read_combined(directory / name, [name]))
    return arrays


def write_combined(stream: BinaryIO, tensors: Mapping[str, Tensor]) -> None:
    """Write ``tensors`` to ``stream`` as a combined parameter file; ``uint16`` is bfloat16."""

    def write(data: bytes | memoryview) -> None:
        stream.write(data)
        forget_pages(np.frombuffer(data, np.uint8))  # written, a chunk of a file is in memory again

    with ThreadPoolExecutor(1) as writer:
        under_way: Future[Any] | None = None
        for name in tqdm(sorted(tensors), desc="writing", unit="tensor", disable=None):
            for data in _encoded(tensors[name]):
                if under_way is not None:
                    under_way.result()
                    under_way = None
                if len(data) < _WORTH_A_THREAD:
                    write(data)
                else:
                    under_way = writer.submit(write, data)
        if under_way is not None:
            under_way.result()


def row_chunks(array: Array) -> Iterator[slice]:
    """Yield slices of axis 0 that are small enough to be worked on in memory.

    Frees the pages of a mapped file after each slice, since it can be larger than memory.
    """
    rows = len(array) if array.ndim else 0
    step = max(1, _CHUNK_BYTES * rows // max(1, array.nbytes))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        yield part
        forget_pages(array[part])


def _encoded(tensor: Tensor) -> Iterator[bytes | memoryview]:
    desc = proto.TensorDesc(data_type=proto.paddle_dtype(tensor.dtype), dims=tensor.shape)
    encoded = desc.SerializeToString()
    yield struct.pack("<IQIi", 0, 0, 0, len(encoded)) + encoded
    for chunk in tensor.chunks() if isinstance(tensor, DerivedTensor) else _chunks(tensor):
        yield chunk.reshape(-1).view(np.uint8).data


def _chunks(array: Array) -> Iterator[Array]:
    if not array.ndim:
        yield array
    for part in row_chunks(array):
        yield np.ascontiguousarray(array[part])


def _read_tensor(reader: _Reader) -> Array:
    _expect_version(reader)
    for _ in _lod_levels(reader):
        reader.take(reader.number("<Q"))
    _expect_version(reader)
    desc = proto.TensorDesc()
    try:
        desc.ParseFromString(bytes(reader.take(reader.number("<i"))))
    except DecodeError as error:
        raise reader.fail(f"its description cannot be parsed ({error})") from error
    dtype = proto.numpy_dtype(desc.data_type)
    if dtype is None:
        raise reader.fail(f"data type {desc.data_type} is not known")
    if any(dim < 0 for dim in desc.dims):
        raise reader.fail(f"shape {list(desc.dims)} has a negative size")
    # numpy multiplies the sizes of an empty array, too.
    span = math.prod(dim for dim in desc.dims if dim) * dtype.itemsize
    if len(desc.dims) > proto.MOST_DIMENSIONS or span >= 2**63:
        raise reader.fail(f"shape {list(desc.dims)} is none that a tensor of Paddle can have")
    data = reader.take(math.prod(desc.dims) * dtype.itemsize)
    return np.frombuffer(data, dtype=dtype).reshape(tuple(desc.dims))


def _expect_version(reader: _Reader) -> None:
    version = reader.number("<I")
    if version != 0:
        raise reader.fail(f"tensor version {version} where 0 is expected")


def _lod_levels(reader: _Reader) -> Iterator[int]:
    levels = reader.number("<Q")
    if levels > len(reader.buffer):
        raise reader.fail(f"{levels} LoD levels")
    return iter(range(levels))


def refuse_changed(arrays: Iterable[Array]) -> None:
    """Raise ModelFileError if a file that arrays are mapped from has changed since."""
    path = changed_file(arrays)
    if path is not None:
        raise ModelFileError(
            f"{path}: the parameter file was changed while it was being read. Wait until it is "
            "written, and try again."
        )


def _mapped(path: Path) -> memoryview:
    try:
        return map_file(path)
    except OSError as error:
        raise ModelFileError(
            f"{path}: the parameter file cannot be read ({error.strerror}). "
            "Check model_dir and params_filename."
        ) from error
