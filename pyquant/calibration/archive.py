"""Reading .npz files that anybody may have written."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..program.parameters import Array, open_regular

MOST_EXPANSION = 100
"""How many times larger than the file its arrays may be, besides `FREE_BYTES`."""
FREE_BYTES = 1 << 26


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
    read = np.lib.format.read_array_header_1_0
    if np.lib.format.read_magic(content) > (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, _, dtype = read(content)
    declared = content.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or declared != member.file_size:
        raise ValueError(
            f"{member.filename} declares {dtype}{list(shape)} in {member.file_size} bytes"
        )
