"""Rewrites x + x * s, as in squeeze-and-excitation with a shortcut, to x * (s + 1).

The addition is then to the few values of s.
"""

from __future__ import annotations

from itertools import permutations

from ..graph import Graph
from .affine import make_scale
from .rule import Scope


def factor_out(graph: Graph, scope: Scope) -> set[str]:
    """Replace x + x * s by x * (s + 1) where s is smaller than x; return the new tensors."""
    made = set()
    for position in sorted(graph.ops):
        found = _product_added_to_itself(graph, position)
        if found is not None:
            made.add(_replace(graph, position, *found))
    return made


def _replace(graph: Graph, position: int, product: int, s: str) -> str:
    """Compute s + 1 at ``product``, and multiply by it at ``position``; return its name."""
    multiply = graph.ops[product].copy()
    output = graph.ops[position].output()
    factor = graph.add_variable(f"{output}.factor", s)
    multiply.rename_inputs({s: factor})
    multiply.rename_outputs({multiply.output(): output})
    graph.replace(product, make_scale(s, factor, 1.0, 1.0))
    graph.replace(position, multiply)
    return factor


def _product_added_to_itself(graph: Graph, position: int) -> tuple[int, str] | None:
    """If an op adds x to x * s, return the position of the product, and s."""
    op = graph.ops[position]
    if op.type != "elementwise_add":
        return None
    for product, x in permutations(op.operands()):
        producer = graph.producer(product)
        if producer is None or graph.only_reader(product) != position:
            continue
        multiply = graph.ops[producer]
        if multiply.type != "elementwise_mul" or x not in multiply.operands():
            continue
        s = multiply.operand_beside(x)
        if graph.is_kept(x) or graph.is_kept(s):
            continue
        if _is_smaller(graph.dims(s), graph.dims(x)):
            return producer, s
    return None


def _is_smaller(dims: list[int] | None, than: list[int] | None) -> bool:
    """Return whether a tensor of the same rank is broadcast to ``than``."""
    if dims is None or than is None or len(dims) != len(than):
        return False
    return all(a in (1, b) for a, b in zip(dims, than)) and dims != than
