"""Measures what rounding one tensor of a float model does to the model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from ..arrays import overwrite, view_values
from ..calibration.data import Feed
from ..calibration.layouts import is_dense
from ..comparison.compared import before_softmax, compared_parts, showing
from ..errors import PyquantError
from ..program.model import Model, copy_model
from ..program.parameters import Array
from ..program.predictor import Hook, Optimization, See, all_cores, make_predictor, run_outputs
from .outcome import differences, worst


class Rounding(NamedTuple):
    """What values of a tensor are rounded to.

    Attributes:
        of: takes the values, float32, and returns as many.
        by_channel: whether channels are rounded differently, so that the order in memory counts.
    """

    of: Callable[[Array], Array]
    by_channel: bool


def effects_of_rounding(
    model: Model, tensors: Mapping[str, Rounding], feed: Feed
) -> dict[str, float]:
    """Return the power of the outputs' error if one of the tensors alone is rounded.

    It is that of `OutputSums`, of the output that errs most. Errors of what softmax reads are taken
    in place of its own: probabilities near 0 and 1 hide them, until a few of them together change
    what is decided. The model runs once for each tensor, op by op; a tensor is overwritten as soon
    as it is computed. It is 0 for one that is not.
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
    parts = before_softmax(model, compared_parts(model))
    shown = showing(copy_model(model), [part.name for part in parts])
    predictor = make_predictor(shown, optimization, all_cores())
    hook = Hook(predictor, tensors.keys())

    def outputs(name: str, see: See) -> list[Array]:
        fed = {name: tensors[name].of(feed[name])} if name in feed else {}
        with hook.running(see, feed, 0):
            found = run_outputs(predictor, {**feed, **fed})
        by_name = dict(zip(predictor.get_output_names(), found))
        return [part.of(by_name[part.name]) for part in parts]

    known = set(feed)

    def look(op_type: str, name: str, tensor: Any) -> None:
        if _in_order(tensor, tensors[name]):
            known.add(name)

    def round_one(chosen: str, op_type: str, name: str, tensor: Any) -> None:
        if name == chosen and op_type != "feed":
            values = view_values(tensor)
            overwrite(values, tensors[name].of(values))

    expected, effects = outputs("", look), dict[str, float]()
    for name in tensors:
        if name in known:
            found = outputs(name, partial(round_one, name))
            effects[name] = worst(differences(parts, [expected], [found])).power
    return effects


def _in_order(tensor: Any, rounding: Rounding) -> bool:
    """Return whether values lie in memory in the order that rounding needs."""
    return tensor.layout != "ONEDNN" or (not rounding.by_channel and is_dense(tensor.shape))
