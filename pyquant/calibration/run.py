"""Runs calibration data: from the feeds to a statistic of every activation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import (
    CalibrationDataError,
    CalibrationFileError,
    CalibrationInterrupted,
    SettingError,
)
from ..program.model import Model
from ..progress import progress_bar
from ..signals import interrupts_handled, restore
from .data import Feed, Feeds
from .forward import Observers
from .kept import KeptBatches
from .moments import Moments
from .moments_files import MomentsFiles
from .segmented import Runner, make_runner
from .state import Calibration, Progress
from .statistic import Statistics

NumberedFeed = tuple[int, Feed]
Engine = Callable[[Model, Statistics, Iterator[NumberedFeed]], Iterator[NumberedFeed]]
"""Runs feeds through the model; yields each once the statistics include it and all before it."""

_CALIBRATING = "calibrating"

CHECKPOINT_EVERY = 50
"""Default number of batches between two saves."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a calibration is saved while it runs."""

    path: Path  # if the file exists, the calibration resumes from it
    every: int  # how many batches lie between two saves
    moments: Moments = field(default_factory=dict)  # are kept beside it

    @property
    def moments_files(self) -> MomentsFiles:
        return MomentsFiles(self.path.with_name(f"{self.path.name}.moments"), self.moments)

    def save(self, calibration: Calibration) -> None:
        """Write what a calibration of the whole model holds.

        Raises OutputError if that cannot be done.
        """
        self.moments_files.write(calibration.batches)
        calibration.save(self.path)
        self.moments_files.drop_others(calibration.batches)


def checkpoint_at(path: str | Path | None, every: int) -> Checkpoint | None:
    """Return the checkpoint for a call's arguments; raise SettingError if ``every`` < 1."""
    if every < 1:
        raise SettingError(f"checkpoint_every: {every} is less than 1.")
    return None if path is None else Checkpoint(Path(path), every)


def run_here(
    model: Model,
    statistics: Statistics,
    feeds: Iterator[NumberedFeed],
    observers: Observers | None = None,
) -> Iterator[NumberedFeed]:
    """Run the feeds in this process, on all of its cores: an `Engine` that also takes observers.

    Every observed activation needs a statistic.
    """
    if not statistics:
        yield from feeds
        return
    runner: Runner | None = None
    for number, feed in feeds:
        runner = runner or make_runner(model, statistics, observers=observers)
        runner.run(feed, number, statistics)
        yield number, feed


def collect_statistics(
    model: Model, statistics: Statistics, feeds: Feeds, engine: Engine, total: int | None = None
) -> tuple[int, KeptBatches]:
    """Run every feed once, and add its activations to ``statistics``.

    Returns the number of feeds, and a few of them.

    The Predictor reads the model's files again. ``statistics`` has the names of the activations to
    observe. ``total`` is the number of feeds for the progress bar, if it is known.

    Raises:
        CalibrationDataError: there is no data, or the model cannot run it.
        ActivationError: a tensor holds NaN or infinity, or is empty.
        ClusterError: the engine is Ray's, and Ray failed to run a feed.
    """
    done, kept = 0, KeptBatches()
    numbered = engine(model, statistics, enumerate(feeds))
    for _, feed in progress_bar(numbered, _CALIBRATING, total):
        done += 1
        kept.add(feed)
    refuse_nothing(done)
    return done, kept


def resume(
    model: Model,
    calibration: Calibration,
    feeds: Feeds,
    engine: Engine,
    checkpoint: Checkpoint | None = None,
    total: int | None = None,
) -> None:
    """Run the feeds that ``calibration`` has not seen, and add the activations to it.

    ``feeds`` are all feeds, from the first one on. The calibration is new, or loaded from a
    checkpoint. Raises as `collect_statistics`. Also raises CalibrationFileError if the calibration
    was merged or is of other data, and CalibrationInterrupted after Ctrl-C or SIGTERM, once the
    checkpoint holds what was seen.
    """
    seen = skip(feeds, calibration.progress, checkpoint)
    if checkpoint is not None and seen.batches:
        checkpoint.moments_files.load(seen.batches)
    numbered = enumerate(feeds, seen.batches)
    running = engine(model, calibration.statistics, numbered)
    done = progress_bar(running, _CALIBRATING, total, seen.batches)
    with _interrupt_deferred(checkpoint is not None) as interrupt:
        for _, feed in done:
            seen = seen.after(feed)
            calibration.batches, calibration.progress = seen.batches, seen
            calibration.kept.add(feed)
            if checkpoint is None:
                continue
            if interrupt.is_set() or seen.batches % checkpoint.every == 0:
                checkpoint.save(calibration)
            if interrupt.is_set():
                raise CalibrationInterrupted(
                    f"calibration stopped after {seen.batches} batch(es), which are kept in "
                    f"{checkpoint.path}. The same call resumes from there."
                )
    refuse_nothing(calibration.batches)
    if checkpoint is not None:
        checkpoint.save(calibration)


def refuse_nothing(batches: int) -> None:
    """Raise CalibrationDataError if there was no batch."""
    if not batches:
        raise CalibrationDataError("calibration data: it yields nothing. Give at least one batch.")


def skip(feeds: Feeds, progress: Progress | None, checkpoint: Checkpoint | None) -> Progress:
    """Skip the feeds that were seen, and check that they are those of the calibration."""
    where = checkpoint.path if checkpoint is not None else "calibration"
    if progress is None:
        raise CalibrationFileError(f"{where}: once merged, it cannot be resumed. Use another file.")
    drawn = Progress()
    while drawn.batches < progress.batches:
        feed = next(feeds, None)
        if feed is None:
            break
        drawn = drawn.after(feed)
    if drawn != progress:
        raise CalibrationFileError(
            f"{where}: its {progress.batches} batch(es) are not those of this data. Give the same "
            "data in the same order and batch size, or another file to start over."
        )
    return drawn


@contextmanager
def _interrupt_deferred(wanted: bool) -> Iterator[threading.Event]:
    """Let Ctrl-C and SIGTERM set an event, as half a batch cannot be saved.

    A second one acts as usual.
    """
    asked = threading.Event()
    if not wanted:
        yield asked
        return

    def ask(*_: Any) -> None:
        asked.set()
        restore(before)

    with interrupts_handled(ask) as before:
        yield asked
