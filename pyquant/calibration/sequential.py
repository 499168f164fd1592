"""Calibration in the memory of one segment: each runs over all batches before the next one does.

The statistics are those of the whole model at once, bit for bit (see `segmented`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import (
    CalibrationFileError,
    CalibrationInterrupted,
    SettingError,
    UnsupportedError,
)
from ..memory import as_text, available_bytes, resident_bytes
from ..program.model import Model
from ..program.segments import activation_bytes, cut, why_whole
from ..progress import logger, progress_bar
from .boundaries import Boundaries
from .data import Feed, Feeds
from .forward import Observers
from .kept import KeptBatches
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
    observers: Observers | None = None,
    total: int | None = None,
) -> tuple[int, KeptBatches, Progress]:
    """Run every feed through all segments, as `collect_statistics` does for the whole model.

    Returns the number of feeds, a few of them, and what tells these data from others.

    Beside its errors, raises OutputError if a temporary file cannot be written, SettingError if
    ``limit`` is too small, and UnsupportedError if the program cannot be cut.
    """
    kept = KeptBatches()
    with Boundaries(None, limit // _SHARE_IN_MEMORY) as boundaries:
        run = _Run(model, statistics, limit, boundaries, observers)
        seen = Progress()
        for batch, feed in enumerate(progress_bar(feeds, "reading", total)):
            seen = seen.after(feed)
            kept.add(feed)
            run.take(batch, feed)
        refuse_nothing(seen.batches)
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
        run = _Run(model, calibration.statistics, limit, boundaries)
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
        if not batches:  # all were seen already
            return
        with _said_how_to_resume(checkpoint):
            for done in run.segments(under_way.done, batches):
                is_last = done == under_way.total
                calibration.segments = None if is_last else under_way._replace(done=done)
                calibration.save(checkpoint.path)
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
        observers: Observers | None = None,
    ) -> None:
        self._model = as_observed(model, statistics)
        self._statistics = statistics
        self._limit = limit
        self._boundaries = boundaries
        self._observers = observers
        self.parts = parts_of(self._model, statistics)
        self._is_announced = False
        self._makers = {
            name: index for index, part in enumerate(self.parts) for name in part.segment.outputs
        }
        last = ((name, i) for i, part in enumerate(self.parts) for name in part.segment.inputs)
        self._last_reader = dict(last)

    def take(self, batch: int, feed: Feed) -> None:
        """Keep the inputs of the model for a batch."""
        self._announce(feed)
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
        forward = SegmentForward(self._model, part, None, self._observers)
        title = f"segment {index + 1}/{len(self.parts)}"
        for batch in progress_bar(batches, title, len(batches)):
            outputs = forward.run(self._boundaries.read(batch, makers), batch, self._statistics)
            if outputs:
                self._boundaries.write(index, batch, outputs)

    def _read_up(self, done: int) -> list[int]:
        """Return the makers whose tensors no segment behind ``done`` reads."""
        last: dict[int, int] = {}
        for name, reader in self._last_reader.items():
            maker = self._makers.get(name, _FED)
            last[maker] = max(reader, last.get(maker, 0))
        return [maker for maker, reader in last.items() if reader == done]

    def _announce(self, feed: Feed) -> None:
        """Say what the run will take, once; refuse it if that is more than the limit."""
        if self._is_announced:
            return
        self._is_announced = True
        need, most = _needed(self._model, self.parts, feed), max(self.parts, key=_parameter_bytes)
        need += self._limit // _SHARE_IN_MEMORY if not self._boundaries.is_on_disk else 0
        if need > self._limit:
            whole = why_whole(self._model) if len(cut(self._model)) == 1 else None
            if whole is not None:
                raise UnsupportedError(
                    f"memory_limit: {as_text(self._limit)} is less than the model takes, about "
                    f"{as_text(whole_bytes(self._model))}, and it cannot be run in segments: "
                    f"{whole}. Give a larger limit."
                )
            op, size = most.segment.largest
            share = 1 - 1 / _SHARE_IN_MEMORY if not self._boundaries.is_on_disk else 1
            raise SettingError(
                f"memory_limit: {as_text(self._limit)} is less than the segment of '{op}' needs, "
                f"whose weights take {as_text(size)} of {as_text(most.segment.parameter_bytes)}. "
                f"Give {as_text(math.ceil(need / share))} or more, or smaller batches."
            )
        read = sum(map(_parameter_bytes, self.parts))
        logger.warning(
            "calibrating in %d segments, each over all batches before the next: reads %s of "
            "weights once, and takes about %s of memory",
            *(len(self.parts), as_text(read), as_text(need)),
        )


def _parameter_bytes(part: Part) -> int:
    return part.segment.parameter_bytes


def _needed(model: Model, parts: Sequence[Part], feed: Feed) -> int:
    """Return about how much memory the process takes at most, without the boundaries."""
    arrays = [array for array in feed.values() if array.ndim]
    samples = max((len(array) for array in arrays), default=1)
    length = max((size for array in arrays for size in array.shape[1:]), default=1)
    segments = [part.segment for part in parts]
    weights = max(
        segment.parameter_bytes + _TIMES_LARGEST * segment.largest[1] for segment in segments
    )
    activations = _TIMES_ACTIVATIONS * activation_bytes(model, segments, samples, length)
    statistics = sum(len(part.names) for part in parts) * _PER_ACTIVATION
    return resident_bytes() + int(weights + activations) + statistics
