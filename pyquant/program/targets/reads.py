"""Activations that are quantized, and by which ops they are read so."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from ..graph import Graph
from ..op import Op
from ..quantizable import QUANTIZABLE_OPS, WeightedOp


class Read(NamedTuple):
    """A tensor that an op reads as integers.

    Attributes:
        block: index of the op's block.
        position: the op's index among the block's ops.
        tensor: what it reads.
    """

    block: int
    position: int
    tensor: str


def reads_of_ops(ops: Sequence[WeightedOp]) -> list[Read]:
    """Return what ops with a weight read as their activation."""
    return [Read(op.block, op.position, op.activation) for op in ops]


def reads_of_types(
    graph: Graph, op_types: Collection[str], skip_tensors: Collection[str]
) -> list[Read]:
    """Return the float activations that ops of these types read, if they have no weight.

    Args:
        graph: the main block.
        op_types: of the ops.
        skip_tensors: an op that reads or writes one of them reads floats.
    """
    return [
        Read(0, position, name)
        for position, op in graph.ops.items()
        if op.type in op_types and not (_has_a_weight(graph, op) or _touches(op, skip_tensors))
        for name in _activations(graph, op)
    ]


def reads_behind(
    graph: Graph,
    ops: Sequence[WeightedOp],
    fused: Collection[str],
    skip_tensors: Collection[str],
) -> list[Read]:
    """Return the reads of what ``ops`` write, and of what fused ops make of that.

    A ``conv2d`` and the bias behind it are one op to whoever runs it: their sum stands for both.

    Args:
        graph: the main block.
        ops: what becomes int8; those of other blocks do not count.
        fused: op types that a runtime fuses to the op in front of them.
        skip_tensors: an op that reads or writes one of them reads floats.
    """
    pending = [op.output for op in ops if op.block == 0]
    seen: set[str] = set()
    reads = []
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        is_inside = _is_only_biased(graph, name)
        for position in sorted(graph.readers(name)):
            op = graph.ops[position]
            if op.type == "fetch" or op.has_block() or _touches(op, skip_tensors):
                continue
            if not is_inside:
                reads.append(Read(0, position, name))
            if op.type in fused:
                pending += op.writes()
                pending += _activations(graph, op)
    return reads


def _is_only_biased(graph: Graph, name: str) -> bool:
    """Return whether a ``conv2d`` wrote a tensor, to which alone a parameter is added."""
    producer, reader = graph.producer(name), graph.only_reader(name)
    if producer is None or reader is None or graph.ops[producer].type != "conv2d":
        return False
    addend = graph.ops[reader].inputs("Y")
    is_sum = graph.ops[reader].type == "elementwise_add"
    return is_sum and any(name in graph.model.parameters for name in addend)


def _activations(graph: Graph, op: Op) -> Iterator[str]:
    for slot in ("X", "Y"):
        for name in op.inputs(slot):
            if graph.dims(name) is not None and name not in graph.model.parameters:
                yield name


def _has_a_weight(graph: Graph, op: Op) -> bool:
    kind = QUANTIZABLE_OPS.get(op.type)
    weights = () if kind is None else op.inputs(kind.weight)
    return any(name in graph.model.parameters for name in weights)


def _touches(op: Op, names: Collection[str]) -> bool:
    return any(name in names for name in (*op.reads(), *op.writes()))
