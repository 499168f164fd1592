"""The calibration data among a call's arguments."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CalibrationDataError, SettingError, UnsupportedError
from ..program import proto
from ..program.mapped_files import changed_file, open_regular
from ..program.model import Model
from ..program.parameters import Array
from .archive import map_array, read_arrays
from .data import Feeds, feeds_of_batches, feeds_of_samples
from .iteration import Source, source_length


class CalibrationData:
    """The one source of calibration data among the arguments of a call.

    ``sources`` are the arguments by name; all but one must be None. ``batch_size`` is for batches
    made from samples. ``shard`` (i, n) takes only every n-th of the first ``batch_nums`` batches,
    from the i-th on. Raises CalibrationDataError if there is no source or more than one, and
    SettingError if a number is less than one or ``shard`` is not 0 <= i < n.
    """

    def __init__(
        self,
        sources: dict[str, Source | None],
        batch_size: int,
        batch_nums: int | None,
        shard: tuple[int, int] | None = None,
    ) -> None:
        for name, number in (("batch_size", batch_size), ("batch_nums", batch_nums)):
            if number is not None and number < 1:
                raise SettingError(f"{name}: {number} is less than 1.")
        self._first, self._step = shard or (0, 1)
        if not 0 <= self._first < self._step:
            raise SettingError(f"shard: {shard} is not possible. Give (i, n) with 0 <= i < n.")
        given = [name for name, source in sources.items() if source is not None]
        if len(given) != 1:
            have = " and ".join(given) or "none of them"
            raise CalibrationDataError(
                f"calibration data: one of {', '.join(sources)} is needed, {have} was given."
            )
        source = sources[given[0]]
        assert source is not None
        is_path = isinstance(source, (str, Path))
        self._source = SampleFiles(Path(source)) if is_path else source  # type: ignore[arg-type]
        self._of_samples = is_path or given[0] == "sample_generator"
        self._batch_size = batch_size
        self._batch_nums = batch_nums

    def feeds(self, model: Model) -> Feeds:
        """Return checked feeds; raise UnsupportedError if an input holds sequences (LoD)."""
        _refuse_sequences(model)
        make = feeds_of_batches
        if self._of_samples:
            make = partial(feeds_of_samples, batch_size=self._batch_size)
        feeds = make(model.feeds, self._source, batch_nums=self._batch_nums)
        return islice(feeds, self._first, None, self._step)

    def batches(self) -> int | None:
        """Return the greatest possible number of batches, or None if it is unknown."""
        length = source_length(self._source)
        if length is not None and self._of_samples:
            length = -(-length // self._batch_size)
        known = [number for number in (length, self._batch_nums) if number is not None]
        return len(range(self._first, min(known), self._step)) if known else None


def _refuse_sequences(model: Model) -> None:
    """Refuse inputs that need LoD offsets, without which Paddle may crash."""
    for var in model.feeds:
        level = proto.lod_level(var)
        if level:
            raise UnsupportedError(
                f"{model.model_path}: input '{var.name}' holds variable-length sequences "
                f"(lod_level {level}), which cannot be given as data. Quantize the weights alone, "
                "with quant_post_dynamic, or export the model with padded inputs."
            )


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
            raise CalibrationDataError(
                f"{path}: there is no .npz or .npy file in it, nor an image. Write samples with "
                "numpy.savez."
            )
        if not path.exists():
            raise CalibrationDataError(f"{path}: there is no such file. Check the path.")

    def __iter__(self) -> Iterator[Any]:
        for file in self._files:
            arrays = _read(file)
            yield from _samples(file, arrays)
            if changed_file(arrays.values()) is not None:
                raise CalibrationDataError(
                    f"{file}: it was changed while it was being read. Wait until it is written, "
                    "and try again."
                )

    def __len__(self) -> int:
        """Count the samples; only the headers of the files are read."""
        return sum(_length(file) for file in self._files)


def _samples(file: Path, arrays: dict[str, Array]) -> Iterator[Any]:
    if not arrays:
        raise CalibrationDataError(f"{file}: it holds no array. Write it with numpy.savez.")
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
        is_archive = _is_archive(file)
        if file.suffix in (".npz", ".npy"):
            return read_arrays(file) if is_archive else {"arr_0": map_array(file)}
    except (OSError, ValueError) as error:
        raise CalibrationDataError(
            f"{file}: cannot be read as .npz or .npy ({error}). Write it with numpy.savez."
        ) from error
    raise CalibrationDataError(
        f"{file}: samples are read from .npz and .npy files, and images from directories. "
        "Convert it, as with numpy.savez('samples.npz', numpy.loadtxt(...))."
    )


def _length(file: Path) -> int:
    try:
        if not _is_archive(file):
            return len(map_array(file))
        with zipfile.ZipFile(file) as archive, archive.open(archive.namelist()[0]) as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0
            if version > (1, 0):
                read = np.lib.format.read_array_header_2_0
            return int(read(member)[0][0])
    except (OSError, ValueError, EOFError, LookupError, TypeError, zipfile.BadZipFile):
        return 0  # reading the samples will raise the error


def _is_archive(file: Path) -> bool:
    with open_regular(file) as stream:
        return zipfile.is_zipfile(stream)
