"""All that the data decide, and the int8 program that a plan becomes with these decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..program.folding.cross_layer_equalization import store_factors
from ..program.model import Model
from ..program.parameters import Array
from ..program.quantizable import WeightedOp
from ..program.ranges import Range
from ..program.targets.choices import Choices
from ..program.weights import quantize_weights
from ..result import Stopwatch
from .activation_ranges import ActivationRanges
from .equalization import Equalization, equalize
from .observation import Observations
from .options import Options
from .plan import Plan
from .weight_rounding import Weights, round_weights, suited

# Weights of ops that run in float: 8 bits would cost accuracy there, and save no time.
_BITS_OF_FLOAT_OPS = 16


@dataclass(frozen=True)
class Decisions:
    """What the data decide, for a plan and for those of fewer ops.

    Attributes:
        weights: of all int8 ops, and of those that run in float.
        corrections: what the outputs of ops lack on average, float64[outputs]; per token, those of
            the quotients.
        observations: of the activations, once they are divided by their factors.
    """

    ranges: ActivationRanges
    equalization: Equalization
    weights: Weights
    corrections: Mapping[WeightedOp, Array]
    observations: Observations
    options: Options


@dataclass(frozen=True)
class Emitted:
    """An int8 program, with the ranges of the activations that became integers, and their steps."""

    model: Model
    ranges: Mapping[str, Range]
    steps: Mapping[str, float]


def decide(plan: Plan, observations: Observations, options: Options, watch: Stopwatch) -> Decisions:
    """Decide what a plan leaves open; the parameters of its model may take in factors."""
    equalization, model = Equalization(), plan.int8.model
    if options.equalizes:
        equalization = equalize(model, plan.int8, observations, options)
        observations = observations.divided(equalization.factors)
        observations = observations.per_token(equalization.per_token)
        watch.lap("equalize")
    factors, per_token = equalization.weight_factors, equalization.per_token
    thresholds = ActivationRanges(model, plan.ops, observations, options, factors, per_token)
    ranges = thresholds.find(plan.int8)
    watch.lap("thresholds")
    weights, corrections = round_weights(model, plan.int8, observations, ranges, factors, options)
    in_float = quantize_weights(model, plan.weight_only, _BITS_OF_FLOAT_OPS, options.per_channel)
    weights = {**in_float, **weights}
    watch.lap("quantize")
    return Decisions(thresholds, equalization, weights, corrections, observations, options)


def emit(plan: Plan, decisions: Decisions) -> Emitted:
    """Return the int8 program of a plan."""
    int8, ops = plan.int8, set(plan.ops)
    ranges = decisions.ranges.find(int8)
    inserted, per_token = decisions.equalization.inserted, decisions.equalization.per_token
    corrections = {op: value for op, value in decisions.corrections.items() if op in ops}
    weights = suited(decisions.weights, int8, ranges, decisions.options)
    with np.errstate(over="ignore", invalid="ignore"):  # the check sees what such a bias does
        model = int8.emit(
            Choices(ranges, weights, plan.weight_only, inserted, corrections, per_token)
        )
    read = {op.activation for op in ops}
    divided = {name: factors for name, factors in inserted.items() if name in read}
    store_factors(model, {**decisions.equalization.taken, **divided})
    return Emitted(model, ranges, int8.steps(ranges))
