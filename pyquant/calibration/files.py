"""Calibration samples from .npz and .npy files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CalibrationDataError
from ..program.parameters import Array


class SampleFiles:
    """The samples in files, along axis 0 of their arrays.

    The path is a file, or a directory whose files are read in the order of their names. An .npz
    holds one array per input, under the input's name or unnamed in the order of the inputs. An .npy
    is for a model with one input. Iterating yields a dict by input name, a tuple in the order of
    the inputs, or one array. Raises CalibrationDataError if there is no such file, or if it holds
    no arrays or arrays of different lengths.
    """

    def __init__(self, path: Path) -> None:
        self._files = sorted(path.glob("*.np[yz]")) if path.is_dir() else [path]
        if not self._files:
            raise CalibrationDataError(f"{path}: there is no .npz or .npy file in it.")

    def __iter__(self) -> Iterator[Any]:
        for file in self._files:
            yield from _samples(file, _read(file))

    def __len__(self) -> int:
        """Count the samples; only the headers of the files are read."""
        return sum(_length(file) for file in self._files)


def _samples(file: Path, arrays: dict[str, Array]) -> Iterator[Any]:
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise CalibrationDataError(
            f"{file}: its arrays hold different numbers of samples: {lengths}. "
            "Axis 0 of each is the sample."
        )
    unnamed = all(name.startswith("arr_") for name in arrays)
    for position in range(next(iter(lengths.values()))):
        sample = {name: array[position] for name, array in arrays.items()}
        yield tuple(sample.values()) if unnamed else sample


def _read(file: Path) -> dict[str, Array]:
    try:
        loaded = np.load(file, mmap_mode="r")
        if isinstance(loaded, np.ndarray):
            return {"arr_0": loaded}
        with loaded:
            return dict(loaded)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CalibrationDataError(
            f"{file}: cannot be read as .npz or .npy ({error}). Write it with numpy.savez."
        ) from error


def _length(file: Path) -> int:
    try:
        if not zipfile.is_zipfile(file):
            return len(np.load(file, mmap_mode="r"))
        with zipfile.ZipFile(file) as archive, archive.open(archive.namelist()[0]) as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0
            if version > (1, 0):
                read = np.lib.format.read_array_header_2_0
            return int(read(member)[0][0])
    except (OSError, ValueError, EOFError, LookupError, TypeError, zipfile.BadZipFile):
        return 0  # reading the samples will raise the error
