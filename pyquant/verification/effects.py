"""Measures what rounding one tensor of a float model does to the model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..arrays import overwrite, view_values
from ..calibration.data import Feed
from ..comparison.similarity import as_float
from ..errors import PyquantError
from ..program.model import Model, copy_model
from ..program.parameters import Array
from ..program.predictor import Hook, Optimization, all_cores, make_predictor, run_outputs
from .compared import Compared, compared_parts, showing
from .output_sums import OutputSums

Round = Callable[[Array], Array]
"""Returns what values of a tensor are rounded to."""


class _UnknownOrderError(Exception):
    """oneDNN keeps a tensor in an order of its own, perhaps with padding."""


def effects_of_rounding(model: Model, tensors: Mapping[str, Round], feed: Feed) -> dict[str, float]:
    """Return the power of the outputs' error if one of the tensors alone is rounded.

    It is that of `OutputSums`, of the output that errs most. The model runs once for each tensor,
    op by op; a tensor is overwritten as soon as it is computed. It is 0 for one that is not.
    """
    run = partial(_effects, model, tensors, feed)
    try:
        return run(Optimization.UNFUSED)
    except (PyquantError, _UnknownOrderError):
        return run(Optimization.NONE)


def _effects(
    model: Model, tensors: Mapping[str, Round], feed: Feed, optimization: Optimization
) -> dict[str, float]:
    parts = compared_parts(model)
    shown = showing(copy_model(model), [part.name for part in parts])
    predictor = make_predictor(shown, optimization, all_cores())
    hook = Hook(predictor, tensors.keys())

    def outputs(name: str) -> list[Array]:
        fed = {name: tensors[name](feed[name])} if name in feed else {}
        with hook.running(partial(_overwrite, tensors, name), feed, 0):
            found = run_outputs(predictor, {**feed, **fed})
        by_name = dict(zip(predictor.get_output_names(), found))
        return [as_float(part.of(by_name[part.name])) for part in parts]

    expected = outputs("")
    return {name: _worst(parts, expected, outputs(name)) for name in tensors}


def _overwrite(
    tensors: Mapping[str, Round], chosen: str, op_type: str, name: str, tensor: Any
) -> None:
    if tensor.layout == "ONEDNN" and len(tensor.shape) > 2:
        raise _UnknownOrderError
    if name == chosen and op_type != "feed":
        values = view_values(tensor)
        overwrite(values, tensors[name](values))


def _worst(parts: list[Compared], expected: list[Array], found: list[Array]) -> float:
    powers = []
    for part, reference, output in zip(parts, expected, found):
        sums = OutputSums(part.least)
        sums.add(reference, output)
        powers.append(sums.power)
    return max(powers)
