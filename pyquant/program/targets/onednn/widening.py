"""Feature maps with room for the channels of zeros by which convolutions pad integers.

Concatenating channels to a convolution's input copies all of it. If convolutions computed that
input, and only ops that keep channels apart lie between, they can write more channels instead, with
weights of zeros.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ...folding.affine import Vector, affine_reader
from ...graph import Graph
from ...names import WIDENED
from ...op import Op
from ...op_facts import ACTIVATIONS, Fact, has
from ...parameters import Array
from ...quantizable import WeightedOp
from ...weights import QuantizedWeight
from .fusion import FusedOp

_RANK, _CHANNEL_AXIS = 4, 1


@dataclass
class Family:
    """Feature maps of the same channels: all of them get more, or none.

    Attributes:
        written_by: the positions of the convolutions that compute them.
        read_by: the positions of the convolutions that read them.
        constants: by an op's position, what it adds to them or multiplies them by, one value per
            channel.
    """

    feature_maps: set[str] = field(default_factory=set)
    written_by: set[int] = field(default_factory=set)
    read_by: set[int] = field(default_factory=set)
    constants: dict[int, str] = field(default_factory=dict)


def find_family(
    graph: Graph,
    fused: Mapping[int, FusedOp],
    bordered: Collection[int],
    name: str,
    end: int | None = None,
) -> Family | None:
    """Return the family of a feature map if its added channels can be zeros, None if they cannot.

    ``fused`` maps the position of each op to the int8 op that it joins. ``bordered`` are the
    positions of the convolutions that read channels of zeros, ``end`` is that of an op that takes
    more channels of the feature map without belonging to the family.
    """
    search = _Search(graph, fused, end)
    if not search.take(name) or not search.is_zero(name):
        return None
    gaining = len(search.family.read_by.intersection(bordered)) + (end is not None)
    return search.family if len(search.whole_feature_maps) <= _MOST_WIDENED * gaining else None


class _Search:
    """A family that grows until no op ties one of its feature maps to one outside."""

    def __init__(self, graph: Graph, fused: Mapping[int, FusedOp], end: int | None) -> None:
        self.family = Family()
        self._graph = graph
        self._fused = fused
        self._end = end

    def take(self, name: str) -> bool:
        """Add a feature map and all that are tied to it; return whether that is possible."""
        pending = [name]
        while pending:
            name = pending.pop()
            if name in self.family.feature_maps:
                continue
            producer = self._graph.producer(name)
            if producer is None or self._channels(name) <= 0 or self._graph.is_kept(name):
                return False
            self.family.feature_maps.add(name)
            for position in {producer, *self._graph.readers(name)} - {self._end}:
                tied = self._tied(position, name)
                if tied is None:
                    return False
                pending += tied
        return True

    def is_zero(self, name: str) -> bool:
        """Return whether the channels added to a feature map of the family would be zeros."""
        position = self._graph.producer(name)
        assert position is not None
        fused, op = self._fused.get(position), self._graph.ops[position]
        if fused is not None:
            return fused.activation.keeps_zero
        if position in self.family.written_by:
            return True
        feature_maps = self._feature_maps(op)
        if op.type == "elementwise_mul":
            return len(feature_maps) == 1 or any(map(self.is_zero, feature_maps))
        is_added_to_all = op.type == "elementwise_add" and len(feature_maps) == 1
        if is_added_to_all and position not in self.family.constants:
            return False
        return _keeps_zero(op) and all(map(self.is_zero, feature_maps))

    @property
    def whole_feature_maps(self) -> list[str]:
        """What convolutions would compute more of, except feature maps of one position."""
        ops = (self._graph.ops[position] for position in self.family.written_by)
        outputs = (op.output() for op in ops)
        return [name for name in outputs if (self._graph.dims(name) or [])[2:] != [1, 1]]

    def _tied(self, position: int, name: str) -> list[str] | None:
        """Return the tensors that an op ties to the family, None if the op rules that out."""
        op, fused = self._graph.ops[position], self._fused.get(position)
        if fused is not None and (fused.residual is not None or fused.op.op_type != "conv2d"):
            return None
        if op.type == "conv2d" or fused is not None:
            return self._tied_by_convolution(position, name)
        if not has(op.type, Fact.CHANNELWISE) or not _is_of_channels_first(op):
            return None
        feature_maps, operands = self._feature_maps(op), 2 if has(op.type, Fact.ARITHMETIC) else 1
        if len(op.reads()) != operands or not feature_maps:
            return None
        if len(feature_maps) != operands and not self._take_constant(position, feature_maps[0]):
            return None
        if len({self._channels(feature_map) for feature_map in feature_maps}) != 1:
            return None
        return [*feature_maps, *op.writes()]

    def _tied_by_convolution(self, position: int, name: str) -> list[str] | None:
        fused = self._fused.get(position)
        place = position if fused is None else fused.op.position
        op = self._graph.ops[place]
        filters = self._graph.model.parameters.get(op.input("Filter"))
        groups = op.geometry().groups
        has_bias = len(op.reads()) > len(("Input", "Filter"))
        if filters is None or groups != 1 or has_bias or not _is_of_channels_first(op):
            return None
        is_read = name in op.inputs("Input")
        (self.family.read_by if is_read else self.family.written_by).add(place)
        return []

    def _take_constant(self, position: int, feature_map: str) -> bool:
        """Take what an op adds to a feature map, or multiplies it by; return whether it can."""
        op, parameters = self._graph.ops[position], self._graph.model.parameters
        if affine_reader(self._graph, position, feature_map, _CHANNEL_AXIS) is None:
            return False
        name = next(name for name in op.reads() if name in parameters)
        if parameters[name].size > 1:
            self.family.constants[position] = name
        return True

    def _feature_maps(self, op: Op) -> list[str]:
        return [name for name in op.reads() if name not in self._graph.model.parameters]

    def _channels(self, name: str) -> int:
        dims = self._graph.dims(name) or ()
        return dims[_CHANNEL_AXIS] if len(dims) == _RANK else 0


@dataclass
class Linear:
    """The name of an int8 op's weight, and its bias: float64 of one value or of one per channel."""

    weight: str
    bias: Vector


