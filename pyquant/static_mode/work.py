"""How much ops compute, and what time int8 saves them."""

from __future__ import annotations

from collections.abc import Mapping

from ..calibration.data import Feed
from ..comparison.paired import ObservedModel
from ..comparison.quantization import Written
from ..program.parameters import Array
from ..program.predictor import all_cores
from ..program.quantizable import WeightedOp, multiplications_for
from .plan import Plan


def sizes_of(plan: Plan, feed: Feed) -> dict[str, int]:
    """Return how many elements the activation and the output of each op have, by a float run."""
    sizes = dict[str, int]()

    def see(value: Written, array: Array) -> None:
        sizes[value.name] = array.size

    names = {name for op in plan.ops for name in (op.activation, op.output)}
    ObservedModel(plan.int8.model, names, all_cores()).run(feed, 0, see)
    return sizes


def multiplications(plan: Plan, sizes: Mapping[str, int]) -> dict[WeightedOp, float]:
    """Return how many multiplications each op does, by the sizes of outputs: 1 if unknown."""
    parameters, found = plan.int8.model.parameters, dict[WeightedOp, float]()
    for op in plan.ops:
        outputs = sizes.get(op.output, 1)
        found[op] = multiplications_for(outputs, parameters[op.weight], op.channel_axis)
    return found


def time_saved(plan: Plan, sizes: Mapping[str, int]) -> dict[WeightedOp, float]:
    """Return what time int8 saves each op, in multiplications, by the sizes of tensors.

    An op in float among int8 ones turns the integers that it reads into floats, and what it writes
    into integers. It is an estimate that is the same on every machine.
    """
    of_element = plan.target.element_in_multiplications
    return {
        op: count + of_element * (sizes.get(op.activation, 1) + sizes.get(op.output, 1))
        for op, count in multiplications(plan, sizes).items()
    }
