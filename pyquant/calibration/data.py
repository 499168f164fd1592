"""Turns calibration data in any of the usual forms into checked feeds for the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..errors import CalibrationDataError
from ..program import proto
from ..program.parameters import Array
from .iteration import Source, iterate_source

Feed = dict[str, Array]
Feeds = Iterator[Feed]


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
