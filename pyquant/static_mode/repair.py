"""Checks the int8 program of a plan, and keeps ops in float until it is near the float model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..calibration.data import Feed
from ..comparison.paired import ObservedModel
from ..comparison.quantization import Written
from ..program.model import Model
from ..program.parameters import Array
from ..program.predictor import all_cores
from ..program.quantizable import FloatOp, WeightedOp
from ..program.weights import QuantizedWeight
from ..verification import Reference, Verification, worst
from .accuracy_control import fewest
from .decisions import Decisions, Emitted, emit
from .plan import Plan

MOST_ERROR = 0.05
"""The share of an output's power that its error by int8 may have."""


def checked(
    model: Model, plan: Plan, decisions: Decisions, feeds: Sequence[Feed], repairs: bool
) -> tuple[Plan, Emitted, Verification]:
    """Return the int8 program of a plan, or of one with fewer int8 ops where it errs too much.

    Args:
        model: the float model, folded.
        plan: of it.
        decisions: by the data.
        feeds: batches to check it on.
        repairs: whether ops may be kept in float.

    Raises:
        ModelFileError: Paddle cannot load a model.
        CalibrationDataError: it cannot run one.
    """
    reference = Reference(model, feeds)
    emitted = emit(plan, decisions)
    found = reference.verify(emitted.model)
    if not repairs or _holds(worst(found.errors).power):
        return plan, emitted, found
    ranked = ranked_by_error(model, plan, decisions, feeds[0])
    ops = [op for op, _ in ranked]

    def holds(kept: int) -> bool:
        trial = emit(plan.of(ops[kept:]), decisions).model
        return _holds(worst(reference.errors(trial)).power)

    kept = fewest(holds, len(ops))
    reasons = [
        FloatOp(op.op_type, op.output, f"int8 changes what it computes by {error:.1%}")
        for op, error in ranked[:kept]
    ]
    plan = plan.of([op for op in plan.ops if op not in ops[:kept]], reasons)
    emitted = emit(plan, decisions)
    repair = f"{kept} op(s) kept in float, for {worst(found.errors)} otherwise"
    return plan, emitted, replace(reference.verify(emitted.model), repairs=(repair,))


def ranked_by_error(
    model: Model, plan: Plan, decisions: Decisions, feed: Feed
) -> list[tuple[WeightedOp, float]]:
    """Return the int8 ops with the error that their integers have by themselves, worst first.

    It is relative, rms: of the activation, and of the weight.
    """
    ranges, _ = decisions.ranges.find(plan.int8)
    factors = decisions.equalization.inserted
    powers: dict[str, tuple[float, float]] = {}

    def see(value: Written, array: Array) -> None:
        values = array / _aligned(factors[value.name], array) if value.name in factors else array
        rounded = plan.int8.grid(value.name, ranges[value.name]).rounded(values)
        powers[value.name] = _power(values - rounded), _power(values)

    activations = {op.activation for op in plan.ops}
    ObservedModel(model, activations, all_cores()).run(feed, 0, see)
    weights = {op.weight: _weight_error(decisions.weights[op.weight]) for op in plan.ops}
    found = []
    for op in plan.ops:
        error, power = powers.get(op.activation, (0.0, 0.0))
        share = error / power if power else 0.0
        found.append((op, math.sqrt(share + weights[op.weight])))
    return sorted(found, key=lambda pair: -pair[1])


def _holds(power: float) -> bool:
    return power <= MOST_ERROR  # which NaN is not


def _weight_error(weight: QuantizedWeight) -> float:
    """Return the power of a weight's rounding error as a share of its own."""
    made, error, power, start = weight.made(), 0.0, 0.0, 0
    for part in made.dequantized.chunks():
        source = made.stored[start : start + len(part)]
        error, power = error + _power(source - part), power + _power(source)
        start += len(part)
    return error / power if power else 0.0


def _power(values: Array) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _aligned(factors: Array, array: Array) -> Array:
    return factors if array.ndim < 4 else factors[:, None, None]
