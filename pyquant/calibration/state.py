"""The state of a calibration, which can be saved, loaded, resumed and merged."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import CalibrationFileError, SettingError
from ..program.mapped_files import forget_pages
from ..program.model import Model, program_bytes
from ..program.output_files import OutputFiles
from ..program.parameters import Array
from .archive import read_arrays
from .channel_statistics import ActivationChannels, ChannelSums
from .data import Feed
from .kept import KeptBatches
from .samples import ActivationSample
from .saved_values import (
    check_array,
    check_format,
    check_header,
    check_kept,
    check_members,
    check_statistic,
)
from .statistic import BINS, ActivationHistogram, channels_of

FORMAT_VERSION = 6

_FORMAT = "pyquant calibration"
_HASHED_BYTES = 4096  # per input of a batch: enough to tell batches apart


@dataclass(frozen=True)
class Progress:
    """How far into its data a calibration is."""

    batches: int = 0
    checksum: int = 0  # of the beginning of every batch, in order

    def after(self, feed: Feed) -> Progress:
        """Return the progress after one more batch."""
        checksum = self.checksum
        for name, array in feed.items():
            checksum = zlib.crc32(f"{name}{array.dtype}{array.shape}".encode(), checksum)
            flat = array.reshape(-1)
            checksum = zlib.crc32(flat[: _HASHED_BYTES // array.itemsize].tobytes(), checksum)
        return Progress(self.batches + 1, checksum)


class Segments(NamedTuple):
    """How far a calibration is that runs segment by segment (``memory_limit``).

    ``first`` is the first of the batches that the segments run over. Earlier ones are in all
    statistics, these only in those of the segments that are done.
    """

    done: int
    total: int
    first: int


@dataclass
class Calibration:
    """The statistics of a model's activations over some data.

    They depend neither on the order of the batches, nor on how these were split among calibrations
    that were merged later: the quantized models are the same, byte for byte.

    Attributes:
        model_fingerprint: SHA-256 of the model's program and parameters.
        statistics: a histogram of each activation, by its name.
        batches: how many batches it has seen.
        progress: how far into its data it is; None once it is merged.
        kept: a few of its batches.
        segments: how far it is, if it is not through all segments of the model.

    Example:
        >>> shards = [pyquant.calibrate("float", data_loader=batches, shard=(i, 2)) for i in (0, 1)]
        >>> pyquant.Calibration.merge(shards).batches
        2
    """

    model_fingerprint: str
    statistics: dict[str, ActivationHistogram]
    batches: int = 0
    progress: Progress | None = field(default_factory=Progress)
    kept: KeptBatches = field(default_factory=KeptBatches)
    segments: Segments | None = None

    def save(self, path: str | Path) -> None:
        """Write an ``.npz``; it appears whole or not at all.

        Raises:
            OutputError: it cannot be written; a file that existed before is unharmed.
        """
        path = Path(path)
        with OutputFiles(path.parent) as files, files.open(path) as stream:
            np.savez(stream, **_arrays(self))  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote. All of it is checked, since it may come from anywhere.

        Raises:
            CalibrationFileError: the file is missing, damaged or of another format, or holds
                values that no calibration has.
        """
        if not Path(path).exists():
            raise CalibrationFileError(
                f"{path}: there is no such file. Give what calibrate, merge or a checkpoint wrote."
            )
        try:
            return _calibration(Path(path), read_arrays(Path(path)))
        except (OSError, ValueError, RecursionError) as error:  # the latter two of its header
            raise CalibrationFileError(
                f"{path}: cannot be read as a saved calibration ({error}). Calibrate again."
            ) from error

    @classmethod
    def merge(cls, calibrations: Iterable[Calibration]) -> Calibration:
        """Return the calibration of all the data together.

        Args:
            calibrations: all of one model, each over data of its own.

        Raises:
            CalibrationFileError: they are of different models or of different activations.
            SettingError: none is given.
        """
        remaining = iter(calibrations)
        first = next(remaining, None)
        if first is None:
            raise SettingError("merge: no calibration was given. Give at least one.")
        first.refuse_unfinished("merge")
        merged = replace(first, statistics={}, progress=None, kept=KeptBatches())
        merged.kept.merge(first.kept)
        for name, statistic in first.statistics.items():
            merged.statistics[name] = deepcopy(statistic)
        for other in remaining:
            other.refuse_unfinished("merge")
            merged.check_same(other.model_fingerprint, other.statistics.keys(), "merge")
            for name, statistic in other.statistics.items():
                merged.statistics[name].merge(statistic)
            merged.batches += other.batches
            merged.kept.merge(other.kept)
        return merged

    def refuse_unfinished(self, where: str) -> None:
        """Raise CalibrationFileError if the batches are not through all segments."""
        if self.segments is not None:
            raise CalibrationFileError(
                f"{where}: the calibration is through {self.segments.done} of "
                f"{self.segments.total} segments. Finish it, by the call that began it."
            )

    def check_same(self, fingerprint: str, tensors: Iterable[str], where: str) -> None:
        """Raise CalibrationFileError unless this is of the given model and activations."""
        if fingerprint != self.model_fingerprint:
            raise CalibrationFileError(
                f"{where}: the calibration is of another model, or of this one folded differently "
                f"(SHA-256 {self.model_fingerprint[:12]} and {fingerprint[:12]}). Calibrate this "
                "model, with the same deploy_backend, optimize_model and skip_tensor_list."
            )
        differing = sorted(self.statistics.keys() ^ set(tensors))
        if differing:
            raise CalibrationFileError(
                f"{where}: the calibrations are of different activations; '{differing[0]}' and "
                f"{len(differing) - 1} more are in only one. Give the same deploy_backend, "
                "processors, quantizable_op_type, is_full_quantize and skip_tensor_list to all."
            )


