"""Cuts a program into segments, each a program of its own that reads what earlier ones computed.

A program is cut where the fewest bytes of activations are alive, as the graph says. The cuts depend
on the program alone. So a model that runs segment by segment computes the same values, however many
of its segments are in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from . import proto
from .model import Model
from .op import Op, make_op, ops_of, replace_ops
from .parameters import Array
from .quantizable import QUANTIZABLE_OPS, declared_size, multiplications_for

LEAST_BYTES = 1 << 27
"""The parameters of a segment: fewer are not worth a Predictor of their own."""

_MOST_TIMES_LEAST = 6  # as far ahead a narrower place is looked for
_ABOUT_AS_NARROW = 1.25  # a place so near to the narrowest one is as good, and comes earlier
_ASSUMED_LENGTH = 64  # of an axis of unknown size that is not the batch

# Ops whose kernels read a weight as it is stored, and the slot of the weight.
_READ_IN_PLACE = {("matmul_v2", "Y"), ("lookup_table_v2", "W")}
_WORTH_AN_INPUT = 1 << 20  # bytes

_PASSED_ON = {
    proto.data_type_of(name) for name in ("float32", "float16", "int32", "int64", "uint8", "bool")
}
"""Types of tensors that a Predictor shows, and takes."""


@dataclass(frozen=True)
class Segment:
    """Consecutive ops of a program.

    Attributes:
        first, end: the positions of its ops, without ``feed`` and ``fetch``.
        inputs: the tensors that it reads, and does not compute.
        outputs: the tensors that it computes, and later segments read.
        parameters: the parameters that it reads.
        parameter_bytes: what these take.
        largest: the op whose parameters take most, by its output, and the bytes.
    """

    first: int
    end: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[str, ...]
    parameter_bytes: int
    largest: tuple[str, int]


class _Flow:
    """Which tensors of a program are alive at which of its places."""

    def __init__(self, model: Model) -> None:
        block = model.program.blocks[0]
        self.model = model
        self.ops = [op for op in ops_of(block) if op.type not in ("feed", "fetch")]
        self.fed = {var.name for var in model.feeds}
        self._variables = {var.name: var for var in block.vars}
        self.last_read: dict[str, int] = {}
        self.written: dict[str, int] = {}
        self.written_again: set[str] = set()
        for position, op in enumerate(self.ops):
            for name in op.reads():
                self.last_read[name] = position
            for name in op.writes():
                if name in self.written or name in self.fed:
                    self.written_again.add(name)
                self.written.setdefault(name, position)

    def is_parameter(self, name: str) -> bool:
        return name in self.model.parameters

    @cached_property
    def alive(self) -> list[set[str]]:
        """Return, for each place in front of an op, what earlier ops computed and later ones read.

        The model's inputs are left out, since they are there anyway.
        """
        alive: set[str] = set()
        found = []
        for position, op in enumerate(self.ops):
            found.append({name for name in alive if self.last_read[name] >= position})
            new = (name for name in op.writes() if not self.is_parameter(name))
            alive = found[-1] | {name for name in new if self.last_read.get(name, -1) > position}
        return found

    def can_pass_on(self, name: str) -> bool:
        """Whether a Predictor can show a tensor, and another one take it."""
        var = self._variables.get(name)
        desc = None if var is None else proto.tensor_desc(var)
        is_known = desc is not None and desc.data_type in _PASSED_ON
        return is_known and name not in self.written_again

    def bytes_of(self, name: str, samples: int = 1, length: int = _ASSUMED_LENGTH) -> int:
        """Return the size of a tensor; ``length`` stands for unknown axes behind the first."""
        var = self._variables.get(name)
        desc = None if var is None else proto.tensor_desc(var)
        dtype = None if desc is None else proto.numpy_dtype(desc.data_type)
        if desc is None or dtype is None:
            return 0
        return int(dtype.itemsize * self.size_of(name, samples, length))

    def size_of(self, name: str, samples: int, length: int) -> int:
        """Return how many values a tensor has; see `bytes_of`."""
        desc = proto.tensor_desc(self._variables[name]) if name in self._variables else None
        dims = [] if desc is None else desc.dims
        return int(declared_size(dims, samples, length))

    def parameters_of(self, op: Op) -> dict[str, int]:
        names = [name for name in dict.fromkeys(op.reads()) if self.is_parameter(name)]
        return {name: self.model.parameters[name].nbytes for name in names}


def why_whole(model: Model) -> str | None:
    """Return why a program cannot be cut, or None if it can, or need not be."""
    return _why_whole(_Flow(model))


def _why_whole(flow: _Flow) -> str | None:
    if len(flow.model.program.blocks) > 1:
        return "it has control flow"
    can_pass_on = cache(flow.can_pass_on)
    if any(all(map(can_pass_on, alive)) for alive in flow.alive[1:]):
        return None
    return "at every place, tensors are alive that cannot be passed on, as lists of tensors"


def cut(model: Model) -> list[Segment]:
    """Return the segments of a program; there is one if it is small, or cannot be cut."""
    flow = _Flow(model)
    ends = [len(flow.ops)] if _why_whole(flow) is not None else _ends(flow)
    starts = [0, *ends[:-1]]
    return [_segment(flow, first, end) for first, end in zip(starts, ends)]


def _ends(flow: _Flow) -> list[int]:
    """Return where the segments end."""
    bytes_of, can_pass_on = cache(flow.bytes_of), cache(flow.can_pass_on)
    widths = [
        sum(map(bytes_of, names)) if all(map(can_pass_on, names)) else None for names in flow.alive
    ]
    sizes = [flow.parameters_of(op) for op in flow.ops]
    ends, first = list[int](), 0
    while (end := _next_end(widths, sizes, first)) is not None:
        ends.append(end)
        first = end
    return [*ends, len(flow.ops)]


def _next_end(
    widths: Sequence[int | None], sizes: Sequence[Mapping[str, int]], first: int
) -> int | None:
    """Return where the segment ends that begins at ``first``; None if it is the last one."""
    candidates: dict[int, int] = {}
    seen: set[str] = set()
    size, most = 0, LEAST_BYTES * _MOST_TIMES_LEAST
    for end in range(first + 1, len(sizes)):
        new = sizes[end - 1].keys() - seen
        seen |= new
        size, width = size + sum(sizes[end - 1][name] for name in new), widths[end]
        if candidates and size > most:
            break
        if size >= LEAST_BYTES and width is not None:
            candidates[end] = width
            most = max(most, size)
    if not candidates:
        return None
    narrow = min(candidates.values()) * _ABOUT_AS_NARROW
    end = next(end for end, width in candidates.items() if width <= narrow)
    rest = {name: size for part in sizes[end:] for name, size in part.items()}
    return end if sum(rest.values()) >= LEAST_BYTES else None


def _segment(flow: _Flow, first: int, end: int) -> Segment:
    ops = flow.ops[first:end]
    computed = dict.fromkeys(name for op in ops for name in op.writes())
    read = dict.fromkeys(name for op in ops for name in op.reads())
    inputs = [
        name
        for name in read
        if (name in flow.fed or flow.written.get(name, end) < first) and not flow.is_parameter(name)
    ]
    outputs = [
        name
        for name in computed
        if flow.last_read.get(name, -1) >= end and not flow.is_parameter(name)
    ]
    parameters = {name: size for op in ops for name, size in flow.parameters_of(op).items()}
    by_op = {op.writes()[0]: sum(flow.parameters_of(op).values()) for op in ops if op.writes()}
    largest = max(by_op, key=by_op.__getitem__, default="")
    return Segment(
        first,
        end,
        tuple(inputs),
        tuple(outputs),
        tuple(parameters),
        sum(parameters.values()),
        (largest, by_op.get(largest, 0)),
    )


def activation_bytes(model: Model, segments: Sequence[Segment], samples: int, length: int) -> int:
    """Return about how much the activations of a batch take, at most, in one of the segments."""
    flow = _Flow(model)
    bytes_of = cache(flow.bytes_of)
    most = 0
    for segment in segments:
        for position in range(segment.first, segment.end):
            names = flow.alive[position] | set(flow.ops[position].writes())
            size = sum(bytes_of(name, samples, length) for name in names)
            most = max(most, size)
    return most


def multiplications(model: Model, segments: Sequence[Segment], samples: int, length: int) -> float:
    """Return about how many multiplications by weights the segments do with a batch."""
    flow = _Flow(model)
    ops = [op for segment in segments for op in flow.ops[segment.first : segment.end]]
    found = 0.0
    for op in ops:
        kind = QUANTIZABLE_OPS.get(op.type)
        if kind is None or kind.is_weight_only:
            continue
        weight = model.parameters.get(op.input(kind.weight))
        if weight is not None and weight.ndim > 1:
            outputs = flow.size_of(op.output(), samples, length)
            found += multiplications_for(outputs, weight, kind.channel_axis)
    return found


def segment_model(model: Model, segment: Segment) -> tuple[Model, dict[str, Array]]:
    """Return a segment as a model, and the weights that are inputs of it.

    A Predictor reads parameters from a file, which would have to be written. Large weights are
    inputs instead: the kernels read them where they lie in the model's own file. The other inputs
    and the outputs are those of the segment.
    """
    every = [op for op in ops_of(model.program.blocks[0]) if op.type not in ("feed", "fetch")]
    ops = every[segment.first : segment.end]
    weights = _read_in_place(model, ops, segment.parameters)
    inputs = (*segment.inputs, *weights)
    names = [name for name in segment.parameters if name not in weights]
    alone = model_of_ops(model, ops, inputs, segment.outputs, names)
    for var in alone.program.blocks[0].vars:
        if var.name in weights:
            var.persistable = False
    return alone, weights


def _read_in_place(model: Model, ops: Sequence[Op], names: Sequence[str]) -> dict[str, Array]:
    """Return large weights that only products and embeddings read, but not all parameters.

    Paddle 2.6 loads no file that holds nothing.
    """
    readers: dict[str, set[tuple[str, str]]] = {name: set() for name in names}
    for op in ops:
        for slot in op.desc.inputs:
            for name in slot.arguments:
                if name in readers:
                    readers[name].add((op.type, slot.parameter))
    made = model.derived.keys() | model.pending.keys()
    found = {
        name: model.parameters[name]
        for name, slots in readers.items()
        if slots <= _READ_IN_PLACE and name not in made
        if model.parameters[name].nbytes >= _WORTH_AN_INPUT
    }
    if len(found) == len(names):
        smallest = min(found, key=lambda name: found[name].nbytes, default="")
        found.pop(smallest, None)
    return found


def model_of_ops(
    model: Model,
    ops: Sequence[Op],
    inputs: Sequence[str],
    outputs: Sequence[str],
    names: Iterable[str],
) -> Model:
    """Return some ops of a model as a model; ``names`` are those of the parameters they read.

    Pending parameters are made one by one when the model is written.
    """
    whole = model.program.blocks[0]
    program = proto.ProgramDesc()
    program.CopyFrom(model.program)
    block = program.blocks[0]
    ops = [op.copy() for op in ops]
    used = {name for op in ops for name in (*op.reads(), *op.writes())}
    kept = [var for var in whole.vars if var.name in used]
    del block.vars[:]
    block.vars.extend(kept)
    for name, kind in (("feed", proto.FEED_LIST), ("fetch", proto.FETCH_LIST)):
        proto.add_list_var(block, name, kind)
    feeds = [
        make_op("feed", {"X": ["feed"]}, {"Out": [name]}, {"col": column})
        for column, name in enumerate(inputs)
    ]
    fetches = [
        make_op("fetch", {"X": [name]}, {"Out": ["fetch"]}, {"col": column})
        for column, name in enumerate(outputs)
    ]
    replace_ops(block, [*feeds, *ops, *fetches])
    parameters, derived = {}, {}
    for name in names:
        parameters[name] = model.parameters[name]
        if name in model.derived:
            derived[name] = model.derived[name]
        elif name in model.pending:
            derived[name] = model.made_when_written(name)
    return replace(
        model,
        program=program,
        parameters=parameters,
        derived=derived,
        pending={},
        folded=None,
        pir=None,
        origin=None,
    )
