"""Calibration in the memory of one segment: each runs over all batches before the next one does.

The statistics are those of the whole model at once, bit for bit (see `segmented`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np

from ..errors import (
    CalibrationFileError,
    CalibrationInterrupted,
    SettingError,
    UnsupportedError,
)
from ..memory import as_text, available_bytes, resident_bytes, seconds_as_text
from ..program.model import Model
from ..program.segments import activation_bytes, cut, multiplications, why_whole
from ..progress import logger, progress_bar
from .boundaries import Boundaries
from .data import Feed, Feeds
from .kept import KeptBatches
from .moments import Moments
from .run import Checkpoint, refuse_nothing, skip
from .segmented import Part, SegmentForward, as_observed, parts_of
from .state import Calibration, Progress, Segments
from .statistic import Statistics

_FED = -1  # the number of what is no segment: the data
_SHARE_IN_MEMORY = 8  # the boundaries may take this part of the limit before they go to disk
_SHARE_OF_AVAILABLE = 0.9

# How many times its parameters a model takes: in Predictors, while its weights become integers.
_TIMES_WHOLE = 2.5
# Beside its parameters, a Predictor may have some of the largest ones in oneDNN's order.
_TIMES_LARGEST = 0.5
# Two copies of the activations of an op, of which one is in the order of oneDNN.
_TIMES_ACTIVATIONS = 2.0
_PER_ACTIVATION = 1 << 18  # a histogram, sums and a sample
# A weight as it is stored, by its rows, as integers, and with the errors of some rows.
_TIMES_ROUNDED = 3

# What a segment takes, as multiples of the time of its products of matrices alone; and how many
# bytes of weights a Predictor loads and orders in a second.
_TIMES_PRODUCTS = 1.5
_LOADED_PER_SECOND = 5e8


def tight_limit(model: Model, asked: int | None) -> int | None:
    """Return the limit of memory, in bytes, that a model does not fit into as a whole, or None.

    ``asked`` is the limit that was asked for; None takes what there is.
    """
    most = asked
    if most is None:
        most = resident_bytes() + int(available_bytes() * _SHARE_OF_AVAILABLE)
    return most if whole_bytes(model) > most else None


def whole_bytes(model: Model) -> int:
    """Return about how much memory the process takes if all of a model is in it."""
    parameters = sum(array.nbytes for array in model.parameters.values())
    return resident_bytes() + int(parameters * _TIMES_WHOLE)


def collect_in_segments(
    model: Model,
    statistics: Statistics,
    feeds: Feeds,
    limit: int,
    moments: Moments | None = None,
    total: int | None = None,
) -> tuple[int, KeptBatches, Progress]:
    """Run every feed through all segments, as `collect_statistics` does for the whole model.

    ``moments`` are observed, too, and lie in files without names at the end.

    Returns the number of feeds, a few of them, and what tells these data from others.

    Beside its errors, raises OutputError if a temporary file cannot be written, SettingError if
    ``limit`` is too small, and UnsupportedError if the program cannot be cut.
    """
    kept = KeptBatches()
    with Boundaries(None, limit // _SHARE_IN_MEMORY) as boundaries:
        run = _Run(model, statistics, limit, boundaries, moments)
        seen = Progress()
        for batch, feed in enumerate(progress_bar(feeds, "reading", total)):
            seen = seen.after(feed)
            kept.add(feed)
            run.take(batch, feed)
        refuse_nothing(seen.batches)
        run.announce(kept.feeds[0], 0, seen.batches)
        for _ in run.segments(0, range(seen.batches)):
            pass
    return seen.batches, kept, seen


def resume_in_segments(
    model: Model,
    calibration: Calibration,
    feeds: Feeds,
    limit: int,
    checkpoint: Checkpoint,
    total: int | None = None,
) -> None:
    """Go on with a calibration, as `resume` does for the whole model, segment by segment.

    It is saved after each segment; the files of ``checkpoint`` with the suffix ``.segments`` hold
    what the next ones read. Beside the errors of `resume`, raises those of `collect_in_segments`,
    and CalibrationFileError if one of these files is damaged, or another call uses them.
    """
    directory = checkpoint.path.with_name(f"{checkpoint.path.name}.segments")
    with Boundaries(directory, 0) as boundaries:
        run = _Run(model, calibration.statistics, limit, boundaries, checkpoint.moments)
        moments = checkpoint.moments_files
        seen = skip(feeds, calibration.progress, checkpoint)
        under_way = calibration.segments
        if under_way is None:
            first = seen.batches
            for batch, feed in enumerate(progress_bar(feeds, "reading", total, first), first):
                seen = seen.after(feed)
                calibration.kept.add(feed)
                run.take(batch, feed)
            under_way = Segments(0, len(run.parts), first)
        elif next(feeds, None) is not None:
            raise CalibrationFileError(
                f"{checkpoint.path}: it is of {seen.batches} batch(es), there are more in this "
                "data. Give the same data, or another file to start over."
            )
        if under_way.total != len(run.parts):
            raise CalibrationFileError(
                f"{checkpoint.path}: it is of {under_way.total} segments, this pyquant cuts the "
                f"model into {len(run.parts)}. Use the pyquant that wrote it, or another file to "
                "start over."
            )
        refuse_nothing(seen.batches)
        calibration.batches, calibration.progress = seen.batches, seen
        batches = range(under_way.first, seen.batches)
        done_parts, others = run.parts[: under_way.done], run.parts[under_way.done :]
        moments.load(seen.batches, _names(done_parts))
        if under_way.first:
            moments.load(under_way.first, _names(others))
        if not batches:  # all were seen already
            return
        run.announce(calibration.kept.feeds[0], under_way.done, len(batches))
        with _said_how_to_resume(checkpoint):
            for done in run.segments(under_way.done, batches):
                is_last = done == under_way.total
                calibration.segments = None if is_last else under_way._replace(done=done)
                moments.write(seen.batches, run.parts[done - 1].names)
                calibration.save(checkpoint.path)
        moments.drop_others(seen.batches)
        boundaries.remove()


@contextmanager
def _said_how_to_resume(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise CalibrationInterrupted(
            f"calibration stopped; {checkpoint.path} keeps the segments that are done. The same "
            "call resumes from there."
        ) from None


class _Run:
    """Runs the segments of a model one after the other."""

    def __init__(
        self,
        model: Model,
        statistics: Statistics,
        limit: int,
        boundaries: Boundaries,
        moments: Moments | None = None,
    ) -> None:
        self._model = as_observed(model, statistics)
        self._statistics = statistics
        self._limit = limit
        self._boundaries = boundaries
        self._moments = moments or {}
        self.parts = parts_of(self._model, statistics)
        self._need: int | None = None  # about how much memory the process takes at most
        self._makers = {
            name: index for index, part in enumerate(self.parts) for name in part.segment.outputs
        }
        last = ((name, i) for i, part in enumerate(self.parts) for name in part.segment.inputs)
        self._last_reader = dict(last)

    def take(self, batch: int, feed: Feed) -> None:
        """Keep the inputs of the model for a batch."""
        if self._need is None:
            self._need = self._checked_need(feed)
        fed = {name: array for name, array in feed.items() if name in self._last_reader}
        self._boundaries.write(_FED, batch, fed)

    def segments(self, done: int, batches: range) -> Iterator[int]:
        """Run the segments behind the first ``done``; yield how many are done after each."""
        for index in range(done, len(self.parts)):
            self._run(index, batches)
            self._model.refuse_changed_files()
            yield index + 1
            for segment in self._read_up(index):
                self._boundaries.drop(segment, batches)

    def _run(self, index: int, batches: range) -> None:
        part = self.parts[index]
        makers = {name: self._makers.get(name, _FED) for name in part.segment.inputs}
        forward = SegmentForward(self._model, part, None, self._moments)
        title = f"segment {index + 1}/{len(self.parts)}"
        for batch in progress_bar(batches, title, len(batches)):
            outputs = forward.run(self._boundaries.read(batch, makers), batch, self._statistics)
            if outputs:
                self._boundaries.write(index, batch, outputs)
        forward.forget_weights()
        for name in part.names:
            for one in self._moments.get(name, ()):
                one.move_to_file()

    def _read_up(self, done: int) -> list[int]:
        """Return the makers whose tensors no segment behind ``done`` reads."""
        last: dict[int, int] = {}
        for name, reader in self._last_reader.items():
            maker = self._makers.get(name, _FED)
            last[maker] = max(reader, last.get(maker, 0))
        return [maker for maker, reader in last.items() if reader == done]

    def announce(self, feed: Feed, done: int, batches: int) -> None:
        """Say what the segments behind the first ``done`` will take; ``feed`` is a batch."""
        need = self._checked_need(feed) if self._need is None else self._need
        left = self.parts[done:]
        read = sum(map(_parameter_bytes, left))
        seconds = _seconds(self._model, left, feed, batches)
        logger.warning(
            "calibrating in %d segments, each over all batches before the next: reads %s of "
            "weights once, and takes about %s and %s of memory",
            *(len(left), as_text(read), seconds_as_text(seconds), as_text(need)),
        )

    def _checked_need(self, feed: Feed) -> int:
        """Return about how much memory the process takes; refuse more than the limit."""
        needed = _needed(self._model, self.parts, feed, self._moments)
        share = 0.0 if self._boundaries.is_on_disk else 1 / _SHARE_IN_MEMORY
        need = needed + int(self._limit * share)
        if need <= self._limit:
            return need
        whole = why_whole(self._model) if len(cut(self._model)) == 1 else None
        if whole is not None:
            raise UnsupportedError(
                f"memory_limit: {as_text(self._limit)} is less than the model takes, about "
                f"{as_text(whole_bytes(self._model))}, and it cannot be run in segments: "
                f"{whole}. Give a larger limit."
            )
        most = max(self.parts, key=lambda part: _held(part, self._moments))
        op, size = most.segment.largest
        moments = _moments_bytes(most, self._moments)
        beside = f", and whose moments {as_text(moments)}" if moments else ""
        raise SettingError(
            f"memory_limit: {as_text(self._limit)} is less than the segment of '{op}' needs, "
            f"whose weights take {as_text(size)} of {as_text(most.segment.parameter_bytes)}"
            f"{beside}. Give {as_text(math.ceil(needed / (1 - share)))} or more, or smaller batches"
            f"{', or leave out adaround' if moments else ''}."
        )


def _seconds(model: Model, parts: Sequence[Part], feed: Feed, batches: int) -> float:
    """Return about how long some segments take over all batches."""
    segments = [part.segment for part in parts]
    work = batches * multiplications(model, segments, *_extent(feed))
    read = sum(map(_parameter_bytes, parts))
    return _TIMES_PRODUCTS * work / _multiplications_per_second() + read / _LOADED_PER_SECOND


@lru_cache
def _multiplications_per_second() -> float:
    """Measure, once, how many multiplications this machine does in a product of matrices."""
    x, y = np.ones((512, 1024), np.float32), np.ones((1024, 1024), np.float32)
    shortest = math.inf
    for _ in range(3):
        start = time.perf_counter()
        x @ y
        shortest = min(shortest, time.perf_counter() - start)
    return float(x.size * len(y)) / shortest


def _extent(feed: Feed) -> tuple[int, int]:
    """Return the number of samples of a batch, and its longest other axis."""
    arrays = [array for array in feed.values() if array.ndim]
    samples = max((len(array) for array in arrays), default=1)
    return samples, max((size for array in arrays for size in array.shape[1:]), default=1)


def _names(parts: Sequence[Part]) -> set[str]:
    """Return the activations that are observed in parts."""
    return {name for part in parts for name in part.names}


def _parameter_bytes(part: Part) -> int:
    return part.segment.parameter_bytes


def _moments_bytes(part: Part, moments: Moments) -> int:
    return sum(one.nbytes for name in part.names for one in moments.get(name, ()))


def _held(part: Part, moments: Moments) -> int:
    """Return what a segment takes for its weights and moments."""
    weights = part.segment.parameter_bytes + int(_TIMES_LARGEST * part.segment.largest[1])
    return weights + _moments_bytes(part, moments)


def _needed(model: Model, parts: Sequence[Part], feed: Feed, moments: Moments) -> int:
    """Return about how much memory the process takes at most, without the boundaries."""
    segments = [part.segment for part in parts]
    activations = _TIMES_ACTIVATIONS * activation_bytes(model, segments, *_extent(feed))
    statistics = sum(len(part.names) for part in parts) * _PER_ACTIVATION
    running = max(_held(part, moments) for part in parts) + int(activations)
    rounding = max((one.rounding_bytes for some in moments.values() for one in some), default=0)
    if rounding:
        rounding += _TIMES_ROUNDED * max(part.segment.largest[1] for part in parts)
    return resident_bytes() + max(running, rounding) + statistics