def model_fingerprint(model: Model) -> str:
    """Return the SHA-256 of the model's program and parameters.

    It depends neither on where the files are, nor on how and when they were exported.
    """
    digest = hashlib.sha256(program_bytes(model.program))
    for name in sorted(model.parameters):
        array = np.ascontiguousarray(model.yet_to_be_made(name).stored)
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
        forget_pages(array)
    model.refuse_changed_files()
    return digest.hexdigest()


_FIELDS: Mapping[str, type[np.generic]] = {
    "abs_max": np.float64,
    "values": np.uint64,
    "samples": np.uint64,
    "minimum": np.float64,
    "maximum": np.float64,
    "zeros": np.uint64,
    "non_finite": np.uint64,
}

_KEPT = "kept/"
_SUMS = ("whole", "fraction")
_OF_SAMPLES = {"abs_max": "channel_abs_max", "rows": "rows"}
_OF_CHANNELS = {
    **dict.fromkeys(_SUMS, np.int64),
    **dict.fromkeys(_OF_SAMPLES.values(), np.float32),
}
_ARRAYS = {"header", "counts", *_FIELDS, *_OF_CHANNELS}


def _arrays(calibration: Calibration) -> dict[str, Array]:
    statistics = calibration.statistics.values()
    progress = calibration.progress
    channels = channels_of(calibration.statistics)
    header = {
        "format": _FORMAT,
        "version": FORMAT_VERSION,
        "model": calibration.model_fingerprint,
        "tensors": list(calibration.statistics),
        "batches": calibration.batches,
        "progress": None if progress is None else [progress.batches, progress.checksum],
        "segments": calibration.segments and list(calibration.segments),
        "width_exponents": [statistic.width_exponent for statistic in statistics],
        # Integers of any size.
        "sample_abs_max_sums": [hex(statistic.sample_abs_max_sum) for statistic in statistics],
        # For each activation with channel statistics: the axis, the number of positions and of
        # channels, and how many positions are in the sample.
        "channels": {
            name: [one.axis, one.sums.positions, one.sums.whole.size, len(one.sample.rows)]
            for name, one in channels.items()
        },
    }
    arrays: dict[str, Array] = {"header": np.array(json.dumps(header))}
    for key, feed in calibration.kept.by_hash.items():
        arrays |= {f"{_KEPT}{key}/{name}": array for name, array in feed.items()}
    for name, dtype in _FIELDS.items():
        arrays[name] = np.array([getattr(statistic, name) for statistic in statistics], dtype)
    counts = [statistic.counts for statistic in statistics]
    arrays["counts"] = np.array(counts, np.uint64).reshape(-1, BINS)
    for part in _SUMS:
        parts = [getattr(one.sums, part) for one in channels.values()]
        arrays[part] = np.concatenate([np.zeros(0, np.int64), *parts])
    for part, name in _OF_SAMPLES.items():
        values = [getattr(one.sample, part).reshape(-1) for one in channels.values()]
        arrays[name] = np.concatenate([np.zeros(0, np.float32), *values])
    return arrays


