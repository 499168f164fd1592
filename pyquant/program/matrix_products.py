"""Matrix products with a weight: which of them Paddle fuses to ``fc``, and with which bias.

Only as ``fc`` does a product run as int8 on the CPU (``gpu_cpu_map_matmul_v2_to_mul_pass.cc``,
``gpu_cpu_map_matmul_to_mul_pass.cc``, ``fc_fuse_pass.cc``, ``fc_onednn_pass.cc``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .graph import Graph
from .model import Model
from .op import Op
from .op_facts import Fact, has
from .quantizable import WeightedOp

PRODUCTS = ("mul", "matmul", "matmul_v2")

_ACTIVATION_RANKS = (2, 3)
_WANTED_ATTRIBUTES: Mapping[str, Mapping[str, Any]] = {
    "mul": {"y_num_col_dims": 1},
    "matmul": {"transpose_X": False, "transpose_Y": False, "alpha": 1.0},
    "matmul_v2": {"trans_x": False, "trans_y": False},
}


def is_fc(op: WeightedOp, desc: Op, rank: int, weight_rank: int) -> bool:
    """Return whether Paddle fuses a product, ``desc``, to ``fc``; ``rank`` is its activation's."""
    wanted = _WANTED_ATTRIBUTES[op.op_type].items()
    if any(desc.attr(name, value) != value for name, value in wanted):
        return False
    if weight_rank != 2 or rank not in _ACTIVATION_RANKS:
        return False
    return op.op_type != "mul" or bool(desc.attr("x_num_col_dims", 1) == rank - 1)


def _misreads_feature_map(op: WeightedOp, producers: Mapping[str, Op], dims: Sequence[int]) -> bool:
    """Return whether a product is wrong under oneDNN if its weight is computed.

    If the weight is a parameter, Paddle uses another op. Otherwise the kernel of ``matmul_v2``
    reads a feature map as if it lay in order, although convolutions write the channels of a
    position beside one another (3.3.1; even if the weight is a parameter read transposed).
    ``dims`` are those of the activation.
    """
    if op.op_type not in PRODUCTS or len(dims) < _FEATURE_MAP_RANK:
        return False
    pending, seen = [op.activation], set()
    while pending:
        name = pending.pop()
        producer = producers.get(name)
        if name in seen or producer is None or has(producer.type, Fact.WRITES_IN_ORDER):
            continue
        if has(producer.type, Fact.WRITES_BLOCKS):
            return True
        seen.add(name)
        pending += producer.reads()
    return False


def why_misread(model: Model, ops: Iterable[WeightedOp]) -> dict[WeightedOp, str]:
    """Return why some of ``ops`` have to keep their weight as a float parameter."""
    producers, dims = model.producers(), model.dims()
    return {
        op: f"oneDNN would read feature map '{op.activation}' wrongly if its weight were computed"
        for op in ops
        if _misreads_feature_map(op, producers, dims.get(op.activation, ()))
    }


_FEATURE_MAP_RANK = 4


@dataclass(frozen=True)
class Bias:
    """The addition of a bias, the parameter ``name``, behind a product."""

    number: int  # of the ``elementwise_add``
    name: str
    output: str
    is_shared: bool  # whether other ops read the bias as well


def find_biases(graph: Graph) -> dict[int, Bias]:
    """Return the biases that ``fc`` can fuse, by the number of a product without other readers."""
    ops = [(block, number, graph.op(number)) for block, number in graph.in_order()]
    reads = Counter(name for _, _, op in ops for name in op.reads())
    writes = Counter(name for _, _, op in ops for name in op.writes())
    producers = {(block, name): number for block, number, op in ops for name in op.writes()}
    biases = {}
    for block, number, op in ops:
        if op.type != "elementwise_add":
            continue
        product, name = op.operands()
        (output,) = op.outputs("Out")
        is_last_axis = op.attr("axis", -1) in (-1, len(graph.dims(product) or ()) - 1)
        is_alone = reads[product] == writes[product] == writes[output] == 1
        if is_last_axis and is_alone and _is_vector(graph.model, name):
            biases[producers.get((block, product), -1)] = Bias(
                number, name, output, reads[name] > 1
            )
    return biases


def _is_vector(model: Model, name: str) -> bool:
    array: Any = model.parameters.get(name)
    return array is not None and array.ndim == 1 and array.dtype == np.float32
