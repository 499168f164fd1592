"""The grid of integers of each tensor of a planned program, once the ranges are known."""

from __future__ import annotations

from collections.abc import Mapping

from ...quantizable import WeightedOp
from ...ranges import Grid, Range, fitted_grid, symmetric_grid
from .flow import Flow


class Grids:
    """Chooses the grid of each tensor; the members of a scale group share one."""

    def __init__(self, flow: Flow, ranges: Mapping[str, Range]) -> None:
        self._flow = flow
        self._ranges = ranges
        self._found: dict[str, Grid] = {}

    def __getitem__(self, name: str) -> Grid:
        groups, ranges = self._flow.scale_groups, self._ranges
        root = groups.get(name, name)
        if root not in self._found:
            of_one_scale = [other for other, known in groups.items() if known == root]
            others = of_one_scale or [root if root in ranges else self._flow.source_of(root)]
            found = [ranges[other] for other in others if other in ranges]
            widest = max(found, key=lambda one: one.threshold)
            self._found[root] = choose_grid(self._flow, root, widest)
        return self._found[root]

    def of_input(self, op: WeightedOp) -> Grid:
        """Return the grid of the integers that an op reads."""
        grid = self[op.activation]
        return grid.as_unsigned() if self._flow.reads_int8_as_uint8(op) else grid


def choose_grid(flow: Flow, name: str, given: Range) -> Grid:
    """Return the grid of a tensor that has a given range."""
    root = flow.scale_groups.get(name, name)
    if root in flow.int8_outputs or root in flow.symmetric:
        return symmetric_grid(given, flow.is_unsigned(root, flow.scale_groups))
    if flow.takes_zero_point(root):
        return fitted_grid(given)
    return symmetric_grid(given, given.minimum >= 0)
