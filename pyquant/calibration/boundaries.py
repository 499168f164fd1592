"""What segments pass on to later ones, batch by batch: in memory, or in files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from ..errors import CalibrationFileError, OutputError
from ..program.locks import locked
from ..program.parameters import Array
from ..program.temporary import TemporaryDirectory, temporary_place
from .archive import read_arrays
from .data import Feed

_PREFIX = "tensor "  # numpy.savez has parameters of its own, whose names a tensor may have


class Boundaries:
    """Tensors by the number of their batch and of the segment that made them.

    The first ``most_bytes`` stay in memory. The others are files in ``directory``, which is created
    if it is absent, and which no other process may use meanwhile; if it is None, in a temporary
    one, which is removed at the end.
    """

    def __init__(self, directory: Path | None, most_bytes: int) -> None:
        self._kept = directory
        self._temporary: TemporaryDirectory | None = None
        self._lock = ExitStack()
        self._left = most_bytes
        self._in_memory: dict[tuple[int, int], Feed] = {}

    def __enter__(self) -> Boundaries:
        """Raise OutputError if the directory cannot be made, CalibrationFileError if it is used."""
        if self._kept is not None:
            try:
                self._kept.mkdir(parents=True, exist_ok=True)
                self._lock.enter_context(locked(self._kept.with_suffix(".lock"), waits=False))
            except BlockingIOError as error:
                raise CalibrationFileError(
                    f"{error.filename}: another call calibrates with this checkpoint. Wait for it, "
                    "or give another one. If it was killed, and the file system has no locks, "
                    "remove this file."
                ) from error
            except OSError as error:
                raise _unwritable(self._kept, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._in_memory.clear()
        if self._temporary is not None:
            self._temporary.remove()
        if self._kept is not None:
            with suppress(OSError):  # it holds what the next call goes on with
                self._kept.rmdir()
        self._lock.close()

    @property
    def is_on_disk(self) -> bool:
        """Whether all that is kept goes to files."""
        return self._kept is not None

    def write(self, segment: int, batch: int, tensors: Feed) -> None:
        """Keep what a segment made of a batch.

        Raises OutputError if a file cannot be written.
        """
        size = sum(array.nbytes for array in tensors.values())
        if size <= self._left:
            self._left -= size
            self._in_memory[segment, batch] = dict(tensors)
        else:
            self._write(segment, batch, tensors)

    def read(self, batch: int, makers: Mapping[str, int]) -> Feed:
        """Return tensors of a batch by name; ``makers`` has the segment that made each.

        Raises CalibrationFileError if a file is damaged or missing.
        """
        found = {
            segment: self._in_memory.get((segment, batch)) or self._read(segment, batch)
            for segment in set(makers.values())
        }
        for name, segment in makers.items():
            if name not in found[segment]:
                raise self._damaged(self._path(segment, batch), f"'{name}' is missing")
        return {name: found[segment][name] for name, segment in makers.items()}

    def drop(self, segment: int, batches: Iterable[int]) -> None:
        """Forget what a segment made."""
        for batch in batches:
            tensors = self._in_memory.pop((segment, batch), None)
            if tensors is not None:
                self._left += sum(array.nbytes for array in tensors.values())
            elif self._directory is not None:
                self._path(segment, batch).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory with all files."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def _directory(self) -> Path | None:
        return self._temporary.path if self._temporary is not None else self._kept

    def _path(self, segment: int, batch: int) -> Path:
        assert self._directory is not None
        return self._directory / f"{segment}-{batch}.npz"

    def _write(self, segment: int, batch: int, tensors: Feed) -> None:
        where = self._directory
        try:
            if self._directory is None:
                self._temporary = TemporaryDirectory()
            where = self._path(segment, batch)
            # A process may be killed here: then there is no file, or the earlier one.
            half = where.with_suffix(".half")
            with half.open("wb") as stream:
                np.savez(stream, **_named(tensors))  # type: ignore[arg-type]
            os.replace(half, where)
        except OSError as error:
            raise _unwritable(where or temporary_place(error), error) from error

    def _read(self, segment: int, batch: int) -> dict[str, Array]:
        path = self._path(segment, batch)
        try:
            arrays = read_arrays(path)
            return {name.removeprefix(_PREFIX): array for name, array in arrays.items()}
        except (OSError, ValueError) as error:
            raise self._damaged(path, error) from error

    def _damaged(self, path: Path, problem: object) -> CalibrationFileError:
        return CalibrationFileError(
            f"{path}: what a segment passed on cannot be read ({problem}). Remove "
            f"{path.parent} and the checkpoint beside it, and calibrate again."
        )


def _unwritable(where: Path | str, error: OSError) -> OutputError:
    return OutputError(
        f"{where}: what a segment passes on cannot be written ({error.strerror or error}). Make "
        "room there, or name another directory: in TMPDIR, or with checkpoint another path. What "
        "was calibrated so far is kept there."
    )


def _named(tensors: Feed) -> dict[str, Array]:
    return {f"{_PREFIX}{name}": array for name, array in tensors.items()}