def _calibration(path: Path, arrays: Mapping[str, Array]) -> Calibration:
    header: dict[str, Any] = json.loads(str(arrays.get("header", "null")))
    check_format(header)
    found = header["format"], header["version"]
    if found != (_FORMAT, FORMAT_VERSION):
        raise CalibrationFileError(
            f"{path}: its format is {found[0]} {found[1]}, this pyquant reads {_FORMAT} "
            f"{FORMAT_VERSION}. Use the pyquant that wrote it, or calibrate again."
        )
    check_members(arrays, _ARRAYS, _KEPT)
    check_header(header)
    tensors = len(header["tensors"])
    for name, dtype in _FIELDS.items():
        check_array(name, arrays[name], dtype, (tensors,))
    check_array("counts", arrays["counts"], np.uint64, (tensors, BINS))
    statistics = {}
    channels = _channels(header["channels"], arrays)
    for index, tensor in enumerate(header["tensors"]):
        values = {name: arrays[name][index].item() for name in _FIELDS}
        statistics[tensor] = ActivationHistogram(
            **values,
            sample_abs_max_sum=int(header["sample_abs_max_sums"][index], 16),
            counts=arrays["counts"][index].copy(),
            width_exponent=header["width_exponents"][index],
            channels=channels.get(tensor),
        )
        check_statistic(tensor, statistics[tensor])
    progress = None if header["progress"] is None else Progress(*header["progress"])
    kept = _kept(arrays)
    check_kept(kept)
    segments = None if header["segments"] is None else Segments(*header["segments"])
    return Calibration(header["model"], statistics, header["batches"], progress, kept, segments)


def _kept(arrays: Mapping[str, Array]) -> KeptBatches:
    kept: dict[str, Feed] = {}
    for path, array in arrays.items():
        if path.startswith(_KEPT):
            key, _, name = path.removeprefix(_KEPT).partition("/")
            kept.setdefault(key, {})[name] = array
    return KeptBatches(kept)


def _channels(
    header: Mapping[str, list[int]], arrays: Mapping[str, Array]
) -> dict[str, ActivationChannels]:
    for part, dtype in _OF_CHANNELS.items():
        check_array(part, arrays[part], dtype, (-1,))
    found, begin, first = {}, 0, 0
    for tensor, (axis, positions, count, rows) in header.items():
        parts = [arrays[part][begin : begin + count] for part in (*_SUMS, "channel_abs_max")]
        values = arrays["rows"][first : first + rows * count]
        begin, first = begin + count, first + rows * count
        if {part.size for part in parts} != {count} or values.size != rows * count:
            raise ValueError(f"values of the channels of '{tensor}' are missing")
        whole, fraction, abs_max = parts
        sums = ChannelSums(positions, whole.copy(), fraction.copy())
        if not (np.abs(values.reshape(rows, count)) <= abs_max).all():
            raise ValueError(f"the sample of '{tensor}' is larger than the maxima of its channels")
        sample = ActivationSample(abs_max.copy(), values.reshape(rows, count))
        found[tensor] = ActivationChannels(axis, sums, sample)
    return found
