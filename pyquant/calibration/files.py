"""Calibration samples from .npz and .npy files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CalibrationDataError
from ..program.parameters import Array


def samples_in(path: Path) -> Iterator[Any]:
    """Yield the samples of every file, along axis 0 of its arrays.

    Args:
        path: a file, or a directory whose files are taken in the order of their names. An .npz
            holds one array per input by the input's name (or without names, in their order); an
            .npy holds the only input.

    Yields:
        A dict by input name, a tuple in the order of the inputs, or one array.

    Raises:
        CalibrationDataError: there is no such file, it holds no arrays, or they differ in length.
    """
    files = sorted(path.glob("*.np[yz]")) if path.is_dir() else [path]
    if not files:
        raise CalibrationDataError(f"{path}: there is no .npz or .npy file in it.")
    for file in files:
        yield from _samples(file, _read(file))


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
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CalibrationDataError(
            f"{file}: cannot be read as .npz or .npy ({error}). Write it by numpy.savez."
        ) from error
