"""The float model with its activations divided by factors, as those of the quantized one are."""

from __future__ import annotations

from typing import NamedTuple

from ..program.folding.linear import weight_layout
from ..program.folding.scaling import find_neighbours, make_division
from ..program.graph import Graph
from ..program.model import Model, copy_model
from ..program.names import EQUALIZED
from ..program.parameters import Array
from ..program.quantizable import ACTIVATION_OP_TYPES, WeightedOp, find_weighted_ops
from .quantization import Quantization


class Equalized(NamedTuple):
    """A float model beside an equalized one.

    Attributes:
        model: it, which computes the same as before.
        names: of the tensors and weights that factors divide or multiply, what they are called
            before that.
        left: the activations whose factors it cannot take.
    """

    model: Model
    names: dict[str, str]
    left: list[str]


def equalized(before: Model, quantization: Quantization) -> Equalized:
    """Return ``before`` with the factors of a quantized model, itself if there are none."""
    found = Equalized(copy_model(before), {}, [])
    if not quantization.factors:
        return found._replace(model=before)
    found.model.is_equalized = True
    weights = {
        name: quantization.weights_beside[f"{name}{EQUALIZED}"]
        for name in quantization.factors
        if f"{name}{EQUALIZED}" in quantization.weights_beside
    }
    taken = {name: array for name, array in quantization.factors.items() if name not in weights}
    _take(found, taken)
    _divide(found, {name: quantization.factors[name] for name in weights}, weights)
    found.model.settle()
    return found


def _take(found: Equalized, factors: dict[str, Array]) -> None:
    """Let the neighbours of activations take their factors in."""
    model, names, left = found
    graph = Graph(model)
    for name, divisors in factors.items():
        neighbours = find_neighbours(graph, name, ())
        if neighbours is None or not neighbours.fit(model, divisors):
            left.append(name)
            continue
        neighbours.take(model, divisors)
        names.update((changed, changed) for changed in (*neighbours.tensors, *neighbours.weights))


def _divide(found: Equalized, factors: dict[str, Array], weights: dict[str, set[str]]) -> None:
    """Divide activations by an op in front of those that read them beside some weights."""
    model, names, left = found
    if not factors:
        return
    ops = [
        op
        for op in find_weighted_ops(model, ACTIVATION_OP_TYPES)[0]
        if op.weight in weights.get(op.activation, ()) and _fits(model, op, factors[op.activation])
    ]
    graph, divided = Graph(model), dict[str, str]()
    for op in ops:
        name, number = op.activation, graph.number(op.block, op.position)
        shape = model.parameters[op.weight].shape
        layout = weight_layout(graph.op(number), shape)
        model.multiply(op.weight, layout.along_inputs(factors[name]))
        names.update({op.weight: op.weight, f"{name}{EQUALIZED}": name})
        if name not in divided:
            division, divided[name] = make_division(graph, name, factors[name], op)
            graph.insert_before(number, [division])
        graph.rename_input(number, name, divided[name])
    graph.write_back()
    left += factors.keys() - divided.keys()


def _fits(model: Model, op: WeightedOp, factors: Array) -> bool:
    desc = op.desc(model)
    return weight_layout(desc, model.parameters[op.weight].shape).inputs == factors.size
