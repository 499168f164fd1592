"""Calibration on the workers of a Ray cluster.

Each batch is a task that returns a statistic of each activation, which the driver merges. A task
whose worker died is simply run again, so nothing is lost or counted twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import ClusterError
from ..program.folding.fold import fold
from ..program.half_precision import compute_in_float32
from ..program.model import Model, load_model
from .data import Feed
from .run import NumberedFeed
from .segmented import Runner, make_runner
from .statistic import ActivationMaxima, Statistics, empty_statistic

_THREADS = 1  # per task: a Ray worker has one core unless told otherwise
_TASKS_PER_CORE = 2  # one that runs, and one whose batch is already there
_RETRIES = 5


class _Task(NamedTuple):
    """What a worker needs besides the batch; hashable, so that the worker can cache the model."""

    model_path: str  # the same on every machine
    params_path: str | None  # None if each parameter has a file of its own
    folded: tuple[tuple[str, ...], bool] | None  # the arguments of `fold`, if the model is folded
    # For each activation: its name, the kind of its statistic, and the channels' axis if asked for.
    kinds: tuple[tuple[str, type[ActivationMaxima], int | None], ...]


class RayEngine:
    """An `Engine` that runs batches on every core of a Ray cluster.

    It initializes Ray if needed, with a cluster on this machine.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def __call__(
        self, model: Model, statistics: Statistics, feeds: Iterator[NumberedFeed]
    ) -> Iterator[NumberedFeed]:
        """Run the feeds, and merge their statistics in the order of the batches.

        Raises ClusterError if Ray cannot be initialized or fails to run a feed. A feed's own error
        is raised as without Ray.
        """
        if not statistics:
            yield from feeds
            return
        ray = self._ray
        self._initialize()
        observe = ray.remote(num_cpus=_THREADS, max_retries=_RETRIES)(_observe)
        task = ray.put(_task(model, statistics))
        most = _TASKS_PER_CORE * max(1, int(ray.cluster_resources().get("CPU", 1)))
        under_way: deque[tuple[NumberedFeed, Any]] = deque()
        try:
            for number, feed in feeds:
                with self._errors_of(number):
                    under_way.append(((number, feed), observe.remote(task, number, feed)))
                if len(under_way) == most:
                    yield self._finish(under_way, statistics)
            while under_way:
                yield self._finish(under_way, statistics)
        finally:
            for _, result in under_way:
                ray.cancel(result)

    def _initialize(self) -> None:
        if self._ray.is_initialized():
            return
        try:
            self._ray.init()
        except Exception as error:  # of many types
            raise ClusterError(
                f"Ray cannot be initialized ({_summary(error)}). Start it as RAY_ADDRESS says, or "
                "unset that for a cluster on this machine, or call ray.init yourself."
            ) from error

    def _finish(
        self, under_way: deque[tuple[NumberedFeed, Any]], statistics: Statistics
    ) -> NumberedFeed:
        numbered, result = under_way.popleft()
        with self._errors_of(numbered[0]):
            seen: Statistics = self._ray.get(result)
        for name, statistic in seen.items():
            statistics[name].merge(statistic)
        return numbered

    @contextmanager
    def _errors_of(self, batch: int) -> Iterator[None]:
        """Re-raise a task's own error; raise `ClusterError` for an error of Ray."""
        exceptions = self._ray.exceptions
        try:
            yield
        except exceptions.RayError as error:
            cause = error.cause if isinstance(error, exceptions.RayTaskError) else None
            if cause is not None and not isinstance(cause, exceptions.RayError):
                raise cause from error  # the same type as without Ray
            raise self._failure(batch, cause or error) from error

    def _failure(self, batch: int, error: Exception) -> ClusterError:
        # A task's error is a traceback, and its last line is the message.
        is_of_task = isinstance(error, self._ray.exceptions.RayTaskError)
        return ClusterError(
            f"batch {batch}: Ray failed to run it ({_summary(error, -1 if is_of_task else 0)}). "
            "Ray's logs tell more; if memory ran out, give its workers more, or the batches fewer "
            "samples. With checkpoint=, the same call resumes from the last save."
        )


def _summary(error: Exception, line: int = 0) -> str:
    """Return an error's type and one line of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[line].rstrip('.')}"


def _task(model: Model, statistics: Statistics) -> _Task:
    return _Task(
        # Links are not resolved: their target may have a name without a suffix.
        str(model.model_path.absolute()),
        None if model.params_path is None else str(model.params_path.absolute()),
        None if model.folded is None else (model.folded.keep, model.folded.shifts),
        tuple(
            (name, type(statistic), None if statistic.channels is None else statistic.channels.axis)
            for name, statistic in statistics.items()
        ),
    )


def _observe(task: _Task, number: int, feed: Feed) -> Statistics:
    statistics = {name: empty_statistic(kind, axis) for name, kind, axis in task.kinds}
    _runner(task).run(feed, number, statistics)
    return statistics


@lru_cache(maxsize=1)
def _runner(task: _Task) -> Runner:
    """Return the task's model, cached because the next task nearly always has the same one."""
    model_path, params_path, folded, kinds = task
    directory, _, filename = model_path.rpartition("/")
    model = load_model(directory, filename, params_path)
    compute_in_float32(model)
    if folded is not None:
        fold(model, *folded, settle=False)
    return make_runner(model, [name for name, *_ in kinds], _THREADS)
