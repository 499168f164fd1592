"""The integers of weights, and the mean errors that they cause in the outputs of ops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..calibration.bias_correction import mean_error
from ..calibration.moments import first_readers
from ..program.mapped_files import moved_to_file
from ..program.model import Model
from ..program.parameters import Array
from ..program.quantizable import WeightedOp
from ..program.ranges import Range
from ..program.targets.int8_plan import Int8Plan
from ..program.targets.saturation import VNNI
from ..program.weights import QuantizedWeight, quantize_weights
from .observation import Observations
from .options import Options

Weights = Mapping[str, QuantizedWeight]
"""Weights as integers, by their names."""


def round_weights(
    model: Model,
    plan: Int8Plan,
    observations: Observations,
    ranges: Mapping[str, Range],
    weight_factors: Mapping[str, Array],
    options: Options,
) -> tuple[dict[str, QuantizedWeight], dict[WeightedOp, Array]]:
    """Quantize the weights of a plan, once they are multiplied by ``weight_factors``.

    Returns the weights by name, and what the outputs of ops lack on average because of them.
    """
    bits, per_channel = options.weight_bits, options.per_channel
    weights = quantize_weights(model, plan.ops, bits, per_channel, weight_factors)
    weights = suited(weights, plan, ranges, options)
    by_moments = first_readers(observations.moments) if options.rounds_by_moments else {}
    corrected, dims = _corrected(plan, observations), model.dims()
    corrections = {}
    for name, weight in weights.items():
        if name not in by_moments and name not in corrected:
            continue  # the nearest integers are made when they are written
        made = weight.made()
        if name in by_moments:
            rounded = by_moments[name].round(made)
            if options.most_bytes is not None:
                rounded = moved_to_file(rounded)
            made = replace(made, rounded=rounded)
        for op in corrected.get(name, ()):
            means = observations.means[op.activation]
            corrections[op] = mean_error(op.desc(model), made, means, dims[op.activation])
        # Nearest integers are made again when they are written, if memory is short.
        keeps_integers = name in by_moments or options.most_bytes is None
        weights[name] = weight.keeping(made, keeps_integers)
    return weights, corrections


def suited(
    weights: Weights, plan: Int8Plan, ranges: Mapping[str, Range], options: Options
) -> dict[str, QuantizedWeight]:
    """Return weights as integers that suit the processors that the model is for."""
    if options.processors == VNNI:
        return dict(weights)
    return plan.without_saturation(weights, ranges)


def _corrected(plan: Int8Plan, observations: Observations) -> dict[str, list[WeightedOp]]:
    """Return the ops whose outputs are corrected, by the names of their weights."""
    found: dict[str, list[WeightedOp]] = {}
    for op in plan.ops:
        if op.block == 0 and op.activation in observations.means:
            found.setdefault(op.weight, []).append(op)
    return found
