"""How much ops compute."""

from __future__ import annotations

from collections.abc import Mapping

from ..program.quantizable import WeightedOp
from .plan import Plan


def multiplications(plan: Plan, sizes: Mapping[str, int]) -> dict[WeightedOp, float]:
    """Return how many multiplications each op does, by the sizes of outputs: 1 if unknown."""
    parameters, found = plan.int8.model.parameters, dict[WeightedOp, float]()
    for op in plan.ops:
        weight = parameters[op.weight]
        found[op] = sizes.get(op.output, 1) * weight.size / weight.shape[op.channel_axis]
    return found
