"""Iterates whatever data may be given as, without Paddle."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Union

from ..errors import CalibrationDataError

Source = Union[Iterable[Any], Callable[[], Iterable[Any]]]


def source_length(source: Source) -> int | None:
    """Return how many batches or samples ``source`` reports to hold, or None."""
    try:
        return len(source)  # type: ignore[arg-type]
    except TypeError:  # also from a DataLoader of an iterable dataset
        return None


def iterate_source(source: Source) -> Iterator[Any]:
    """Return an iterator of a source; raise CalibrationDataError if it cannot be iterated."""
    if _is_loader_without_workers(source):
        return _read_here(source)
    made = source() if callable(source) else source
    try:
        return _with_reasons(iter(made))
    except TypeError as error:
        raise CalibrationDataError(
            f"calibration data: {type(made).__name__} cannot be iterated. "
            "Give an iterable of batches, or a function that returns one."
        ) from error


def _is_loader_without_workers(source: Any) -> bool:
    """Return whether it is Paddle's DataLoader, of a dataset with indices, in this process."""
    is_loader = type(source).__module__.startswith("paddle.")
    kind, workers = getattr(source, "dataset_kind", None), getattr(source, "num_workers", None)
    return is_loader and kind == 0 and workers == 0 and source.batch_sampler is not None


def _read_here(loader: Any) -> Iterator[Any]:
    """Yield batches without the thread in which Paddle reads them, whose errors may hang the call.

    An error of the dataset is raised as it is.
    """
    from paddle.io.dataloader.collate import default_collate_fn

    collate = loader.collate_fn or default_collate_fn
    for indices in loader.batch_sampler:
        yield collate([loader.dataset[index] for index in indices])


def _with_reasons(items: Iterator[Any]) -> Iterator[Any]:
    """Yield items; raise CalibrationDataError if the thread fails that takes them from workers.

    A DataLoader itself tells only that its queue was killed.
    """
    failed: list[threading.ExceptHookArgs] = []
    before, threading.excepthook = threading.excepthook, failed.append
    try:
        yield from items
    except SystemError as error:
        if not failed:
            raise
        (kind, value), failed = failed[-1][:2], []
        lines = str(value.args[0] if value is not None and value.args else "").splitlines()
        said = (lines or [""])[-1]  # a worker's own traceback ends with the error
        raise CalibrationDataError(
            f"calibration data: the DataLoader fails: {said.removeprefix(f'{kind.__name__}: ')} "
            f"({kind.__name__})."
        ) from error
    finally:
        threading.excepthook = before
        for one in failed:
            before(one)
