"""Runs a model in Paddle's Predictor and observes its activations.

The Predictor's hooks show each activation by pointer, and it is consumed at once. Nothing is
fetched, copied or kept, so peak memory is that of the forward pass alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..arrays import view_values
from ..errors import ActivationError, CalibrationDataError, ModelFileError
from ..program.model import Model
from ..program.op_facts import Fact, has
from ..program.parameters import Array
from ..program.predictor import (
    Hook,
    Optimization,
    all_cores,
    make_predictor,
    set_inputs,
    share_inputs,
)
from .channel_statistics import by_channel
from .data import Feed
from .layouts import Layout, first_plain_copy, found_layout, is_dense, plain_copy
from .statistic import Statistics


class Observer(Protocol):
    """Collects data about an activation."""

    def observe(self, array: Array) -> None:
        """Add one batch, float32[samples, ...], with its values in order."""


Observers = Mapping[str, Sequence[Observer]]
"""The observers of each activation, by its name."""


class _NonFiniteError(ActivationError):
    """A tensor holds NaN or infinity, which may come from Paddle's optimization."""


class _AllSeen(Exception):  # noqa: N818, it is no error
    """Raised in a hook to end the run: the remaining ops need not be computed."""


class Forward:
    """Runs batches through a model and adds its activations to statistics."""

    def __init__(
        self,
        model: Model,
        names: Collection[str],
        threads: int | None = None,
        observers: Observers | None = None,
        runs_to_end: bool = False,
        shared: Mapping[str, Array] | None = None,
    ) -> None:
        """Make the Predictor of a model, which reads the model's files again.

        ``threads`` is for the forward pass and the kernels; None uses every core of the process.
        With ``runs_to_end``, `outputs` are computed, too. ``shared`` are inputs that are the same
        in each run, and are read where they lie.
        """
        self._observers = observers or {}
        self._runs_to_end = runs_to_end
        self._shared = shared or {}
        self._model = model
        self._names = frozenset(names)
        self._threads = threads or all_cores()
        self._in_sample_order = _in_sample_order(model, names)
        self._written_again = _written_again(model, names)
        self._statistics: Statistics = {}
        self._batch = 0
        self._seen: set[str] = set()
        self._predictor: Any = None
        # oneDNN keeps feature maps channels-first, and hooks show them so even if the program is
        # channels-last. The shape does not tell which it is.
        self._rest = [Optimization.NONE] if _is_channels_last(model) else list(Optimization)
        if self._written_again:  # a fused op may hide one of several writes of a name
            self._rest = [one for one in self._rest if one is not Optimization.FUSED]
        self.weaken()

    def run(self, feed: Feed, batch: int, statistics: Statistics) -> None:
        """Run one batch and add its activations to ``statistics``, one for each observed name.

        If Paddle fails, hides an activation or produces NaN with one kind of optimization, this
        batch and all later ones run with the next kind. Raises CalibrationDataError if the model
        cannot run the batch, and ActivationError if a tensor is empty, or holds NaN or infinity
        without optimization.
        """
        self._batch, self._statistics = batch, statistics
        self._seen.clear()
        for name, array in feed.items():
            if name in self._names:
                self._observe(name, array)
        while not self._is_done() and not self._ran(feed):
            self.weaken()
        unseen = self._names - self._seen
        if unseen and len(self._model.program.blocks) == 1:  # it cannot be in a branch
            raise _empty(min(unseen), self._batch)

    def outputs(self) -> list[Array]:
        """Return copies of the model's outputs for the batch that ran last."""
        names = self._predictor.get_output_names()
        handles = map(self._predictor.get_output_handle, names)
        return [np.asarray(handle.copy_to_cpu()) for handle in handles]

    def weaken(self) -> None:
        """Replace the Predictor by one with the next kind of optimization that works."""
        self._predictor = None  # frees its memory first
        self._layouts: dict[tuple[str, tuple[int, ...]], Layout] = {}
        while self._predictor is None:
            self.optimization = self._rest.pop(0)
            try:
                self._predictor = make_predictor(self._model, self.optimization, self._threads)
            except ModelFileError:
                if not self._rest:
                    raise
        share_inputs(self._predictor, self._shared)
        self._hook = Hook(self._predictor, self._names)

    def _ran(self, feed: Feed) -> bool:
        """Run the batch; return whether everything was seen that can be."""
        from paddle import CPUPlace
        from paddle.base.dygraph import guard

        self._skipped = frozenset(self._seen)
        set_inputs(self._predictor, feed)
        try:
            # `plain_copy` needs dygraph mode, whatever mode the caller is in.
            with guard(CPUPlace()), self._hook.running(self._see, feed, self._batch):
                self._predictor.run()
        except _AllSeen:
            return True
        except (_NonFiniteError, CalibrationDataError):
            if not self._rest or self._written_again:
                raise
            return False
        if self._rest and self._runs_to_end and any(map(_has_nan, self.outputs())):
            return False
        return self._names <= self._seen or not self._rest

    def _is_done(self) -> bool:
        """Whether the run may end, as all was seen."""
        is_seen = not self._written_again and len(self._seen) == len(self._names)
        return is_seen and not self._runs_to_end

    def _see(self, op_type: str, name: str, tensor: Any) -> None:
        if name not in self._skipped:
            self._observe(name, *self._viewed(name, tensor))
        if self._is_done():
            raise _AllSeen

    def _viewed(self, name: str, tensor: Any) -> tuple[Array, Layout | None]:
        """Return values that lie sample by sample, and their layout if they are not in order."""
        if tensor.layout != "ONEDNN":
            return view_values(tensor), None
        is_dense_map = len(tensor.shape) == 4 and is_dense(tensor.shape)
        if not is_dense_map or name not in self._in_sample_order or name in self._observers:
            return plain_copy(tensor), None
        channels = self._statistics[name].channels
        if channels is not None and channels.axis not in (1, -3):
            return plain_copy(tensor), None
        array = view_values(tensor)
        if channels is None:
            return array, None
        key = name, array.shape
        if key not in self._layouts:
            layout = found_layout(array[:1], first_plain_copy(tensor))
            if layout is None:
                return plain_copy(tensor), None
            self._layouts[key] = layout
        return array, self._layouts[key]

    def _observe(self, name: str, array: Array, layout: Layout | None = None) -> None:
        if array.size == 0:
            raise _empty(name, self._batch)
        statistic = self._statistics[name]
        dtype = "bfloat16" if array.dtype == "uint16" else None
        if statistic.channels is not None:
            samples = by_channel(array, statistic.channels.axis, layout)
        else:
            samples = array.reshape(array.shape[0] if array.ndim else 1, -1)
        non_finite = statistic.observe(samples, dtype)
        if non_finite:
            raise _NonFiniteError(
                f"activation '{name}' holds {non_finite} NaN or infinite value(s) of {array.size} "
                f"in batch {self._batch}. Repair that input or the model, or name the activation "
                "in skip_tensor_list."
            )
        self._seen.add(name)
        for observer in self._observers.get(name, ()):
            observer.observe(array)


def _has_nan(array: Array) -> bool:
    return array.dtype.kind == "f" and bool(np.isnan(array).any())


def _empty(name: str, batch: int) -> ActivationError:
    return ActivationError(
        f"activation '{name}' is empty in batch {batch}: one of its dimensions is 0. "
        "Leave such inputs out, or name it in skip_tensor_list."
    )


def _is_channels_last(model: Model) -> bool:
    return any(op.is_channels_last for op in model.ops())


def _written_again(model: Model, names: Collection[str]) -> bool:
    writes = model.writes()
    return any(writes[name] > 1 for name in names)


def _in_sample_order(model: Model, names: Collection[str]) -> set[str]:
    """Return which of ``names`` lie in memory sample by sample even in oneDNN's layout."""
    in_order = set(model.parameters)
    others: set[str] = set()
    for op in model.ops():
        keeps_order = has(op.type, Fact.KEEPS_ORDER)
        is_feature_map = has(op.type, Fact.WRITES_BLOCKS) and not keeps_order
        keeps = (
            is_feature_map or op.type == "feed" or (keeps_order and in_order.issuperset(op.reads()))
        )
        (in_order if keeps else others).update(op.writes())
    return in_order.difference(others).intersection(names)
