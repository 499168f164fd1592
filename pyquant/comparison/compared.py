"""Which tensors of a model tell how near its int8 run is, and which parts of them by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from ..program import proto
from ..program.model import Model, copy_model
from ..program.op import Op, make_op
from ..program.op_facts import Fact, has
from ..program.parameters import Array
from ..program.reshaped import axes_after

LEAST_POWER = 1e-4
"""A hundredth of the range of a sigmoid, squared."""


class Compared(NamedTuple):
    """A part of a tensor whose error is taken by itself.

    Attributes:
        name: of the tensor.
        axis: along which the part lies.
        start: of the part along that axis.
        stop: None for the end.
        least: the power that each value counts as at least. A sigmoid may be near 0 throughout.
    """

    name: str
    axis: int = 0
    start: int = 0
    stop: int | None = None
    least: float = 0.0

    def of(self, array: Array) -> Array:
        """Return the part of the tensor's values."""
        if (self.start, self.stop) == (0, None):
            return array  # which may have no axis
        part: Array = np.moveaxis(array, self.axis, 0)[self.start : self.stop]
        return part

    def __str__(self) -> str:
        """Name the part."""
        if (self.start, self.stop) == (0, None):
            return self.name
        return f"{self.name}[{':, ' * self.axis}{self.start}:{self.stop}]"


def compared_parts(model: Model) -> list[Compared]:
    """Return what is to be compared of a float model and of the int8 models made from it.

    These are its outputs. In the place of an output that values decide, such as the boxes that are
    left or the index of the largest value, it is what they are decided by: a small error may change
    such an output wholly. The parts of a concatenation are compared one by one: a hundred large
    coordinates would hide the errors of scores beside them.
    """
    reader = _Reader(model)
    found = [part for name in reader.deciding(model.fetches) for part in reader.parts(name)]
    return found or [Compared(name) for name in model.fetches]


def showing(model: Model, names: Sequence[str]) -> Model:
    """Return a model with further outputs, those of ``names`` that it does not have."""
    missing = [name for name in names if name not in model.fetches]
    if not missing:
        return model
    shown, outputs = copy_model(model), len(model.fetches)
    block = shown.program.blocks[0]
    (holder,) = {op.output() for op in shown.ops() if op.type == "fetch"}
    for column, name in enumerate(missing, outputs):
        op = make_op("fetch", {"X": [name]}, {"Out": [holder]}, {"col": column})
        block.ops.add().CopyFrom(op.desc)
    return shown


def given_parts(model: Model) -> list[Compared]:
    """Return the parts that the outputs of a model hold: all outputs if they hold none."""
    given = [part for part in compared_parts(model) if part.name in model.fetches]
    return given or [Compared(name) for name in model.fetches]


def before_softmax(model: Model, parts: Sequence[Compared]) -> list[Compared]:
    """Return the parts, with what a softmax reads in the place of what it writes."""
    producers = model.producers()

    def read(part: Compared) -> Compared:
        op = producers.get(part.name)
        return part if op is None or op.type != "softmax" else part._replace(name=op.input("X"))

    return [read(part) for part in parts]


class _Joined(NamedTuple):
    """What is concatenated along an axis."""

    axis: int
    sources: Sequence[str]
    sizes: Sequence[int]

    def is_as(self, other: _Joined | None) -> bool:
        """Return whether parts of the same sizes lie along the same axis."""
        return other is not None and (other.axis, other.sizes) == (self.axis, self.sizes)


class _Reader:
    def __init__(self, model: Model) -> None:
        self._producers, self._dims = model.producers(), model.dims()
        self._computed = {name for op in model.ops() for name in op.reads()} - set(model.parameters)
        self._floats = {
            var.name
            for block in model.program.blocks
            for var in block.vars
            if (desc := proto.tensor_desc(var)) is not None and proto.is_float(desc.data_type)
        }
        self._known: dict[str, _Joined | None] = {}
        self._decided: set[str] = set()  # tensors that are decided by values
        for op in model.ops():
            self._decided.update(name for name in op.writes() if self._is_decided(op, name))

    def _is_decided(self, op: Op, name: str) -> bool:
        read = {source for source in op.reads() if source in self._computed}
        if name not in self._floats:
            return op.type != "shape" and not read.isdisjoint(self._floats | self._decided)
        indices = read.intersection(op.inputs("Index") if has(op.type, Fact.INDEXES) else ())
        if has(op.type, Fact.SELECTS) or not indices.isdisjoint(self._decided):
            return True
        return not read.isdisjoint(self._decided & self._floats)

    def deciding(self, outputs: Sequence[str]) -> Iterator[str]:
        """Yield the outputs that are of floats, and what decides the others."""
        names, seen = list(reversed(outputs)), set[str]()
        while names:
            name = names.pop()
            producer = self._producers.get(name)
            if name in seen or producer is None or producer.type == "feed":
                continue
            seen.add(name)
            if name in self._decided:
                names += [source for source in producer.reads() if source in self._computed]
            elif name in self._floats:
                yield name

    def parts(self, name: str) -> Iterator[Compared]:
        """Yield the parts of a tensor."""
        joined = self._joined(name)
        if joined is None:
            yield Compared(name, least=self._least(name))
            return
        ends = list(accumulate(joined.sizes))
        for source, start, stop in zip(joined.sources, [0, *ends], ends):
            yield Compared(name, joined.axis, start, stop, self._least(source))

    def _joined(self, name: str) -> _Joined | None:
        """Return what a tensor is concatenated of; None if it is not, or if a size may vary."""
        if name not in self._known:
            self._known[name] = None  # an op may write what it reads
            self._known[name] = self._traced(name)
        return self._known[name]

    def _traced(self, name: str) -> _Joined | None:
        op = self._producers.get(name)
        if op is None or not (op.type == "concat" or has(op.type, Fact.RESHAPES)):
            return None
        if op.inputs("AxisTensor"):
            return None
        inputs = [self._joined(source) for source in op.inputs("X")]
        first = inputs[0]
        if op.type != "concat":
            return first and self._reshaped(first, op)
        axis, sizes = op.attr("axis", 0) % len(self._dims[name]), self._sizes(op)
        if first is not None and axis != first.axis and all(map(first.is_as, inputs)):
            return first  # places of a detector are concatenated, behind what it says of each
        return _Joined(axis, op.inputs("X"), sizes) if sizes else None

    def _reshaped(self, joined: _Joined, op: Op) -> _Joined | None:
        axes = axes_after(op, self._dims.get(op.input("X"), []), self._dims.get(op.output(), []))
        return joined._replace(axis=axes.index(joined.axis)) if joined.axis in axes else None

    def _sizes(self, op: Op) -> list[int]:
        """Return the sizes of what an op concatenates; none if one may vary."""
        axis = op.attr("axis", 0)
        sizes = [self._dims[name][axis] for name in op.inputs("X") if self._dims.get(name)]
        return sizes if len(sizes) == len(op.inputs("X")) and min(sizes) > 0 else []

    def _least(self, name: str) -> float:
        producer, seen = self._producers.get(name), {name}
        while producer is not None and _moves(producer):
            name = producer.reads()[0]
            producer = None if name in seen else self._producers.get(name)
            seen.add(name)
        return LEAST_POWER if producer is not None and producer.type == "sigmoid" else 0.0


def _moves(op: Op) -> bool:
    return has(op.type, Fact.RESHAPES) or has(op.type, Fact.CARRIES_SCALE)
