"""Images that are enlarged and concatenated: concatenated first, as far as they are of one size.

Nearest values are only copied, so that the result is the same, and fewer large images are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import proto
from ..graph import Graph
from ..model import Model
from .carriers import carrier


class _Part(NamedTuple):
    """A part of a concatenation.

    Attributes:
        source: what is enlarged, or the part itself.
        factor: by which it is enlarged; 1 if it is not.
        position: of the op that does so.
    """

    source: str
    factor: int
    position: int | None


def enlarge_together(model: Model) -> None:
    """Let concatenations of the main block enlarge several of their parts at once."""
    graph = Graph(model)
    for position in sorted(graph.ops):
        parts = _parts(graph, position) if position in graph.ops else []
        if sum(part.factor > 1 for part in parts) > 1 and _are_nested(parts):
            _Concatenation(graph, position, parts).replace()
    if graph.is_edited:
        graph.write_back()


def _parts(graph: Graph, position: int) -> list[_Part]:
    """Return the parts of a concatenation of images' channels, nothing of other ops."""
    op = graph.ops[position]
    moved = carrier(op)
    if op.type != "concat" or moved is None or int(proto.attribute(op, "axis", 0)) != 1:
        return []
    return [_part(graph, name, position) for name in moved.inputs]


def _part(graph: Graph, name: str, reader: int) -> _Part:
    producer = graph.producer(name)
    if producer is None or graph.only_reader(name) != reader:
        return _Part(name, 1, None)
    source, factor = _enlarged(graph.ops[producer])
    # What is written twice may be another value where the concatenation is.
    if factor == 1 or graph.is_kept(source):
        return _Part(name, 1, None)
    return _Part(source, factor, producer)


def _enlarged(op: Any) -> tuple[str, int]:
    """Return what an op enlarges, and how many times; 1 if it does something else."""
    moved = carrier(op)
    factors = set(proto.attribute(op, "scale", ())) if op.type == "nearest_interp_v2" else set()
    is_of_size = any(proto.attribute(op, name, -1) > 0 for name in ("out_d", "out_h", "out_w"))
    if moved is None or len(factors) != 1 or is_of_size:
        return "", 1
    factor = float(factors.pop())
    return moved.inputs[0], int(factor) if factor.is_integer() and factor > 1 else 1


def _are_nested(parts: Sequence[_Part]) -> bool:
    """Return whether the factors fall, or rise, each a multiple of the next smaller one."""
    factors = [part.factor for part in parts]
    return any(
        all(larger % smaller == 0 for larger, smaller in zip(order, order[1:]))
        for order in (factors, factors[::-1])
    )


class _Concatenation:
    """What takes the place of a concatenation: one that begins with the smallest images."""

    def __init__(self, graph: Graph, position: int, parts: Sequence[_Part]) -> None:
        self._graph = graph
        self._position = position
        self._is_rising = parts[0].factor < parts[-1].factor
        self._parts = parts[::-1] if self._is_rising else parts
        self._output = next(proto.names(graph.ops[position].outputs))
        self._made: list[Any] = []

    def replace(self) -> None:
        """Write it."""
        first, *others = self._parts
        names, factor = [first.source], first.factor
        for part in others:
            if part.factor < factor:
                names, factor = [self._enlarged(names, factor // part.factor)], part.factor
            names.append(part.source)
        last = self._joined(names) if factor == 1 else self._enlarged(names, factor)
        proto.rename(self._made[-1].outputs, {last: self._output})
        enlarged = {part.position for part in self._parts if part.position is not None}
        for position in enlarged:
            self._graph.remove(position)
        self._graph.replace(self._position, *self._made)

    def _joined(self, names: Sequence[str]) -> str:
        """Concatenate parts of one size."""
        if len(names) == 1:
            return names[0]
        dims = [self._graph.desc(name).dims for name in names]
        channels = [one[1] for one in dims]
        total = sum(channels) if min(channels) > 0 else -1
        op = self._graph.ops[self._position]
        ordered = names[::-1] if self._is_rising else names
        return self._add(op, ordered, [dims[0][0], total, *dims[0][2:]])

    def _enlarged(self, names: Sequence[str], factor: int) -> str:
        """Concatenate parts of one size, and enlarge them."""
        name = self._joined(names)
        first, second, *sizes = self._graph.desc(name).dims
        dims = [first, second, *(size * factor if size > 0 else -1 for size in sizes)]
        position = next(part.position for part in self._parts if part.position is not None)
        output = self._add(self._graph.ops[position], [name], dims)
        proto.set_attribute(self._made[-1], "scale", [float(factor)] * len(sizes))
        return output

    def _add(self, like: Any, inputs: Sequence[str], dims: Sequence[int]) -> str:
        op = proto.copy_op(like)
        next(slot for slot in op.inputs if slot.parameter == "X").arguments[:] = inputs
        data_type = self._graph.desc(self._output).data_type
        name = self._graph.add_tensor(f"{self._output}.{len(self._made)}", dims, data_type)
        proto.rename(op.outputs, {next(proto.names(op.outputs)): name})
        self._made.append(op)
        return name
