"""Measures what rounding one tensor of a float model does to the model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..arrays import overwrite, view_values
from ..calibration.data import Feed
from ..calibration.layouts import is_dense, plain_copy
from ..comparison.compared import before_softmax, compared_parts, showing
from ..errors import PyquantError
from ..program.model import Model, copy_model
from ..program.parameters import Array
from ..program.predictor import (
    Hook,
    Optimization,
    See,
    all_cores,
    make_predictor,
    run_outputs,
    share_inputs,
)
from ..program.segments import cut, segment_model
from .outcome import differences, worst


class Rounding(NamedTuple):
    """What values of a tensor are rounded to.

    Attributes:
        of: takes the values, float32, and returns as many.
        by_channel: whether channels are rounded differently, so that the order in memory counts.
        outputs: what ops that read the tensor write if it is rounded, by the names of their
            outputs. Each takes the rounded values. If there are any, they change, and the tensor
            does not: so the ops may also round their weights.
    """

    of: Callable[[Array], Array]
    by_channel: bool
    outputs: Mapping[str, Callable[[Array], Array]] = {}


def effects_of_rounding(
    model: Model, tensors: Mapping[str, Rounding], feed: Feed
) -> dict[str, float]:
    """Return the power of the outputs' error if one of the tensors alone is rounded.

    It is that of `OutputSums`, of the output that errs most. Errors of what softmax reads are taken
    in place of its own: probabilities near 0 and 1 hide them, until a few of them together change
    what is decided. The model runs once for each tensor, op by op; a tensor is overwritten as soon
    as it is computed. A large model runs only from the segment on that computes it. The power is 0
    for a tensor that is not computed.
    """
    found, left = dict[str, float](), dict(tensors)
    for optimization in (Optimization.UNFUSED, Optimization.NONE):
        with suppress(PyquantError):
            found.update(_effects(model, left, feed, optimization))
        left = {name: one for name, one in left.items() if name not in found}
        if not left:
            break
    return {name: found.get(name, 0.0) for name in tensors}


def _effects(
    model: Model, tensors: Mapping[str, Rounding], feed: Feed, optimization: Optimization
) -> dict[str, float]:
    """Return the effects of the tensors that this kind of optimization shows as they are."""
    from paddle import CPUPlace
    from paddle.base.dygraph import guard

    parts = before_softmax(model, compared_parts(model))
    outputs = {name for one in tensors.values() for name in one.outputs}
    stages = _stages(model, [part.name for part in parts], {*tensors, *outputs}, optimization)
    computed_in = dict.fromkeys(feed, 0)  # the stage that computes each tensor that is in order
    start = [dict(feed)]  # what each stage can read

    def look(op_type: str, name: str, tensor: Any) -> None:
        if _in_order(tensor, name in outputs or tensors[name].by_channel):
            computed_in.setdefault(name, len(start) - 1)

    def compared(values: Mapping[str, Array]) -> list[Array]:
        return [part.of(values[part.name]) for part in parts]

    with guard(CPUPlace()):  # `plain_copy` needs dygraph mode
        for stage in stages:
            start.append({**start[-1], **stage.run(start[-1], look)})
    expected, effects = compared(start[-1]), dict[str, float]()
    for name, rounding in tensors.items():
        if not computed_in.keys() >= {name, *rounding.outputs}:
            continue
        first = computed_in[name]
        values, change = dict(start[first]), _Change(name, rounding)
        if name in feed:
            values[name] = change.of(feed[name])
        for stage in stages[first:]:
            values.update(stage.run(values, change.see))
        effects[name] = worst(differences(parts, [expected], [compared(values)])).power
    return effects


class _Change:
    """Rounds a tensor while a model runs, or lets its readers write what they then would."""

    def __init__(self, name: str, rounding: Rounding) -> None:
        self._name, self._rounding = name, rounding
        self._rounded: Array | None = None

    def of(self, values: Array) -> Array:
        """Return what the readers of the tensor are to be given in place of its values."""
        self._rounded = self._rounding.of(values)
        return values if self._rounding.outputs else self._rounded

    def see(self, op_type: str, name: str, tensor: Any) -> None:
        if op_type == "feed":
            return
        values = view_values(tensor)
        if name == self._name:
            overwrite(values, self.of(values))
        elif name in self._rounding.outputs and self._rounded is not None:
            overwrite(values, self._rounding.outputs[name](self._rounded))


class _Stage:
    """A part of the float model, whose tensors a function sees and may overwrite."""

    def __init__(
        self,
        model: Model,
        inputs: Sequence[str],
        weights: Mapping[str, Array],
        names: Collection[str],
        optimization: Optimization,
    ) -> None:
        self._inputs, self._weights = inputs, weights  # which the Predictor reads where they lie
        self._predictor = make_predictor(model, optimization, all_cores())
        share_inputs(self._predictor, weights)
        self._hook = Hook(self._predictor, names)

    def run(self, values: Mapping[str, Array], see: See) -> dict[str, Array]:
        """Run on some of ``values``; return what later stages read, and what is compared."""
        inputs = {name: values[name] for name in self._inputs}
        with self._hook.running(see, inputs, 0):
            found = run_outputs(self._predictor, inputs)
        return dict(zip(self._predictor.get_output_names(), found))


def _stages(
    model: Model, shown: Sequence[str], names: Collection[str], optimization: Optimization
) -> list[_Stage]:
    """Return the segments of a model as stages, whose outputs also have the tensors ``shown``."""
    segments, feeds = cut(model), [var.name for var in model.feeds]
    if len(segments) == 1:
        return [_Stage(showing(copy_model(model), shown), feeds, {}, names, optimization)]
    ops = [op for op in model.ops() if op.type not in ("feed", "fetch")]
    stages = list[_Stage]()
    for segment in segments:
        written = {name for op in ops[segment.first : segment.end] for name in op.writes()}
        outputs = dict.fromkeys([*segment.outputs, *(name for name in shown if name in written)])
        alone, weights = segment_model(model, replace(segment, outputs=tuple(outputs)))
        stages.append(_Stage(alone, segment.inputs, weights, names, optimization))
    return stages


def _in_order(tensor: Any, is_needed: bool) -> bool:
    """Return whether values lie in memory in the order of the tensor, if that is needed.

    Paddle must be in dygraph mode.
    """
    if tensor.layout != "ONEDNN" or (not is_needed and is_dense(tensor.shape)):
        return True
    plain = plain_copy(tensor)
    values = view_values(tensor)
    return values.shape == plain.shape and np.array_equal(values, plain)
