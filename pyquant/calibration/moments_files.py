"""Second moments in files beside a checkpoint: a calibration that rounds by them goes on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from ..errors import CalibrationFileError
from ..program.output_files import OutputFiles, end_killed_runs
from .archive import map_array
from .moments import InputMoments, Moments


class MomentsFiles:
    """A file for the sums of each of some moments, as they were after a number of batches.

    Files of several numbers may be there. So whenever the process is killed, those are there that
    belong to the checkpoint, if they are written before it and the others dropped after it.
    """

    def __init__(self, directory: Path, moments: Moments) -> None:
        self._directory = directory
        self._moments = moments

    def write(self, batches: int, names: Collection[str] | None = None) -> None:
        """Write the moments of some activations, or of all; from then on they are mapped.

        Raises OutputError if that cannot be done.
        """
        chosen = list(self._of(names))
        if not chosen:
            return
        with OutputFiles(self._directory) as files:
            for index, one in chosen:
                with files.open(self._path(batches, index)) as stream:
                    np.save(stream, one.sums)
        self.load(batches, names)

    def load(self, batches: int, names: Collection[str] | None = None) -> None:
        """Take the moments of some activations, or of all, from files that are mapped.

        Raises CalibrationFileError if one is missing or damaged.
        """
        for index, one in self._of(names):
            path = self._path(batches, index)
            try:
                one.take(map_array(path))
            except (OSError, ValueError) as error:
                raise CalibrationFileError(
                    f"{path}: the moments by which round_type='adaround' rounds cannot be read "
                    f"({error}). Remove {self._directory} and the checkpoint beside it, and "
                    "calibrate again."
                ) from error

    def drop_others(self, batches: int) -> None:
        """Remove the files of other numbers of batches."""
        if self._moments and self._directory.is_dir():
            end_killed_runs(self._directory)
            for path in self._directory.glob("*-*.npy"):
                if not path.name.startswith(f"{batches}-"):
                    path.unlink(missing_ok=True)

    def _of(self, names: Collection[str] | None) -> Iterator[tuple[int, InputMoments]]:
        """Yield the moments of activations that have sums of their own, each with its number."""
        numbered = enumerate(
            (name, one) for name, some in self._moments.items() for one in some if one.nbytes
        )
        for index, (name, one) in numbered:
            if names is None or name in names:
                yield index, one

    def _path(self, batches: int, index: int) -> Path:
        return self._directory / f"{batches}-{index}.npy"
