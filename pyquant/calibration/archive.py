"""Reading .npz files that anybody may have written."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..program.mapped_files import map_file, open_regular
from ..program.parameters import Array

MOST_EXPANSION = 100
"""How many times larger than the file its arrays may be, besides `FREE_BYTES`."""
FREE_BYTES = 1 << 26


def map_array(path: Path) -> Array:
    """Return the array of an ``.npy``, mapped; see `map_file`.

    Raises OSError if the file cannot be read, and ValueError if it is damaged.
    """
    with open_regular(path) as stream:
        try:
            shape, is_fortran, dtype = _header(stream)
        except Exception as error:  # numpy raises many types
            raise ValueError(str(error) or type(error).__name__) from error
        content = map_file(path)[stream.tell() :]
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"it declares {dtype}{list(shape)} in {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")


def read_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of an ``.npz`` by name.

    Every header is checked before memory is taken. Raises OSError if the file cannot be read, and
    ValueError if it is damaged, holds Python objects, or expands beyond `MOST_EXPANSION`.
    """
    with open_regular(path) as stream:
        try:
            _check(stream, os.fstat(stream.fileno()).st_size)
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except OSError:
            raise
        except Exception as error:  # zipfile and numpy raise many types
            raise ValueError(str(error) or type(error).__name__) from error


def _check(stream: Any, file_bytes: int) -> None:
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > file_bytes * MOST_EXPANSION + FREE_BYTES:
            raise ValueError(
                f"its {file_bytes} bytes expand to {total}. Write it by numpy.savez, which does "
                "not compress"
            )
        for member in members:
            with archive.open(member) as content:
                _check_header(content, member)


def _check_header(content: Any, member: zipfile.ZipInfo) -> None:
    """Check that a header declares as many bytes as its member of the archive has."""
    shape, _, dtype = _header(content)
    declared = content.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject or declared != member.file_size:
        raise ValueError(
            f"{member.filename} declares {dtype}{list(shape)} in {member.file_size} bytes"
        )


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an ``.npy``: the shape, whether it is in Fortran's order, and the type."""
    read = np.lib.format.read_array_header_1_0
    if np.lib.format.read_magic(stream) > (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(stream)
    if min(shape, default=0) < 0:
        raise ValueError(f"it declares the shape {list(shape)}")
    return shape, is_fortran, dtype
