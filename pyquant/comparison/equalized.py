"""Divides the activations of the float model as those of the quantized one are divided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..program.folding.cross_layer_equalization import find_neighbours, make_division
from ..program.folding.linear import weight_layout
from ..program.graph import Graph
from ..program.model import Model, copy_model
from ..program.names import EQUALIZED, PER_TOKEN, stem
from ..program.parameters import Array
from ..program.per_token import divide_tokens, multiply_tokens
from ..program.quantizable import ACTIVATION_OP_TYPES, WeightedOp, find_weighted_ops
from .quantization import Quantization


class Equalized(NamedTuple):
    """A float model, equalized like the quantized one."""

    model: Model  # with the same outputs as before
    # The original names of the tensors that factors divide and the weights that they multiply, by
    # the new names.
    names: dict[str, str]
    left: list[str]  # the activations whose factors cannot be applied


def equalized(before: Model, quantization: Quantization) -> Equalized:
    """Return ``before`` with the factors of a quantized model, or itself if there are none."""
    found, beside = Equalized(copy_model(before), {}, []), quantization.weights_beside
    per_token = {stem(name, PER_TOKEN): beside[name] for name in beside if name.endswith(PER_TOKEN)}
    if not quantization.factors and not per_token:
        return found._replace(model=before)
    read = {**beside, **per_token}
    weights = {
        name: read[f"{name}{EQUALIZED}"]
        for name in quantization.factors
        if f"{name}{EQUALIZED}" in read
    }
    taken = {name: array for name, array in quantization.factors.items() if name not in weights}
    _take(found, taken)
    _divide(found, {name: quantization.factors[name] for name in weights}, weights)
    _divide_tokens(found, per_token)
    found.model.settle()
    return found


def _take(found: Equalized, factors: dict[str, Array]) -> None:
    """Fold the factors of activations into their neighbours."""
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
    """Insert ops that divide activations for the ops that read them with the given weights."""
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


def _divide_tokens(found: Equalized, weights: Mapping[str, set[str]]) -> None:
    """Quantize activations per token, but for the rounding, for ops with the given weights."""
    model, names, left = found
    graph, divided = Graph(model), dict[str, tuple[str, str]]()
    for op in find_weighted_ops(model, ACTIVATION_OP_TYPES)[0] if weights else ():
        name, output = op.activation, op.output
        if op.weight not in weights.get(name, ()):
            continue
        if name not in divided:
            before, maxima, quotients = divide_tokens(graph, name)
            divided[name] = maxima, quotients
            graph.insert_before(op.position, before)
            names[f"{name}{PER_TOKEN}"] = names.get(name, name)
        maxima, quotients = divided[name]
        graph.rename_input(op.position, name, quotients)
        product, multiplied = multiply_tokens(graph, maxima, output)
        graph.rename_output(op.position, output, product)
        graph.insert_after(op.position, [multiplied])
        names[product] = output
    graph.write_back()
    left += weights.keys() - divided.keys()


def _fits(model: Model, op: WeightedOp, factors: Array) -> bool:
    desc = op.desc(model)
    return weight_layout(desc, model.parameters[op.weight].shape).inputs == factors.size
