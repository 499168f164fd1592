"""Transposes weights that products read transposed.

Only other products are fused to ``fc`` (see `matrix_products`), which can be int8.
"""

from __future__ import annotations

import numpy as np

from ..graph import Graph
from ..model import Pending
from ..op import Op
from ..parameters import Array
from ..quantizable import QUANTIZABLE_OPS
from .rule import Scope

_MATRIX_RANK = 2
_ROWS_AT_ONCE = 256


def transpose_weights(graph: Graph, scope: Scope) -> set[str]:
    """Transpose the weights that products read transposed, and let them read them as they are.

    A weight that other ops read as well stays, as an embedding does: two would take twice the
    memory. Once it is scaled for the product, that has a weight of its own.
    """
    for position, op in sorted(graph.ops.items()):
        if op.type in QUANTIZABLE_OPS and not scope.touches(op) and _reads_transposed(graph, op):
            _transpose(graph, position)
    return set()


def _reads_transposed(graph: Graph, op: Op) -> bool:
    kind = QUANTIZABLE_OPS[op.type]
    if kind.transpose is None or not op.attr(kind.transpose, False):
        return False
    name = op.input(kind.weight)
    weight = graph.model.parameters.get(name)
    is_matrix = weight is not None and weight.ndim == _MATRIX_RANK
    return is_matrix and graph.only_reader(name) is not None


def _transposed(matrix: Array) -> Array:
    """Return a transposed copy, block by block: otherwise numpy takes more than twice the time."""
    transposed = np.empty(matrix.shape[::-1], matrix.dtype)
    for first in range(0, len(matrix), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        transposed[:, rows] = matrix[rows].T
    return transposed


def _transpose(graph: Graph, position: int) -> None:
    op, model = graph.ops[position].copy(), graph.model
    kind = QUANTIZABLE_OPS[op.type]
    name = op.input(kind.weight)
    weight = model.yet_to_be_made(name)
    made: Array = np.broadcast_to(model.parameters[name].dtype.type(0), weight.stored.shape[::-1])
    transposed = graph.add_parameter(f"{name}.transposed", made)
    model.postpone(transposed, Pending(weight.stored, lambda: _transposed(weight.compute())))
    op.rename_inputs({name: transposed})
    assert kind.transpose is not None
    op.set_attr(kind.transpose, False)
    graph.replace(position, op)
