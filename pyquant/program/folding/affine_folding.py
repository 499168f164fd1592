"""Folds multiplications by constants and additions of them, as in batch_norm, into linear ops.

They go into the weight and the bias of the linear op before or behind them. Two linear ops in a row
become one where that is cheaper. What would not be exact but for rounding is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..graph import Graph
from ..model import Pending
from ..op import Op
from ..parameters import Array
from .addition import make_addition
from .affine import (
    AFFINE_OP_TYPES,
    IDENTITY,
    Affine,
    AffineOp,
    Vector,
    affine_reader,
    make_scale,
)
from .linear import LINEAR_OP_TYPES, LinearOp, linear_op
from .rule import Scope

# Additions are divided by the factors of channels only if these differ by at most this ratio: the
# factors multiply the quotient's rounding error again.
_MOST_UNEVEN = 1e3


def fold_affine(graph: Graph, scope: Scope) -> set[str]:
    """Fold affine ops into the linear ops around them, and several in a row into one.

    Ops stay where another op needs the tensor between, where a channel does not lie along one axis,
    and where an addition would reach padded zeros.
    """
    rescaled: set[str] = set()
    linear = {
        position: found
        for position, op in graph.ops.items()
        if op.type in LINEAR_OP_TYPES and not scope.touches(op)
        if (found := _linear(graph, op)) is not None
    }
    changed = {position for position in linear if _fold_following(graph, linear[position])}
    changed |= _compose(graph, linear)
    changed &= linear.keys()
    changed |= _fold_preceding(graph, linear, scope.shifts, rescaled)
    for position in changed:
        _emit(graph, position, linear[position], rescaled)
    _join_scalars(graph)
    return rescaled


def _linear(graph: Graph, op: Op) -> LinearOp | None:
    rank = _rank(graph, op.output())
    return None if rank is None else linear_op(op, rank, graph.model)


def _fold_following(graph: Graph, linear: LinearOp) -> bool:
    """Fold the affine ops behind ``linear`` into it; return whether there were any."""
    start = linear.output
    while (position := graph.only_reader(linear.output)) is not None:
        found = _affine(graph, position, linear.channel_axis)
        if found is None or not found.affine.fits(linear.outputs):
            break
        linear.take_following(found.affine)
        graph.remove(position)
        linear.output = found.output
    return linear.output != start


def _compose(graph: Graph, linear: dict[int, LinearOp]) -> set[int]:
    """Replace two linear ops by one if it takes fewer multiplications; return the new positions."""
    made: set[int] = set()
    for position in sorted(linear):
        first = linear[position]
        following = graph.only_reader(first.output)
        if following not in linear or graph.is_kept(first.source):
            continue
        composed = linear[following].composed_with(first)
        if composed is not None:
            linear[following] = _put_one(graph, (position, following), linear, *composed)
            del linear[position]
            made.add(following)
    return made


def _put_one(
    graph: Graph,
    positions: tuple[int, int],
    linear: Mapping[int, LinearOp],
    weight: Array,
    like_first: bool,
) -> LinearOp:
    """Replace two ops by one of ``weight``, and return it."""
    first, last = (linear[position] for position in positions)
    name = graph.add_parameter(f"{last.weight}.{last.output}", weight)
    product = graph.ops[positions[1]].output()
    like, old = (positions[0], first) if like_first else (positions[1], last)
    op = graph.ops[like].copy()
    op.rename_inputs({old.source: first.source, old.weight: name})
    op.rename_outputs({op.output(): product})
    graph.remove(positions[0])
    graph.replace(positions[1], op)
    one = _linear(graph, op)
    assert one is not None
    last.take_preceding(Affine(IDENTITY.scale, first.bias))
    one.take_following(Affine(IDENTITY.scale, last.bias))
    one.output = last.output
    return one


def _fold_preceding(
    graph: Graph, linear: Mapping[int, LinearOp], shifts: bool, rescaled: set[str]
) -> set[int]:
    """Fold affine ops into the linear ops behind them; return the positions of the changed ones.

    Adds the tensors whose values change to ``rescaled``.
    """
    changed: set[int] = set()
    for name in dict.fromkeys(op.source for op in linear.values()):
        positions = graph.readers(name)
        readers = [linear[position] for position in positions if position in linear]
        if graph.is_kept(name) or any(op.source != name for op in readers):
            continue
        axes = {op.channel_axis for op in readers}
        if len(readers) < len(positions) or len(axes) != 1:
            continue
        chain = _chain_to(graph, name, axes.pop())
        if chain and _fold_chain(graph, chain, readers, shifts):
            changed |= positions
            if graph.producer(name) is not None:  # one op of the chain is left
                rescaled.add(name)
    return changed


def _fold_chain(
    graph: Graph, chain: Mapping[int, AffineOp], readers: list[LinearOp], shifts: bool
) -> bool:
    total = _composed(chain)
    if not all(total.fits(op.inputs) for op in readers):
        return False
    source, output = _ends(chain)
    if total.shift.any() and not (shifts and all(op.takes_shift for op in readers)):
        if len(chain) == 1 or not _divides(total.scale):
            return False
        _replace(graph, chain, Affine(IDENTITY.scale, total.shift / total.scale), readers[0])
        total = Affine(total.scale, IDENTITY.shift)
    else:
        for position in chain:
            graph.remove(position)
        graph.read_instead(output, source)
        for op in readers:
            op.source = source
    for op in readers:
        op.take_preceding(total)
    return True


def _join_scalars(graph: Graph) -> None:
    """Replace several ``scale`` ops in a row by one, or by none if they do nothing."""
    for position in sorted(graph.ops, reverse=True):
        if position not in graph.ops:
            continue
        output = next(iter(graph.ops[position].writes()), "")
        chain = _chain_to(graph, output, 0)
        if position not in chain or not _composed(chain).is_scalar:
            continue
        source, output = _ends(chain)
        does_nothing = all((part == whole).all() for part, whole in zip(_composed(chain), IDENTITY))
        if does_nothing and not graph.is_kept(output) and not graph.is_kept(source):
            for removed in chain:
                graph.remove(removed)
            graph.read_instead(output, source)
        elif len(chain) > 1:
            _replace(graph, chain, _composed(chain), None)


def _chain_to(graph: Graph, name: str, channel_axis: int) -> dict[int, AffineOp]:
    """Return the chain of affine ops that computes ``name``, in order, by their positions."""
    chain: dict[int, AffineOp] = {}
    position = graph.producer(name)
    while position is not None and (found := _affine(graph, position, channel_axis)) is not None:
        if chain and graph.only_reader(found.output) is None:
            break
        chain = {position: found, **chain}
        position = graph.producer(found.source)
    return chain


def _composed(chain: Mapping[int, AffineOp]) -> Affine:
    total = IDENTITY
    for found in chain.values():
        total = total.then(found.affine)
    return total


def _ends(chain: Mapping[int, AffineOp]) -> tuple[str, str]:
    ops = list(chain.values())
    return ops[0].source, ops[-1].output


def _divides(scale: Vector) -> bool:
    magnitudes = np.abs(scale)
    return bool(magnitudes.min() * _MOST_UNEVEN > magnitudes.max())


def _replace(
    graph: Graph, chain: Mapping[int, AffineOp], affine: Affine, reader: LinearOp | None
) -> None:
    """Replace ``chain`` by one op that computes ``affine``."""
    source, output = _ends(chain)
    for position in chain:
        graph.remove(position)
    if affine.is_scalar:
        scale, shift = float(affine.scale[0]), float(affine.shift[0])
        op = make_scale(source, output, scale, shift)
    else:
        assert reader is not None
        op = make_addition(graph, source, output, affine.shift, reader.channel_axis)
    graph.replace(list(chain)[-1], op)


def _emit(graph: Graph, position: int, linear: LinearOp, rescaled: set[str]) -> None:
    """Write a changed linear op into the program; its output without bias joins ``rescaled``."""
    op = graph.ops[position].copy()
    if linear.is_rescaled:
        _store(graph, position, linear, op)
    if not linear.bias.any():
        op.rename_outputs({op.output(): linear.output})
        graph.replace(position, op)
        return
    product = op.output()
    rescaled.add(product)
    if product == linear.output:
        product = graph.add_variable(f"{product}.product", linear.output)
        op.rename_outputs({linear.output: product})
    bias = np.broadcast_to(linear.bias, linear.outputs)
    add = make_addition(graph, product, linear.output, bias, linear.channel_axis)
    graph.replace(position, op, add)


def _store(graph: Graph, position: int, linear: LinearOp, op: Op) -> None:
    name, stored = linear.weight, graph.model.yet_to_be_made(linear.weight).stored
    if graph.only_reader(name) != position:
        name = graph.add_parameter(f"{name}.{linear.output}", graph.model.parameters[name])
        op.rename_inputs({linear.weight: name})
    graph.model.postpone(name, Pending(stored, lambda: linear.values))


def _affine(graph: Graph, position: int, channel_axis: int) -> AffineOp | None:
    """Read an op as affine, if its output has the rank of its input."""
    op, parameters = graph.ops[position], graph.model.parameters
    if op.type not in AFFINE_OP_TYPES:
        return None
    source = next((name for name in op.reads() if name not in parameters), "")
    found = affine_reader(graph, position, source, channel_axis)
    return found if found and _rank(graph, found.output) == _rank(graph, source) else None


def _rank(graph: Graph, name: str) -> int | None:
    dims = graph.dims(name)
    return len(dims) if dims else None
