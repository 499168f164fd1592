"""Turns calibration data in any of the usual forms into checked feeds for the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Union

import numpy as np

from ..errors import CalibrationDataError
from ..program import proto
from ..program.parameters import Array

Feed = dict[str, Array]
Feeds = Iterator[Feed]
Source = Union[Iterable[Any], Callable[[], Iterable[Any]]]


def source_length(source: Source) -> int | None:
    """Return how many batches or samples ``source`` reports to hold, or None."""
    try:
        return len(source)  # type: ignore[arg-type]
    except TypeError:  # also from a DataLoader of an iterable dataset
        return None


def feeds_of_batches(inputs: Sequence[Any], source: Source, batch_nums: int | None) -> Feeds:
    """Turn batches into feeds for inputs, which are given as ``VarDesc``s.

    The source is an iterable, a generator, a DataLoader, or a function that returns one of them (a
    reader). Each batch is an array (for one input), a tuple or list of arrays in the order of the
    inputs, or a dict by input name; numpy or Paddle, batch axis included. ``batch_nums`` limits
    their number; None takes all. Raises CalibrationDataError if a batch does not fit the inputs.
    """
    for number, batch in enumerate(islice(iterate_source(source), batch_nums)):
        yield _checked(inputs, _by_name(inputs, batch, f"batch {number}"), f"batch {number}")


def feeds_of_samples(
    inputs: Sequence[Any], source: Source, batch_size: int, batch_nums: int | None
) -> Feeds:
    """Turn single samples, without a batch axis, into feeds of up to ``batch_size`` samples.

    A batch ends early where the shape of the samples changes. If the model fixes its batch size,
    that size is used instead, and samples that do not fill a batch are dropped. Otherwise like
    `feeds_of_batches`.
    """
    fixed = _fixed_batch_size(inputs)
    size = fixed or batch_size
    batches = _group(inputs, iterate_source(source), size)
    whole = (batch for batch in batches if not fixed or _length(batch) == fixed)
    for number, batch in enumerate(islice(whole, batch_nums)):
        yield _checked(inputs, batch, f"batch {number}")


def check_feed(inputs: Sequence[Any], feed: Feed, where: str) -> None:
    """Raise CalibrationDataError if a batch, by input name, does not fit the inputs."""
    _checked(inputs, _known(feed, [var.name for var in inputs], where), where)


def _group(inputs: Sequence[Any], samples: Iterable[Any], size: int) -> Feeds:
    pending: list[Feed] = []
    for number, sample in enumerate(samples):
        arrays = _by_name(inputs, sample, f"sample {number}")
        if pending and (len(pending) == size or not _stackable(pending[0], arrays)):
            yield _stack(pending)
            pending = []
        pending.append(arrays)
    if pending:
        yield _stack(pending)


def _stackable(first: Feed, second: Feed) -> bool:
    return first.keys() == second.keys() and all(
        first[name].shape == second[name].shape and first[name].dtype == second[name].dtype
        for name in first
    )


def _stack(samples: list[Feed]) -> Feed:
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def _length(batch: Feed) -> int:
    return len(next(iter(batch.values())))


def _fixed_batch_size(inputs: Sequence[Any]) -> int | None:
    sizes = {proto.tensor_desc(var).dims[0] for var in inputs if proto.tensor_desc(var).dims}
    return sizes.pop() if len(sizes) == 1 and min(sizes) > 0 else None


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


def _by_name(inputs: Sequence[Any], item: Any, where: str) -> Feed:
    names = [var.name for var in inputs]
    if isinstance(item, (list, tuple)) and len(item) == 1 and isinstance(item[0], Mapping):
        item = item[0]  # as paddle.io.DataLoader(feed_list=..., return_list=False) yields it
    if isinstance(item, Mapping):
        given = {str(name): _array(value) for name, value in item.items()}
    elif isinstance(item, (list, tuple)):
        if len(item) != len(names):
            raise CalibrationDataError(
                f"{where}: {len(item)} arrays for {len(names)} input(s) {names}. "
                "Yield the inputs alone, in this order, without labels."
            )
        given = {name: _array(value) for name, value in zip(names, item)}
    elif len(names) == 1:
        given = {names[0]: _array(item)}
    else:
        raise CalibrationDataError(
            f"{where}: one {type(item).__name__} for {len(names)} inputs {names}. "
            "Yield a tuple in this order, or a dict by name."
        )
    return _known(given, names, where)


def _known(given: Feed, names: list[str], where: str) -> Feed:
    for name in given:
        if name not in names:
            raise CalibrationDataError(
                f"{where}: '{name}' is not an input of the model, which has {names}. Rename it."
            )
    for name in names:
        if name not in given:
            raise CalibrationDataError(f"{where}: input '{name}' is missing. Add it to the batch.")
    return given


def _array(value: Any) -> Array:
    if hasattr(value, "numpy") and not isinstance(value, np.ndarray):
        value = value.numpy()
    return np.asarray(value)


def _checked(inputs: Sequence[Any], feed: Feed, where: str) -> Feed:
    return {var.name: _fitting(var, feed[var.name], where) for var in inputs}


def _fitting(var: Any, array: Array, where: str) -> Array:
    desc = proto.tensor_desc(var)
    expected = proto.numpy_dtype(desc.data_type)
    if array.dtype != expected:
        raise CalibrationDataError(
            f"{where}: input '{var.name}' is {array.dtype}, the model takes {expected}. "
            f"Convert it, for example with .astype('{expected}')."
        )
    dims = list(desc.dims)
    if len(dims) != array.ndim or any(
        want not in (-1, have) for want, have in zip(dims, array.shape)
    ):
        raise CalibrationDataError(
            f"{where}: input '{var.name}' has shape {list(array.shape)}, the model takes {dims} "
            "(-1 is any size). Reshape it; batches carry the batch axis, samples do not."
        )
    if array.size == 0:
        raise CalibrationDataError(
            f"{where}: input '{var.name}' has shape {list(array.shape)}: nothing to calibrate "
            "with. Leave empty batches out."
        )
    return np.ascontiguousarray(array)
