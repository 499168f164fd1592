"""Int8 programs of oneDNN's own ops, as planned: which ops become one, and where integers flow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ...graph import Graph
from ...matrix_products import PRODUCTS
from ...model import Model
from ...quantizable import WeightedOp
from ...ranges import Grid, Range
from ...weights import QuantizedWeight
from ..choices import Choices
from ..saturation import without_saturation
from .emit import emit
from .flow import Flow
from .fusion import FusedOp, fuse
from .grids import Grids, choose_grid


@dataclass(frozen=True)
class OneDnnPlan:
    """Which tensors of a float model become integers, and in which ops of oneDNN."""

    model: Model
    ops: Sequence[WeightedOp]  # they become int8; all are in the main block
    graph: Graph
    fused: Sequence[FusedOp]  # the int8 ops, in the order in which they run
    flow: Flow

    @property
    def observed(self) -> Collection[str]:
        """The tensors whose ranges must be known."""
        names = dict.fromkeys(one.op.activation for one in self.fused)
        for name, one in self.flow.int8_outputs.items():
            # A sum of integers may have only float readers once fewer ops are int8.
            is_sum = one.residual is not None
            if is_sum or names.keys().isdisjoint(self.flow.carried_from(name)):
                names[name] = None
        for accumulation in self.flow.accumulations:
            _, _, feature_map, factor, scaled, base, output = accumulation
            names |= dict.fromkeys((feature_map, factor, scaled, self.flow.source_of(base), output))
        return list(names)

    @property
    def accumulated(self) -> set[str]:
        """The feature maps that are multiplied and added as integers."""
        return {one.feature_map for one in self.flow.accumulations}

    def bits(self, name: str, given: Range) -> int:
        """Return the bits of signed integers with as fine a step; ``given`` is not clipped."""
        root = self.flow.scale_groups.get(name, name)
        if root in self.flow.int8_outputs or root in self.flow.symmetric:
            return 9 if self.flow.is_unsigned(root, self.flow.scale_groups) else 8
        has_one_sign = given.minimum >= 0 or given.maximum <= 0
        takes_zero_point = self.flow.takes_zero_point(name)
        return 9 if has_one_sign or (takes_zero_point and given.is_one_sided) else 8

    def takes_factors(self, name: str) -> bool:
        """Return whether an activation can be divided by factors before it becomes integers."""
        return name not in self.flow.scale_groups and name not in self.flow.symmetric

    def quantizes_per_token(self, name: str) -> bool:
        """Return whether the positions of an activation can have scales of their own."""
        if not self.takes_factors(name) or name in self.flow.computed_as_integers:
            return False
        return all(
            one.op.op_type in PRODUCTS
            and not one.activation.name
            and one.output not in self.flow.int8_outputs
            for one in self.fused
            if one.op.activation == name
        )

    def grid(self, name: str, given: Range) -> Grid:
        """Return the grid of a tensor of `observed` that has a given range."""
        return choose_grid(self.flow, name, given)

    def steps(self, ranges: Mapping[str, Range]) -> dict[str, float]:
        """Return the steps of the tensors of `observed` that have these ranges."""
        grids = Grids(self.flow, ranges)
        return {name: 1 / grids[name].factor for name in ranges}

    def without_saturation(
        self, weights: Mapping[str, QuantizedWeight], ranges: Mapping[str, Range]
    ) -> dict[str, QuantizedWeight]:
        """Return weights as integers that every processor multiplies exactly.

        ``ranges`` are those of `observed`.
        """
        suited, grids = dict(weights), Grids(self.flow, ranges)
        for one in self.fused:
            name, desc = one.op.weight, self.graph.ops[one.op.position]
            is_unsigned = grids.of_input(one.op).unsigned
            suited[name] = without_saturation(suited[name], one.op, desc, is_unsigned)
        return suited

    def emit(self, choices: Choices) -> Model:
        """Return the int8 program."""
        return emit(self.model, self.fused, self.flow, choices)


def plan_onednn(model: Model, ops: Sequence[WeightedOp]) -> OneDnnPlan:
    """Plan the int8 program in which ``ops`` of a float model are int8."""
    graph = Graph(model)
    fused = sorted((fuse(graph, op) for op in ops), key=lambda one: one.position)
    return OneDnnPlan(model, ops, graph, fused, Flow(graph, fused))
