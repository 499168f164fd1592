"""Ranks ops by the errors that their own integers cause in their outputs."""

from __future__ import annotations

import math

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
from .decisions import Decisions
from .plan import Plan


def ranked_by_error(plan: Plan, decisions: Decisions, feed: Feed) -> list[tuple[WeightedOp, float]]:
    """Return the int8 ops, worst first, with the errors that their own integers cause.

    An error is a relative rms, over the channels of the op's output. One batch is run in float, op
    by op, for all of them.
    """
    model = plan.int8.model
    axes = channel_axes(model, plan.ops)
    ranges = decisions.ranges.find(plan.int8)
    factors = decisions.equalization.inserted
    squares: dict[str, tuple[Array, Array]] = {}  # of errors and of values, float64[channels]

    def see(value: Written, array: Array) -> None:
        name = value.name
        moved = np.moveaxis(array, axes[name], -1)
        rows = moved.reshape(-1, moved.shape[-1]) / factors.get(name, np.float32(1))
        errors = plan.int8.grid(name, ranges[name]).rounded(rows) - rows
        squares[name] = mean_square(errors), mean_square(rows)

    ObservedModel(model, axes.keys(), all_cores()).run(feed, 0, see)
    ranked = []
    for op in plan.ops:
        error = 0.0
        if op.activation in squares:  # not if its branch did not run, or its channels are unknown
            error = _output_error(model, op, decisions, *squares[op.activation])
        ranked.append((op, error))
    return sorted(ranked, key=lambda pair: -pair[1])


def _output_error(
    model: Model, op: WeightedOp, decisions: Decisions, errors: Array, squares: Array
) -> float:
    weight, desc = decisions.weights[op.weight].made(), op.desc(model)
    rounded = np.concatenate(list(weight.dequantized.chunks()))
    reader, lost = Reader(desc, weight.stored), Reader(desc, weight.stored - rounded)
    error = reader.gathered(errors) + lost.gathered(squares)
    return math.sqrt(mean_share(error, reader.gathered(squares)))
