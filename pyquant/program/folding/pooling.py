"""Moves global average poolings from behind pointwise convolutions to in front of them.

The mean of a linear op's output is its output for the mean. If the op reads fewer channels than it
writes, there is less to pool, and its output loses a reader for which it had to be float.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..graph import Graph
from ..model import Model
from ..op import Op
from .affine import affine_reader

_CHANNEL_AXIS = 1


class Pooled(NamedTuple):
    """A pointwise convolution of ``source`` whose output, ``feature_map``, is pooled."""

    ops: list[int]  # the positions of the convolution and of the addition of its bias, if any
    pooling: int  # the position
    source: str
    feature_map: str


def move_poolings(
    model: Model, untouched: Collection[str], feature_maps: Collection[str] | None = None
) -> set[str]:
    """Pool the inputs of pointwise convolutions instead of their outputs; return the new tensors.

    The program is changed, but for ops that read or write a tensor of ``untouched``.
    ``feature_maps`` are the outputs that are no longer to be pooled; None for all.
    """
    graph = Graph(model, untouched)
    made: set[str] = set()
    for position in sorted(graph.ops):
        pooled = _pooled(graph, position)
        if pooled is None or (feature_maps is not None and pooled.feature_map not in feature_maps):
            continue
        if _names(graph, [*pooled.ops, pooled.pooling]).isdisjoint(untouched):
            made |= _pool_first(graph, pooled)
    if made:
        graph.write_back()
    return made


def _names(graph: Graph, positions: Collection[int]) -> set[str]:
    ops = [graph.ops[position] for position in positions]
    return {name for op in ops for name in (*op.reads(), *op.writes())}


def _pool_first(graph: Graph, pooled: Pooled) -> set[str]:
    """Pool the convolution's input, and apply copies of its ops to that; return the new tensors."""
    pooling = graph.ops[pooled.pooling].copy()
    output = pooling.output()
    channels = (graph.dims(pooled.source) or [])[:2]
    last = graph.add_tensor(f"{output}.before", [*channels, 1, 1])
    made, made_names = [pooling], {last}
    pooling.rename_inputs({pooled.feature_map: pooled.source})
    pooling.rename_outputs({output: last})
    source = pooled.source
    for position in pooled.ops:
        op = graph.ops[position].copy()
        op.rename_inputs({source: last})
        source = op.output()
        last = output
        if position != pooled.ops[-1]:
            last = graph.add_variable(f"{output}.product", output)
            made_names.add(last)
        op.rename_outputs({source: last})
        made.append(op)
    graph.replace(pooled.pooling, *made)
    return made_names


def _pooled(graph: Graph, position: int) -> Pooled | None:
    op = graph.ops[position]
    if not _is_pointwise(graph, op):
        return None
    source, feature_map = op.input("Input"), op.output()
    ops = [position]
    addition = graph.only_reader(feature_map)
    if addition is not None and _adds_bias(graph, addition, feature_map):
        ops.append(addition)
        feature_map = graph.ops[addition].output()
    inputs, outputs = graph.dims(source), graph.dims(feature_map)
    if graph.is_kept(feature_map) or inputs is None or outputs is None:
        return None
    if len(outputs) != len(inputs) or inputs[1] >= outputs[1]:
        return None
    poolings = [reader for reader in graph.readers(feature_map) if _pools_all(graph.ops[reader])]
    return Pooled(ops, poolings[0], source, feature_map) if len(poolings) == 1 else None


def _is_pointwise(graph: Graph, op: Op) -> bool:
    if op.type != "conv2d" or op.geometry().pads or len(op.reads()) != len(("x", "w")):
        return False
    weight = graph.model.parameters.get(op.input("Filter"))
    return weight is not None and tuple(weight.shape[2:]) == (1, 1) and op.geometry().is_dense


def _adds_bias(graph: Graph, position: int, feature_map: str) -> bool:
    op = graph.ops[position]
    if op.type != "elementwise_add":
        return False
    return affine_reader(graph, position, feature_map, _CHANNEL_AXIS) is not None


def _pools_all(op: Op) -> bool:
    """Return whether an op computes the means of whole channels."""
    if op.type != "pool2d" or op.attr("pooling_type", "max") != "avg":
        return False
    if len(op.reads()) != 1:
        return False
    is_adaptive = op.attr("adaptive", False)
    to_one = is_adaptive and list(op.ints("ksize")) == [1, 1]
    is_global = to_one or op.attr("global_pooling", False)
    return is_global and op.attr("data_format", "NCHW") == "NCHW"
