"""Divides the channels of a tensor by factors at no cost: its neighbours take them in.

They go into the weight and bias of the op that writes the tensor, and into the weights of the ops
that read it, so that nothing else changes (cross-layer equalization, arXiv 1906.04721).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from .. import proto
from ..graph import Graph
from ..matrix_products import PRODUCTS
from ..model import Model
from ..names import EQUALIZED, FACTORS, RECIPROCALS, stem
from ..op import Op, make_elementwise
from ..op_facts import Fact, has
from ..parameters import Array
from ..quantizable import QUANTIZABLE_OPS, WeightedOp
from .affine import affine_op
from .linear import LinearOp, linear_op, weight_layout


@dataclass(frozen=True)
class Neighbours:
    """What takes in the factors of a tensor.

    Attributes:
        tensors: the tensor, and those between it and its writer, which are divided as well.
        writer: the linear op that the tensor comes from; None if it is a norm.
        vectors: the parameters of one value per channel that are divided.
        readers: the linear ops that read the tensor.
    """

    tensors: list[str]
    writer: Op | None
    vectors: list[str]
    readers: list[Op]

    @property
    def weights(self) -> list[str]:
        """The parameters that are multiplied."""
        ops = self.readers if self.writer is None else [self.writer, *self.readers]
        return [_weight(op) for op in ops]

    def fit(self, model: Model, factors: Array) -> bool:
        """Return whether ``factors`` has one value per channel."""
        shapes = [(op, model.parameters[_weight(op)].shape) for op in self.readers]
        return all(weight_layout(op, shape).inputs == factors.size for op, shape in shapes)

    def take(self, model: Model, factors: Array) -> None:
        """Divide the tensor by ``factors``, float32[channels] and positive."""
        for name in self.vectors:
            vector = model.parameters[name]
            model.parameters[name] = (vector.reshape(-1) / factors).reshape(vector.shape)
        if self.writer is not None:
            weight = _weight(self.writer)
            shape = model.parameters[weight].shape
            model.multiply(weight, weight_layout(self.writer, shape).along_outputs(1 / factors))
        for reader in self.readers:
            weight = _weight(reader)
            shape = model.parameters[weight].shape
            model.multiply(weight, weight_layout(reader, shape).along_inputs(factors))


def find_neighbours(graph: Graph, name: str, keep: Collection[str]) -> Neighbours | None:
    """Return what takes in factors of ``name`` without changing ``keep`` or anything else."""
    readers = [graph.ops[position] for position in graph.readers(name)]
    if graph.is_kept(name) or not all(_reads_alone(graph, op, name) for op in readers):
        return None
    dims = graph.dims(name)
    found = [_linear(graph, op) for op in readers]
    axes = {op.channel_axis for op in found if op is not None}
    if not dims or len(axes) != 1:
        return None
    axis = axes.pop() % len(dims)
    tensors, vectors = [name], list[str]()
    position = graph.producer(name)
    while position is not None:
        op = graph.ops[position]
        if op.type in QUANTIZABLE_OPS:
            is_alone = _linear(graph, op) is not None and graph.only_reader(_weight(op)) == position
            return Neighbours(tensors, op, vectors, readers) if is_alone else None
        if op.type == "layer_norm":
            of_norm = _norm_vectors(graph, op, len(dims), axis)
            vectors += of_norm or ()
            return None if of_norm is None else Neighbours(tensors, None, vectors, readers)
        source = _source(graph, op, len(dims), axis, dims[axis], vectors)
        if source is None or source in keep or graph.only_reader(source) != position:
            return None
        tensors.append(source)
        position = graph.producer(source)
    return None


def make_division(graph: Graph, name: str, factors: Array, reader: WeightedOp) -> tuple[Op, str]:
    """Return an op that divides the channels of what ``reader`` reads, and the op's output.

    It multiplies by reciprocals. They are shaped to align to the last axes, since some ops that
    Paddle fuses with the multiplication ignore its ``axis``.
    """
    reciprocals = 1 / factors
    if reader.op_type not in PRODUCTS:
        reciprocals = reciprocals[:, None, None]
    parameter = graph.shared_parameter(f"{name}{RECIPROCALS}", reciprocals)
    output = graph.add_variable(f"{name}{EQUALIZED}", name, block=reader.block)
    return make_elementwise("elementwise_mul", name, parameter, output), output


def divide(
    graph: Graph, name: str, factors: Mapping[str, Array], ops: Iterable[WeightedOp]
) -> tuple[list[Op], str]:
    """Return the op that divides what ``ops`` read, if ``name`` has factors, and its output."""
    reader = next((op for op in ops if op.activation == name), None)
    if reader is None or name not in factors:
        return [], name
    op, output = make_division(graph, name, factors[name], reader)
    return [op], output


def store_factors(model: Model, factors: Mapping[str, Array]) -> None:
    """Store the factors of activations as parameters that no op reads: Paddle ignores them."""
    for name, divisors in factors.items():
        parameter = f"{name}{FACTORS}"
        block = model.program.blocks[0]
        proto.add_var(block, parameter, proto.FP32, divisors.shape).persistable = True
        model.put(parameter, divisors)


def stored_factors(model: Model) -> dict[str, Array]:
    """Return the factors that `store_factors` stored, by the name of the activation."""
    return {
        stem(name, FACTORS): array
        for name, array in model.parameters.items()
        if name.endswith(FACTORS)
    }


def _source(
    graph: Graph, op: Op, rank: int, axis: int, channels: int, vectors: list[str]
) -> str | None:
    """Return the input of a homogeneous op or of a bias' addition; the bias joins ``vectors``.

    Of a gated unit, it is the factor that a linear op writes.
    """
    if has(op.type, Fact.HOMOGENEOUS):
        return op.input("X")
    if op.type == "elementwise_mul":
        return _linear_factor(graph, op)
    parameters = graph.model.parameters
    found = affine_op(op, rank, axis, parameters)
    if op.type != "elementwise_add" or found is None or found.affine.shift.size != channels:
        return None
    bias = next(name for name in op.reads() if name in parameters)
    if graph.only_reader(bias) is None:
        return None
    vectors.append(bias)
    return found.source


def _linear_factor(graph: Graph, op: Op) -> str | None:
    """Return the factor of a product of two tensors of one shape that a linear op writes."""
    x, y = op.operands()
    if x == y or graph.dims(x) is None or graph.dims(x) != graph.dims(y):
        return None
    for name in (x, y):
        producer = graph.producer(name)
        if producer is not None and graph.ops[producer].type in _LINEAR_OR_BIAS:
            return name
    return None


_LINEAR_OR_BIAS = {*QUANTIZABLE_OPS, "elementwise_add"}


def _norm_vectors(graph: Graph, op: Op, rank: int, axis: int) -> list[str] | None:
    names = [name for slot in ("Scale", "Bias") for name in op.inputs(slot)]
    is_last = op.attr("begin_norm_axis", 1) == axis == rank - 1
    is_alone = all(
        graph.only_reader(name) is not None and graph.model.parameters[name].dtype == np.float32
        for name in names
    )
    return names if is_last and len(names) == 2 and is_alone else None


def _reads_alone(graph: Graph, op: Op, name: str) -> bool:
    """Return whether ``op`` is linear, reads ``name``, and alone reads its weight."""
    if _linear(graph, op) is None:
        return False
    is_activation = op.inputs(QUANTIZABLE_OPS[op.type].activation) == [name]
    return is_activation and graph.only_reader(_weight(op)) is not None


def _linear(graph: Graph, op: Op) -> LinearOp | None:
    rank = len(graph.dims(op.output()) or ())
    return linear_op(op, rank, graph.model)


def _weight(op: Op) -> str:
    return op.input(QUANTIZABLE_OPS[op.type].weight)
