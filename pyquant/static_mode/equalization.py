"""Equalization: dividing activations by factors per channel, and multiplying weights by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from ..calibration.channel_factors import (
    LEAST_GAIN,
    OF_FEATURE_MAPS,
    OF_ROWS,
    Outliers,
    channel_factors,
    has_outliers,
)
from ..calibration.output_error import forget_weights, readers_of
from ..calibration.statistic import ActivationMaxima
from ..program.folding.cross_layer_equalization import find_neighbours
from ..program.folding.linear import weight_layout
from ..program.graph import Graph
from ..program.matrix_products import PRODUCTS
from ..program.model import Model
from ..program.parameters import Array
from ..program.quantizable import WeightedOp
from ..program.ranges import Grid
from ..program.targets.int8_plan import Int8Plan
from .activation_ranges import ActivationRanges
from .observation import Observations
from .options import Options

# The share of the weights' rounding error, in power, that adaround leaves in the outputs of
# PP-OCRv4 recognition.
_LEFT_BY_ADAROUND = 0.15


# A pass over an activation counts in full for ops with up to this many outputs per input.
_USUAL_EXPANSION = 4


@dataclass(frozen=True)
class Equalization:
    """The factors by which activations are divided, float32[channels], by the activations' names.

    Attributes:
        taken: those that neighbours have taken in, so that they are in the model.
        inserted: those that need an op in front of the integers, which is yet to be written.
        weight_factors: what the latter multiply weights by, by the weights' names.
    """

    taken: dict[str, Array] = field(default_factory=dict)
    inserted: dict[str, Array] = field(default_factory=dict)
    weight_factors: dict[str, Array] = field(default_factory=dict)

    @property
    def factors(self) -> dict[str, Array]:
        return {**self.taken, **self.inserted}


def equalize(
    model: Model, plan: Int8Plan, observations: Observations, options: Options
) -> Equalization:
    """Choose factors for the activations that become int8, where they are worth it.

    The op that writes an activation takes them in if that changes nothing else; then ``model``
    changes. Otherwise they are left to be inserted.
    """
    found = Equalization()
    equalizable = _equalizable(model, plan.ops, observations, options)
    if not equalizable:
        return found
    ranges = ActivationRanges(model, plan.ops, observations, options)
    graph = Graph(model)
    for name, readers in equalizable.items():
        neighbours = find_neighbours(graph, name, observations.statistics.keys() - {name})
        if neighbours is None and not plan.takes_factors(name):
            continue
        share = _share_of_pass(model, readers)
        least_gain = 1 + (LEAST_GAIN - 1) * share if neighbours is None else 1.0
        factors = channel_factors(
            observations.samples[name],
            observations.statistics[name],
            readers_of(model, readers),
            partial(_grid, name, plan, ranges),
            options.weight_levels,
            _LEFT_BY_ADAROUND if options.rounds_by_moments else 1.0,
            least_gain,
            0.0 if options.equalize else _outliers(readers).least_cost * share,
        )
        forget_weights(model, readers)
        if factors is not None and neighbours is not None:
            neighbours.take(model, factors)
            found.taken[name] = factors
        elif factors is not None:
            found.inserted[name] = factors
            for op in readers:
                desc = op.desc(model)
                shape = model.parameters[op.weight].shape
                found.weight_factors[op.weight] = weight_layout(desc, shape).along_inputs(factors)
    return found


def _grid(name: str, plan: Int8Plan, ranges: ActivationRanges, statistic: ActivationMaxima) -> Grid:
    bits = plan.bits(name, statistic.range(statistic.abs_max))
    return plan.grid(name, statistic.range(ranges.searched(statistic, bits)))


def _share_of_pass(model: Model, readers: Sequence[WeightedOp]) -> float:
    """Return what a pass over an activation costs beside its readers, as a share of what is usual.

    It is little where a decoder computes the scores of all words.
    """
    layouts = [weight_layout(op.desc(model), model.parameters[op.weight].shape) for op in readers]
    expansion = sum(layout.outputs for layout in layouts) / layouts[0].inputs
    return min(1.0, _USUAL_EXPANSION / expansion)


def _outliers(readers: Sequence[WeightedOp]) -> Outliers:
    """Return the outliers for which an activation is divided by default."""
    return OF_ROWS if all(op.op_type in PRODUCTS for op in readers) else OF_FEATURE_MAPS


def _equalizable(
    model: Model, ops: Sequence[WeightedOp], observations: Observations, options: Options
) -> dict[str, list[WeightedOp]]:
    """Return the readers of each activation for which factors may be worth it.

    Activations with given thresholds are left out: the thresholds are for undivided values.
    """
    reads = model.reads()
    writes = model.writes()
    readers: dict[str, list[WeightedOp]] = {}
    for op in ops:
        readers.setdefault(op.activation, []).append(op)
    return {
        name: found
        for name, found in readers.items()
        if name in observations.samples
        and (
            options.equalize
            or has_outliers(observations.samples[name], _outliers(found).least_ratio)
        )
        and name not in options.given_thresholds
        and writes[name] <= 1
        and all(reads[op.weight] == 1 for op in found)
    }