class Widening:
    """Gives families of feature maps more channels, and changes all its arguments by that.

    ``linear`` has the int8 ops by position; ``weights`` gets the new weights; ``in_float`` are the
    float ops whose weights are stored as integers, by number, which get the new weights.
    """

    def __init__(
        self,
        graph: Graph,
        linear: Mapping[int, Linear],
        weights: dict[str, QuantizedWeight],
        in_float: dict[int, WeightedOp],
    ) -> None:
        self._graph = graph
        self._linear = linear
        self._weights = weights
        self._in_float = in_float

    def widen(self, family: Family, count: int, bordered: Collection[int]) -> None:
        """Give the feature maps of a family ``count`` more channels, of zeros.

        Their readers ignore these, except for the convolutions at the positions ``bordered``, whose
        weights are to come.
        """
        for name in family.feature_maps:
            self._graph.add_channels(name, count)
        for position, name in family.constants.items():
            longer = _with_zeros(self._graph.model.parameters[name], count)
            widened = self._graph.add_parameter(f"{name}{WIDENED}", longer)
            self._graph.rename_input(position, name, widened)
        for position in sorted(family.written_by | family.read_by):
            outputs = count if position in family.written_by else 0
            inputs = count if position in family.read_by.difference(bordered) else 0
            linear = self._linear.get(position)
            if linear is not None:
                channels = self._weights[linear.weight].stored.shape[0]
                linear.bias = np.pad(np.broadcast_to(linear.bias, channels), (0, outputs))
                linear.weight = self._with_zeros(linear.weight, outputs, inputs)
            else:
                self._widen_in_float(position, outputs, inputs)

    def _widen_in_float(self, position: int, outputs: int, inputs: int) -> None:
        (old,) = self._graph.ops[position].inputs("Filter")
        op = self._in_float.get(position)
        if op is not None:
            new = self._with_zeros(op.weight, outputs, inputs)
            self._in_float[position] = replace(op, weight=new)
        else:
            values = self._graph.model.made(old)
            added = [(0, outputs), (0, inputs)] + [(0, 0)] * (values.ndim - 2)
            new = self._graph.add_parameter(f"{old}{WIDENED}", np.pad(values, added))
        self._graph.rename_input(position, old, new)

    def _with_zeros(self, name: str, outputs: int, inputs: int) -> str:
        if not outputs and not inputs:
            return name
        weight = self._weights[name].with_zeros(outputs, inputs)
        return add_weight(self._graph, self._weights, f"{name}{WIDENED}", weight)


def add_weight(
    graph: Graph, weights: dict[str, QuantizedWeight], name: str, weight: QuantizedWeight
) -> str:
    """Add a weight to a program and to ``weights``, and return its name, which may differ."""
    name = graph.add_parameter(name, weight.stored)
    weights[name] = replace(weight, name=name)
    return name


def _with_zeros(constant: Array, count: int) -> Array:
    (axis,) = (axis for axis, size in enumerate(constant.shape) if size > 1)
    return np.pad(constant, [(0, count if i == axis else 0) for i in range(constant.ndim)])


def _is_of_channels_first(op: Op) -> bool:
    layouts = (op.attr(name, "NCHW") for name in ("data_format", "data_layout"))
    return all(layout in ("NCHW", "AnyLayout") for layout in layouts)


def _keeps_zero(op: Op) -> bool:
    if op.type == "scale":
        return not op.attr("bias", 0.0)
    read = ACTIVATIONS.get(op.type)
    activation = None if read is None else read(op)
    return activation is None or activation.keeps_zero


_MOST_WIDENED = 2
"""How many convolutions may get more outputs for each one that reads zeros."""
