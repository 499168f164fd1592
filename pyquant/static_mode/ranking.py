"""Ranks ops by what their own integers do to the outputs of the model, and by what they save."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from ..calibration.data import Feed
from ..calibration.output_error import Reader, mean_share, mean_square
from ..comparison.paired import ObservedModel
from ..comparison.quantization import Written
from ..program.folding.linear import channel_axes
from ..program.model import Model
from ..program.parameters import Array
from ..program.predictor import all_cores
from ..program.quantizable import WeightedOp
from ..program.ranges import Grid
from ..verification.effects import Rounding, effects_of_rounding
from .decisions import Decisions
from .plan import OpEffect, Plan
from .work import sizes_of, time_saved


class _Observed(NamedTuple):
    """What a run of the float model shows.

    Attributes:
        squares: the mean squares of each activation's rounding errors and of its values,
            float64[channels]. If it is to be divided by factors, those of the divided values.
        sizes: how many elements each op's activation and output have.
    """

    squares: dict[str, tuple[Array, Array]]
    sizes: dict[str, int]


def ranked_ops(plan: Plan, decisions: Decisions, feed: Feed) -> list[OpEffect]:
    """Return the int8 ops, with what their own integers do to the model's outputs.

    First come those that do most for the time that they save. The effect of each activation is
    measured, by runs of the float model in which it alone is rounded; ops that read the same one
    share it. Errors of the weights have the effect that errors of the activation have, if they are
    as large in the output of the op.
    """
    model, axes = plan.int8.model, channel_axes(plan.int8.model, plan.ops)
    grids, inserted = _grids(plan, decisions), decisions.equalization.inserted
    effects = effects_of_rounding(model, _rounding(grids, inserted, axes), feed)
    squares, sizes = _observed(plan, grids, inserted, axes, feed)
    readers = Counter(op.activation for op in plan.ops)
    gains, errors = dict[WeightedOp, float](), dict[WeightedOp, float]()
    for op in plan.ops:
        if op.activation in squares:  # not if its branch did not run, or its channels are unknown
            of_activation, errors[op] = _output_errors(model, op, decisions, squares[op.activation])
            if of_activation > 0:
                gains[op] = effects[op.activation] / readers[op.activation] / of_activation
    usual = median(gains.values()) if gains else 1.0
    powers = {op: gains.get(op, usual) * error for op, error in errors.items()}
    saved = time_saved(plan, sizes)
    return _ranked(OpEffect(op, math.sqrt(powers.get(op, 0.0)), saved[op]) for op in plan.ops)


def measured_ops(
    plan: Plan, feed: Feed, powers_of: Callable[[WeightedOp], Sequence[float]], predicted: Predict
) -> list[list[OpEffect]]:
    """Return the int8 ops, with what each does to the model's outputs if it is int8 alone.

    ``powers_of`` runs the model with one op in int8, and returns powers of the outputs' error: for
    each kind of them the ops are ranked. Those with which the model does not run, whose powers are
    NaN, have the error that ``predicted`` gives them.
    """
    saved = time_saved(plan, sizes_of(plan, feed))
    powers = {op: list(powers_of(op)) for op in plan.ops}
    unknown = [op for op in plan.ops if any(map(math.isnan, powers[op]))]
    for one in predicted(plan.of(unknown)) if unknown else ():
        powers[one.op] = [one.error**2] * len(powers[one.op])
    kinds = zip(*(powers[op] for op in plan.ops))
    return [
        _ranked(OpEffect(op, math.sqrt(power), saved[op]) for op, power in zip(plan.ops, kind))
        for kind in kinds
    ]


Predict = Callable[[Plan], Sequence[OpEffect]]


def _ranked(effects: Iterable[OpEffect]) -> list[OpEffect]:
    return sorted(effects, key=lambda one: -(one.error**2) / one.saved)


def _grids(plan: Plan, decisions: Decisions) -> dict[str, Grid]:
    ranges = decisions.ranges.find(plan.int8)
    return {op.activation: plan.int8.grid(op.activation, ranges[op.activation]) for op in plan.ops}


def _rounding(
    grids: Mapping[str, Grid], inserted: Mapping[str, Array], axes: Mapping[str, int]
) -> dict[str, Rounding]:
    """Return what the integers of each activation make of its values."""

    def rounding(name: str, grid: Grid) -> Rounding:
        if name not in inserted:
            return Rounding(grid.rounded, by_channel=False)

        def divided(values: Array) -> Array:
            shape = [1] * values.ndim
            shape[axes[name]] = -1
            factors = inserted[name].reshape(shape)
            rounded: Array = grid.rounded(values / factors) * factors
            return rounded

        return Rounding(divided, by_channel=True)

    return {name: rounding(name, grid) for name, grid in grids.items()}


def _observed(
    plan: Plan,
    grids: Mapping[str, Grid],
    inserted: Mapping[str, Array],
    axes: Mapping[str, int],
    feed: Feed,
) -> _Observed:
    outputs, found = {op.output for op in plan.ops}, _Observed({}, {})

    def see(value: Written, array: Array) -> None:
        name = value.name
        found.sizes[name] = array.size
        if name not in axes:
            return
        moved = np.moveaxis(array, axes[name], -1)
        rows = moved.reshape(-1, moved.shape[-1]) / inserted.get(name, np.float32(1))
        errors = grids[name].rounded(rows) - rows
        found.squares[name] = mean_square(errors), mean_square(rows)

    ObservedModel(plan.int8.model, axes.keys() | outputs, all_cores()).run(feed, 0, see)
    return found


def _output_errors(
    model: Model, op: WeightedOp, decisions: Decisions, squares: tuple[Array, Array]
) -> tuple[float, float]:
    """Return the errors of an op's output by its activation, and by its weight as well.

    They are shares of the output's power, averaged over its channels.
    """
    weight, desc = decisions.weights[op.weight].made(), op.desc(model)
    rounded = np.concatenate(list(weight.dequantized.chunks()))
    reader, lost = Reader(desc, weight.stored), Reader(desc, weight.stored - rounded)
    errors, values = squares
    power, by_activation = reader.gathered(values), reader.gathered(errors)
    by_weight = lost.gathered(values)
    return mean_share(by_activation, power), mean_share(by_activation + by_weight, power)
