"""Equalization: dividing the channels of activations by factors, and their positions by maxima."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

from ..calibration.channel_factors import (
    LEAST_GAIN,
    LEAST_TOKEN_GAIN,
    OF_FEATURE_MAPS,
    OF_ROWS,
    OF_TOKENS,
    FactorSearch,
    Outliers,
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
from ..program.quantizable import WeightedOp, readers_by_activation
from ..program.ranges import Grid, unit_range
from ..program.targets.int8_plan import Int8Plan
from .activation_ranges import ActivationRanges
from .observation import Observations
from .options import Options

# A pass over an activation counts in full for ops with up to this many outputs per input.
_USUAL_EXPANSION = 4


@dataclass(frozen=True)
class Equalization:
    """The factors by which activations are divided, float32[channels], by the activations' names.

    Attributes:
        taken: those that neighbours have taken in, so that they are in the model.
        inserted: those that need an op in front of the integers, which is yet to be written.
        weight_factors: what the latter multiply weights by, by the weights' names.
        per_token: the activations whose positions have scales of their own.
    """

    taken: dict[str, Array] = field(default_factory=dict)
    inserted: dict[str, Array] = field(default_factory=dict)
    weight_factors: dict[str, Array] = field(default_factory=dict)
    per_token: set[str] = field(default_factory=set)

    @property
    def factors(self) -> dict[str, Array]:
        return {**self.taken, **self.inserted}


def equalize(
    model: Model, plan: Int8Plan, observations: Observations, options: Options
) -> Equalization:
    """Choose factors, and scales per token, for activations that become int8, where worth it.

    The op that writes an activation takes them in if that changes nothing else; then ``model``
    changes. Otherwise they are left to be inserted, as scales per token always are.
    """
    found = Equalization()
    ranges = ActivationRanges(model, plan.ops, observations, options)
    graph, reads = Graph(model), model.reads()
    for name, ops in _known(model, plan.ops, observations, options).items():
        is_alone = all(reads[op.weight] == 1 for op in ops)
        activation = _Activation(name, ops, is_alone, model, plan, observations, options)
        if not activation.may_gain:
            continue
        neighbours = find_neighbours(graph, name, observations.statistics.keys() - {name})
        factors, is_per_token = activation.choose(ranges, neighbours is not None)
        forget_weights(model, ops)
        if is_per_token:
            found.per_token.add(name)
        if factors is not None and neighbours is not None:
            neighbours.take(model, factors)
            found.taken[name] = factors
        elif factors is not None:
            found.inserted[name] = factors
            for op in ops:
                desc = op.desc(model)
                shape = model.parameters[op.weight].shape
                found.weight_factors[op.weight] = weight_layout(desc, shape).along_inputs(factors)
    return found


@dataclass(frozen=True)
class _Activation:
    """An activation for which factors, or scales per token, may be worth it.

    Attributes:
        ops: those that read it as integers.
        is_alone: whether no others read their weights.
    """

    name: str
    ops: Sequence[WeightedOp]
    is_alone: bool
    model: Model
    plan: Int8Plan
    observations: Observations
    options: Options

    def choose(self, ranges: ActivationRanges, has_neighbours: bool) -> tuple[Array | None, bool]:
        """Return the factors that are worth it, and whether scales per token are."""
        takes_factors = self._wants_factors and (
            has_neighbours or self.plan.takes_factors(self.name)
        )
        if not takes_factors and not self._takes_tokens:
            return None, False
        search, share = self._search(ranges), _share_of_pass(self.model, self.ops)
        least_gain = 1.0 if has_neighbours else 1 + (LEAST_GAIN - 1) * share
        least_cost = 0.0 if self.options.equalize else _outliers(self.ops).least_cost * share
        chosen = search.undivided
        if takes_factors and search.cost >= least_cost:
            chosen = search.with_one_scale(least_gain)
        least_error = 0.0 if self.options.equalize else OF_TOKENS * len(self.ops)
        if self._takes_tokens and chosen.error >= least_error:
            grid = self.plan.grid(self.name, unit_range(self._statistic.range(1.0)))
            others = [search.balanced] if takes_factors else []
            found = search.per_token(grid, [*others, chosen.factors], least_gain)
            if found.error * LEAST_TOKEN_GAIN < chosen.error:
                return found.factors, True
        return chosen.factors, False

    @property
    def may_gain(self) -> bool:
        """Whether factors or scales per token may be worth it: looking for them takes long."""
        return self._wants_factors or self._takes_tokens

    @cached_property
    def _wants_factors(self) -> bool:
        if not self.is_alone:
            return False
        sample, outliers = self.observations.samples[self.name], _outliers(self.ops)
        return bool(self.options.equalize) or has_outliers(sample, outliers.least_ratio)

    @cached_property
    def _takes_tokens(self) -> bool:
        return self.plan.quantizes_per_token(self.name)

    @property
    def _statistic(self) -> ActivationMaxima:
        return self.observations.statistics[self.name]

    def _search(self, ranges: ActivationRanges) -> FactorSearch:
        return FactorSearch(
            self.observations.samples[self.name],
            self._statistic,
            readers_of(self.model, self.ops),
            partial(_grid, self.name, self.plan, ranges),
            self.options.weight_levels,
        )


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


def _known(
    model: Model, ops: Sequence[WeightedOp], observations: Observations, options: Options
) -> dict[str, list[WeightedOp]]:
    """Return the readers of each activation that has a sample and is computed once.

    Activations with given thresholds are left out: the thresholds are for undivided values.
    """
    writes = model.writes()
    return {
        name: found
        for name, found in readers_by_activation(ops).items()
        if name in observations.samples
        and name not in options.given_thresholds
        and writes[name] <= 1
    }
