"""Ranks ops by what their own integers do to the outputs of the model, and by what they save."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

import numpy as np

from ..calibration.data import Feed
from ..calibration.output_error import Reader, mean_share, mean_square
from ..comparison.paired import ObservedModel
from ..comparison.quantization import Written
from ..program.folding.linear import channel_axes, weight_layout
from ..program.matrix_products import PRODUCTS
from ..program.model import Model
from ..program.parameters import Array
from ..program.per_token import rounded_per_token, token_maxima
from ..program.predictor import all_cores
from ..program.quantizable import WeightedOp, readers_by_activation
from ..program.weights import QuantizedWeight
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
    measured, by runs of the float model in which the products that read it compute what they do as
    int8. Where other ops read it, it alone is rounded, and errors of their weights are taken to
    have the effect of its errors, if they are as large in the output of the op. Ops that read the
    same activation share its effect.
    """
    model, axes = plan.int8.model, channel_axes(plan.int8.model, plan.ops)
    rounded, inserted = _rounded(plan, decisions), decisions.equalization.inserted
    products = _products(plan, decisions, axes)
    effects = effects_of_rounding(model, _roundings(rounded, inserted, axes, products), feed)
    squares, sizes = _observed(plan, rounded, inserted, axes, feed)
    gains, errors = dict[WeightedOp, float](), dict[WeightedOp, float]()
    for name, ops in readers_by_activation(plan.ops).items():
        if name not in squares:  # if its branch did not run, or its channels are unknown
            continue
        found = {op: _output_errors(model, op, decisions, squares[name]) for op in ops}
        together = sum(by_both for _, by_both in found.values())
        for op, (by_activation, errors[op]) in found.items():
            share = together if name in products else len(ops) * by_activation
            if share > 0:
                gains[op] = effects[name] / share
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


Round = Callable[[Array], Array]
"""Takes values, and returns what their integers stand for."""


def _rounded(plan: Plan, decisions: Decisions) -> dict[str, Round]:
    """Return what rounds each activation, once it is divided by its factors."""
    ranges, found = decisions.ranges.find(plan.int8), dict[str, Round]()
    for name in readers_by_activation(plan.ops):
        grid = plan.int8.grid(name, ranges[name])
        is_per_token = name in decisions.equalization.per_token
        found[name] = partial(rounded_per_token, grid) if is_per_token else grid.rounded
    return found


def _products(
    plan: Plan, decisions: Decisions, axes: Mapping[str, int]
) -> dict[str, dict[str, Round]]:
    """Return the outputs of the products that read activations, by the activations' names.

    Each comes with what computes it as the int8 product does, given the rounded activation.
    Activations that other ops read as integers as well are left out.
    """
    return {
        name: {op.output: partial(_product, plan.int8.model, op, decisions) for op in ops}
        for name, ops in readers_by_activation(plan.ops).items()
        if name in axes and all(op.op_type in PRODUCTS and op.block == 0 for op in ops)
    }


def _product(model: Model, op: WeightedOp, decisions: Decisions, rounded: Array) -> Array:
    desc, values = op.desc(model), _dequantized(decisions.weights[op.weight].made())
    matrix = weight_layout(desc, values.shape).grouped(values)[0, :, :, 0]
    factors = decisions.equalization.inserted.get(op.activation, np.float32(1))
    divided = rounded / factors
    product: Array = divided @ matrix.T * np.float32(desc.attr("alpha", 1.0))
    if op in decisions.corrections:
        is_per_token = op.activation in decisions.equalization.per_token
        share = token_maxima(divided) if is_per_token else np.float32(1)
        product += share * decisions.corrections[op].astype(np.float32)
    return product


def _dequantized(weight: QuantizedWeight) -> Array:
    return np.concatenate(list(weight.dequantized.chunks()))


def _roundings(
    rounded: Mapping[str, Round],
    inserted: Mapping[str, Array],
    axes: Mapping[str, int],
    products: Mapping[str, Mapping[str, Round]],
) -> dict[str, Rounding]:
    """Return what is to be made of each activation, or of the products that read it."""

    def rounding(name: str, of: Round) -> Rounding:
        outputs = products.get(name, {})
        if name not in inserted:
            return Rounding(of, bool(outputs), outputs)

        def divided(values: Array) -> Array:
            shape = [1] * values.ndim
            shape[axes[name]] = -1
            factors = inserted[name].reshape(shape)
            multiplied: Array = of(values / factors) * factors
            return multiplied

        return Rounding(divided, True, outputs)

    return {name: rounding(name, of) for name, of in rounded.items()}


def _observed(
    plan: Plan,
    rounded: Mapping[str, Round],
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
        errors = rounded[name](rows) - rows
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
    rounded = _dequantized(weight)
    reader, lost = Reader(desc, weight.stored), Reader(desc, weight.stored - rounded)
    errors, values = squares
    power, by_activation = reader.gathered(values), reader.gathered(errors)
    by_weight = lost.gathered(values)
    return mean_share(by_activation, power), mean_share(by_activation + by_weight, power)
