"""The ops of a program as a graph that can be edited: who writes a tensor, and who reads it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from . import proto
from .model import Model
from .op import Op, ops_of, replace_ops


class Graph:
    """The main block of a program under edits, which `write_back` carries out.

    An op is known by its position in the block, which it keeps while others go.

    Attributes:
        model: whose program it is.
        ops: the ops that are left, by position. An entry may be set, or deleted by `remove`.
        is_edited: whether an op was removed or replaced.
    """

    def __init__(self, model: Model, keep: Collection[str] = ()) -> None:
        """Make the graph.

        Args:
            model: its program, which stays as it is until `write_back`.
            keep: tensors that must go on to be computed under their names.
        """
        self.model = model
        self.is_edited = False
        self.ops: dict[int, Op] = {
            position: op.copy() for position, op in enumerate(ops_of(model.program.blocks[0]))
        }
        self._after: dict[int, list[Op]] = {}
        self._producers: dict[str, int] = {}
        self._readers: defaultdict[str, set[int]] = defaultdict(set)
        for position, op in self.ops.items():
            self._link(position, op)
        self._variables = {var.name: var for block in model.program.blocks for var in block.vars}
        self._kept = {*keep, *_kept(model)}
        self._unused = self._variables.keys() - set(_names(model))

    def dims(self, name: str) -> list[int] | None:
        """Return the declared dims of a tensor of float32, None of anything else."""
        var = self._variables.get(name)
        desc = None if var is None else proto.tensor_desc(var)
        if desc is None or desc.data_type != proto.FP32:
            return None
        return list(desc.dims)

    def producer(self, name: str) -> int | None:
        """Return the position of the op that writes ``name``, None if it is an input."""
        return self._producers.get(name)

    def readers(self, name: str) -> set[int]:
        """Return the positions of the ops that read ``name``."""
        return set(self._readers[name])

    def only_reader(self, name: str) -> int | None:
        """Return the position of the op that alone reads ``name``, if nothing else needs it."""
        readers = self._readers[name]
        return next(iter(readers)) if len(readers) == 1 and not self.is_kept(name) else None

    def is_kept(self, name: str) -> bool:
        """Return whether ``name`` must stay: asked for, written twice, or used elsewhere."""
        return name in self._kept

    def remove(self, position: int) -> None:
        """Remove an op; what it wrote is written no more."""
        self.is_edited = True
        op = self.ops.pop(position)
        for name in set(op.reads()):
            self._readers[name].discard(position)
        for name in op.writes():
            self._producers.pop(name, None)

    def read_instead(self, old: str, new: str) -> None:
        """Let the readers of ``old`` read ``new``."""
        for position in self.readers(old):
            self.ops[position].rename_inputs({old: new})
            self._readers[new].add(position)
        self._readers[old].clear()

    def rename_input(self, position: int, old: str, new: str) -> None:
        """Let one op read ``new`` in place of ``old``."""
        self.ops[position].rename_inputs({old: new})
        self._readers[old].discard(position)
        self._readers[new].add(position)

    def replace(self, position: int, *ops: Op) -> None:
        """Put ``ops`` in the place of an op; its position is then that of the first one."""
        if position in self.ops:
            self.remove(position)
        self.ops[position] = ops[0]
        self._after[position] = list(ops[1:])
        for op in ops:
            self._link(position, op)

    def add_parameter(self, name: str, array: Any) -> str:
        """Add a parameter and return its name, which is ``name`` unless that is taken."""
        name = self._declare(name, proto.paddle_dtype(array.dtype), array.shape)
        self._variables[name].persistable = True
        self.model.parameters[name] = array
        return name

    def add_variable(self, name: str, like: str, data_type: int = proto.FP32) -> str:
        """Add a tensor of the shape of ``like`` and return its name, as `add_parameter`."""
        return self._declare(name, data_type, proto.tensor_desc(self._variables[like]).dims)

    def add_tensor(self, name: str, dims: Iterable[int], data_type: int = proto.FP32) -> str:
        """Add a tensor and return its name, as `add_parameter`."""
        return self._declare(name, data_type, dims)

    def add_channels(self, name: str, count: int) -> None:
        """Declare ``count`` channels more, along axis 1, of a tensor."""
        proto.tensor_desc(self._variables[name]).dims[1] += count

    def make_parameter(self, name: str, array: Any) -> None:
        """Let what an op computed so far be a parameter."""
        var = self._variables[name]
        var.persistable = True
        del proto.tensor_desc(var).dims[:]
        proto.tensor_desc(var).dims.extend(array.shape)
        self.model.parameters[name] = array

    def write_back(self) -> None:
        """Rebuild the block of the ops that are left; drop variables that none uses any more."""
        block = self.model.program.blocks[0]
        ops = []
        for position, op in sorted(self.ops.items()):
            ops += [op, *self._after.get(position, ())]
        replace_ops(block, ops)
        used = self._unused.union(_names(self.model))
        for index in reversed(range(len(block.vars))):
            if block.vars[index].name not in used:
                self.model.parameters.pop(block.vars[index].name, None)
                self.model.pending.pop(block.vars[index].name, None)
                del block.vars[index]

    def _declare(self, name: str, data_type: int, dims: Iterable[int]) -> str:
        if name in self._variables:
            name = f"{name}.{len(self._variables)}"
        block = self.model.program.blocks[0]
        self._variables[name] = proto.add_var(block, name, data_type, dims)
        return name

    def _link(self, position: int, op: Op) -> None:
        for name in op.reads():
            self._readers[name].add(position)
        for name in op.writes():
            self._producers[name] = position


def _kept(model: Model) -> Iterable[str]:
    """Return what is written more than once, and what other blocks or the user may read."""
    writes = model.writes()
    yield from (name for name, count in writes.items() if count > 1)
    yield from model.fetches
    for block in list(model.program.blocks)[1:]:
        for op in ops_of(block):
            yield from (*op.reads(), *op.writes())
    for op in ops_of(model.program.blocks[0]):
        if op.has_block():
            yield from (*op.reads(), *op.writes())


def _names(model: Model) -> Iterable[str]:
    for op in model.ops():
        yield from op.reads()
        yield from op.writes()
