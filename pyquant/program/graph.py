"""The editor of programs: it knows who writes and who reads each tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from . import proto
from .model import Model
from .op import Op, ops_of, replace_ops
from .parameters import Tensor


class Graph:
    """A program under edits; its ops stay as they are until `write_back`.

    Every op keeps its number. In the main block, that is its position, since this block comes
    first. Added ops get new numbers.

    Attributes:
        ops: the ops of the main block, by number. An entry may be set, or deleted by `remove`.
        branch_ops: the ops of the other blocks, by number. They are no producers or readers:
            instead, the tensors that they read or write are kept (`is_kept`).
        is_edited: whether an op was removed, replaced or added.
    """

    def __init__(self, model: Model, keep: Collection[str] = ()) -> None:
        """Take a model, and the tensors that must still be computed under their names."""
        self.model = model
        self.is_edited = False
        blocks = [[op.copy() for op in ops_of(block)] for block in model.program.blocks]
        self._starts = [0, *accumulate(map(len, blocks))]
        self.ops: dict[int, Op] = dict(enumerate(blocks[0]))
        others = (op for block in blocks[1:] for op in block)
        self.branch_ops: dict[int, Op] = dict(enumerate(others, len(blocks[0])))
        self._next = self._starts[-1]
        self._before: dict[int, list[int]] = {}
        self._after: dict[int, list[int]] = {}
        self._producers: dict[str, int] = {}
        self._readers: defaultdict[str, set[int]] = defaultdict(set)
        for number, op in self.ops.items():
            self._link(number, op)
        self._variables = {var.name: var for block in model.program.blocks for var in block.vars}
        self._taken = frozenset(self._variables)
        self._added: set[tuple[int, str]] = set()
        self._shared: dict[str, str] = {}
        self._kept = {*keep, *_kept(model)}
        self._unused = self._variables.keys() - set(_names(model))

    def number(self, block: int, position: int) -> int:
        """Return the number of the op at a position in a block of the original program."""
        return self._starts[block] + position

    def op(self, number: int) -> Op:
        """Return an op of any block."""
        return self.ops[number] if number in self.ops else self.branch_ops[number]

    def in_order(self) -> Iterator[tuple[int, int]]:
        """Yield the index of its block and the number of each op, in the order of the program."""
        for block, (start, end) in enumerate(zip(self._starts, self._starts[1:])):
            for first in range(start, end):
                for number in self._around(first):
                    yield block, number

    def dims(self, name: str) -> list[int] | None:
        """Return the declared dims of a float32 tensor, None for anything else."""
        var = self._variables.get(name)
        desc = None if var is None else proto.tensor_desc(var)
        if desc is None or desc.data_type != proto.FP32:
            return None
        return list(desc.dims)

    def producer(self, name: str) -> int | None:
        """Return the number of the op that writes ``name``, None if it is an input."""
        return self._producers.get(name)

    def readers(self, name: str) -> set[int]:
        """Return the numbers of the ops that read ``name``."""
        return set(self._readers[name])

    def only_reader(self, name: str) -> int | None:
        """Return the number of the only op that needs ``name``, None if there is no such op."""
        readers = self._readers[name]
        return next(iter(readers)) if len(readers) == 1 and not self.is_kept(name) else None

    def is_kept(self, name: str) -> bool:
        """Return whether ``name`` must stay: it is asked for, written twice, or used elsewhere."""
        return name in self._kept

    def remove(self, number: int) -> None:
        """Remove an op; its outputs then have no producer."""
        self.is_edited = True
        op = self.ops.pop(number)
        for name in set(op.reads()):
            self._readers[name].discard(number)
        for name in op.writes():
            self._producers.pop(name, None)

    def read_instead(self, old: str, new: str) -> None:
        """Let the readers of ``old`` read ``new``."""
        for number in self.readers(old):
            self.rename_input(number, old, new)

    def rename_input(self, number: int, old: str, new: str) -> None:
        """Let one op read ``new`` in place of ``old``."""
        self.op(number).rename_inputs({old: new})
        if number in self.ops:
            self._readers[old].discard(number)
            self._readers[new].add(number)

    def rename_output(self, number: int, old: str, new: str) -> None:
        """Let one op write ``new`` in place of ``old``."""
        self.op(number).rename_outputs({old: new})
        if number in self.ops:
            self._producers.pop(old, None)
            self._producers[new] = number

    def replace(self, number: int, *ops: Op) -> None:
        """Replace an op by ``ops``; the first one gets its number."""
        if number in self.ops:
            self.remove(number)
        self.ops[number] = ops[0]
        self._link(number, ops[0])
        if len(ops) > 1:
            self.insert_after(number, ops[1:])

    def insert_before(self, number: int, ops: Sequence[Op]) -> None:
        self._before.setdefault(number, []).extend(self._add(number, ops))

    def insert_after(self, number: int, ops: Sequence[Op]) -> None:
        self._after.setdefault(number, [])[:0] = self._add(number, ops)

    def add_parameter(self, name: str, tensor: Tensor) -> str:
        """Add a parameter and return its name, which is ``name`` unless that is taken."""
        name = self.add_tensor(name, tensor.shape, proto.paddle_dtype(tensor.dtype))
        self._variables[name].persistable = True
        self.model.put(name, tensor)
        return name

    def shared_parameter(self, name: str, tensor: Tensor) -> str:
        """Add a parameter at the first call with ``name``; return its name at each call."""
        if name not in self._shared:
            self._shared[name] = self.add_parameter(name, tensor)
        return self._shared[name]

    def replace_parameter(self, name: str, tensor: Tensor) -> None:
        """Give a parameter other values, maybe of another type and shape."""
        for block in self.model.program.blocks:
            for var in block.vars:
                if var.name == name:
                    desc = proto.tensor_desc(var)
                    desc.data_type = proto.paddle_dtype(tensor.dtype)
                    desc.dims[:] = tensor.shape
        self.model.put(name, tensor)

    def add_variable(
        self, name: str, like: str, data_type: int = proto.FP32, block: int = 0
    ) -> str:
        """Add a tensor that has the shape of ``like``; return its name as `add_parameter` does."""
        dims = proto.tensor_desc(self._variables[like]).dims
        return self.add_tensor(name, dims, data_type, block)

    def add_tensor(
        self, name: str, dims: Iterable[int], data_type: int = proto.FP32, block: int = 0
    ) -> str:
        """Add a tensor and return its name, as `add_parameter`; blocks may share a name."""
        if self._is_abandoned(name):
            self.model.drop(name)
            self.model.program.blocks[0].vars.remove(self._variables[name])
        elif name in self._taken or (block, name) in self._added:
            name = f"{name}.{len(self._variables)}"
        self._added.add((block, name))
        added = proto.add_var(self.model.program.blocks[block], name, data_type, dims)
        self._variables[name] = added
        return name

    def add_channels(self, name: str, count: int) -> None:
        """Declare ``count`` more channels, along axis 1, of a tensor."""
        proto.tensor_desc(self._variables[name]).dims[1] += count

    def make_parameter(self, name: str, array: Any) -> None:
        """Make a parameter of a tensor that an op computed so far."""
        var = self._variables[name]
        var.persistable = True
        del proto.tensor_desc(var).dims[:]
        proto.tensor_desc(var).dims.extend(array.shape)
        self.model.parameters[name] = array

    def write_back(self) -> None:
        """Rebuild the blocks from the ops that are left; drop variables that became unused."""
        blocks: list[list[Op]] = [[] for _ in self.model.program.blocks]
        for block, number in self.in_order():
            blocks[block].append(self.op(number))
        for desc, ops in zip(self.model.program.blocks, blocks):
            replace_ops(desc, ops)
        used = self._unused.union(_names(self.model))
        main = self.model.program.blocks[0]
        for index in reversed(range(len(main.vars))):
            name = main.vars[index].name
            if name not in used:
                self.model.drop(name)
                del main.vars[index]

    def _around(self, number: int) -> Iterator[int]:
        """Yield the numbers of the ops added before an op, its own if left, and of those after."""
        for other in self._before.get(number, ()):
            yield from self._around(other)
        if number in self.ops or number in self.branch_ops:
            yield number
        for other in self._after.get(number, ()):
            yield from self._around(other)

    def _add(self, anchor: int, ops: Sequence[Op]) -> range:
        self.is_edited = True
        numbers = range(self._next, self._next + len(ops))
        self._next = numbers.stop
        if anchor in self.branch_ops:
            self.branch_ops.update(zip(numbers, ops))
            return numbers
        self.ops.update(zip(numbers, ops))
        for number, op in zip(numbers, ops):
            self._link(number, op)
        return numbers

    def _is_abandoned(self, name: str) -> bool:
        """Return whether ``name`` is a parameter that edits left without a reader."""
        is_parameter = name in self._taken and name in self.model.parameters
        is_used = bool(self._readers[name]) or name in self._kept or name in self._unused
        return is_parameter and not is_used

    def _link(self, number: int, op: Op) -> None:
        for name in op.reads():
            self._readers[name].add(number)
        for name in op.writes():
            self._producers[name] = number


def _kept(model: Model) -> Iterable[str]:
    """Yield tensors that are written more than once, or that other blocks or the user may read."""
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
