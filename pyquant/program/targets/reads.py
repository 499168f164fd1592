"""Activations that are quantized, and the ops that read them as integers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from ..graph import Graph
from ..op import Op
from ..op_facts import Fact, has
from ..quantizable import QUANTIZABLE_OPS, WeightedOp


class Read(NamedTuple):
    """A tensor that the op at a position of a block reads as integers."""

    block: int
    position: int
    tensor: str


def reads_of_ops(ops: Sequence[WeightedOp]) -> list[Read]:
    return [Read(op.block, op.position, op.activation) for op in ops]


def reads_of_types(
    graph: Graph, op_types: Collection[str], skip_tensors: Collection[str]
) -> list[Read]:
    """Return the activations that ops of these types read, if they have no weight.

    Ops that read or write one of ``skip_tensors`` are left out.
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
    """Return the reads of the outputs of ``ops``, and of the tensors of ops fused behind them.

    ``fused`` are the op types that a runtime fuses into the op in front. To it, a ``conv2d`` and
    the bias behind it are one op: their sum stands for both. Ops of other blocks, and ops that read
    or write one of ``skip_tensors``, are left out.
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


def reads_of_sums(
    graph: Graph, ops: Sequence[WeightedOp], skip_tensors: Collection[str]
) -> list[Read]:
    """Return the reads of sums of two feature maps of which ``ops`` compute at least one.

    Between an op and the sum, each value may be computed further by itself, and a bias be added.
    Ops that read or write one of ``skip_tensors`` are left out.
    """
    computed = {op.output for op in ops if op.block == 0}
    reads = []
    for position in sorted(graph.ops):
        op = graph.ops[position]
        names = [name for name in _activations(graph, op) if len(graph.dims(name) or ()) == _RANK]
        if computed.isdisjoint(names) or _touches(op, skip_tensors):
            continue
        is_sum = op.type == "elementwise_add"
        if is_sum and len(names) == len(op.reads()):
            reads += [Read(0, position, name) for name in names]
        if is_sum or has(op.type, Fact.PER_VALUE):
            computed.update(op.writes())
    return reads


_RANK = 4  # of feature maps


def _is_only_biased(graph: Graph, name: str) -> bool:
    """Return whether a ``conv2d`` wrote a tensor whose only reader adds a parameter to it."""
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
