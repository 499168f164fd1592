"""Files that are mapped into memory, which others may change meanwhile."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from weakref import WeakKeyDictionary, finalize

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import OutputError


class _Mapping(NamedTuple):
    """A mapped file as it was when it was mapped."""

    path: Path
    state: tuple[int, ...]
    number: int  # by which its memory is watched


_mappings: WeakKeyDictionary[mmap.mmap, _Mapping] = WeakKeyDictionary()


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; raise OSError for anything else, as a pipe, which could block."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return path.open("rb")


def read_whole(path: Path, most: int) -> bytes:
    """Return what a file holds; raise OSError if it cannot be read, or has over ``most`` bytes.

    A sparse file can have far more bytes than there is memory.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size} bytes, where at most {most} are read")
        return file.read(most)


def map_file(path: Path) -> memoryview:
    """Map a file, whose memory can then be read even if the file is truncated.

    See `changed_file`. Raises OSError if it cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        return _mapped(file, path)


def moved_to_file(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array whose values lie in a temporary file, and are read when they are needed.

    The file has no name, so that it is gone with the process. Raises OutputError if it cannot be
    written.
    """
    directory = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            file.flush()
            content = _mapped(file, Path(directory))
    except OSError as error:
        raise OutputError(
            f"{directory}: a temporary file of {array.nbytes} bytes cannot be written "
            f"({error.strerror or error}). Make room there, or name another directory in TMPDIR."
        ) from error
    return np.frombuffer(content, array.dtype).reshape(array.shape)


def _mapped(file: Any, path: Path) -> memoryview:
    status = os.fstat(file.fileno())
    if status.st_size == 0:
        return memoryview(b"")
    try:
        mapped = mmap.mmap(file.fileno(), status.st_size, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise OSError(errno.EIO, "it has become shorter") from error
    number = kernels.watch_mapping(np.frombuffer(mapped, np.uint8))
    finalize(mapped, kernels.forget_mapping, number)
    _mappings[mapped] = _Mapping(path, _state(status), number)
    return memoryview(mapped)


def changed_file(arrays: Iterable[NDArray[Any]]) -> Path | None:
    """Return a file that arrays are mapped from, if it has changed since; None if none has.

    A file that another one has replaced under its name is unchanged: it is still there.
    """
    files = {id(file): file for array in arrays if (file := _file_of(array)) is not None}
    return next((_mappings[file].path for file in files.values() if _is_changed(file)), None)


def _is_changed(file: mmap.mmap) -> bool:
    mapping = _mappings[file]
    try:
        state = _state(mapping.path.stat())
    except OSError:
        state = ()
    is_same_file = state[:2] == mapping.state[:2]
    return kernels.is_mapping_cut(mapping.number) or (is_same_file and state != mapping.state)


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def forget_pages(array: NDArray[Any]) -> None:
    """Free the whole pages of a mapped file under ``array``; they are read again if needed."""
    file = _file_of(array)
    if file is None or not array.flags.c_contiguous:
        return
    offset = _address(array) - _address(np.frombuffer(file, np.uint8))
    first = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (offset + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if size > 0:
        file.madvise(mmap.MADV_DONTNEED, first, size)


def _file_of(array: NDArray[Any]) -> mmap.mmap | None:
    """Return the mapped file that an array is in, None if it is in none."""
    base: Any = array
    while isinstance(base, (np.ndarray, memoryview)):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, mmap.mmap) and base in _mappings else None


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
