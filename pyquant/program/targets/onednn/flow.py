"""Which tensors of a program become integers, and which ops write and move them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...graph import Graph
from ...quantizable import CONVOLUTIONS, WeightedOp
from .accumulation import Accumulation, find_accumulations
from .fusion import FusedOp
from .scale_preserving import Carrier, carrier


class Flow:
    """How integers flow between the int8 ops of a program.

    Attributes:
        fused_at: maps the position of each op of the float program to the int8 op that it joins.
        padded: the positions of the int8 ops that pad what they read with zeros.
        carriers: the scale-preserving ops that move integers, by their positions.
        int8_outputs: the int8 ops that write integers, by the tensor that they write.
        accumulations: the accumulations that compute with integers alone.
        scale_groups: maps each integer tensor to the one whose scale it shares. That one is in
            ``int8_outputs``, or the output of an accumulation.
        computed_as_integers: maps a tensor to the position of the op that computes it from tensors
            that are quantized for this.
    """

    def __init__(self, graph: Graph, fused: Sequence[FusedOp]) -> None:
        """Follow the integers through a float program; ``fused`` are in the order of running."""
        self._graph = graph
        self._reads = {one.op.position: one.op.activation for one in fused}
        self.fused_at = {position: one for one in fused for position in one.replaced}
        self.padded = {one.op.position for one in fused if _pads(self._graph, one.op)}
        self._bordered = {
            one.op.position
            for one in fused
            if one.op.position in self.padded and _gains_by_border(self._graph, one.op)
        }
        self.carriers = {
            position: found
            for position, op in self._graph.ops.items()
            if position not in self.fused_at and (found := carrier(op)) is not None
        }
        self.int8_outputs = {one.output: one for one in fused}
        self.accumulations = find_accumulations(graph, self.fused_at.keys())
        self.scale_groups: dict[str, str] = {}
        self._find_direct()
        self.computed_as_integers: dict[str, int] = {}
        for one in fused:
            self._move(one.op.activation, self._reads)
        for accumulation in self.accumulations:
            self._move(accumulation.base, {accumulation.sum: accumulation.base})

    @property
    def symmetric(self) -> set[str]:
        """The tensors whose integers accumulations alone determine: int8 without a zero point.

        A binary op of oneDNN reads and writes one type, and takes no zero point.
        """
        found = {n for one in self.accumulations for n in (one.factor, one.scaled, one.output)}
        return found | {one.base for one in self.accumulations if one.base not in self.scale_groups}

    def source_of(self, name: str) -> str:
        """Return the tensor that ``name`` is upsampled from, or ``name`` if it is not upsampled."""
        position = self._graph.producer(name)
        found = None if position is None else self.carriers.get(position)
        is_upsampled = found is not None and found.enlarges and len(found.inputs) == 1
        return self.source_of(found.inputs[0]) if found is not None and is_upsampled else name

    def _find_direct(self) -> None:
        """Find the ops that write integers, and the scale group of each integer tensor.

        All inputs of a concatenation share one scale, so whether one of them can be integers
        depends on the others. Tensors that cannot are left out until nothing changes.
        """
        carriers = self.carriers
        while True:
            self.scale_groups = self._find_scale_groups(carriers)
            direct = {name: one for name, one in self.int8_outputs.items() if self._is_direct(one)}
            carried = {
                position: found
                for position, found in carriers.items()
                if found.output in self.scale_groups and self._is_read_as_int8(found.output)
            }
            accumulations = [one for one in self.accumulations if self._is_of_integers(one)]
            before = len(self.int8_outputs), len(carriers), len(self.accumulations)
            if before == (len(direct), len(carried), len(accumulations)):
                return
            self.int8_outputs, carriers, self.accumulations = direct, carried, accumulations

    def _find_scale_groups(self, carriers: Mapping[int, Carrier]) -> dict[str, str]:
        scale_groups = {name: name for name in self._written}
        for _, found in sorted(carriers.items()):
            joined = {scale_groups.get(name) for name in found.inputs}
            if None in joined or self._graph.is_kept(found.output):
                continue
            members = [name for name, root in scale_groups.items() if root in joined]
            if len(joined) == 1 or self._can_be_joined(members, scale_groups):
                first = scale_groups[found.inputs[0]]
                scale_groups.update(dict.fromkeys([*members, found.output], first))
        return scale_groups

    def _can_be_joined(self, members: Sequence[str], scale_groups: Mapping[str, str]) -> bool:
        """Return whether the inputs of a concatenation can share one scale.

        A tensor that other ops read as well cannot: its step would be too coarse for them.
        """
        signs = {self.is_unsigned(name, scale_groups) for name in members if name in self._written}
        return len(signs) == 1 and all(len(self._graph.readers(name)) == 1 for name in members)

    @property
    def _written(self) -> list[str]:
        """The tensors that are written as integers with a scale of their own."""
        return [*self.int8_outputs, *(one.output for one in self.accumulations)]

    def _is_of_integers(self, one: Accumulation) -> bool:
        """Return whether an accumulation can compute with integers, and saves time by that.

        It saves none if it has to quantize a tensor as large as the sum.
        """
        if one.feature_map not in self.int8_outputs or self.is_unsigned(
            one.feature_map, self.scale_groups
        ):
            return False
        if one.base in self.scale_groups:
            is_read = not self.is_unsigned(self.scale_groups[one.base], self.scale_groups)
        else:
            is_read = one.base != self.source_of(one.base) and self._is_movable(
                one.base, {one.sum: one.base}
            )
        return is_read and self._is_read_as_int8(one.output)

    def _is_direct(self, one: FusedOp) -> bool:
        """Return whether the op writes integers, which all its readers take as they are."""
        if self._graph.is_kept(one.output):
            return False
        if one.residual is not None:
            # A sum of signed numbers stays in float: nothing clips its range, which is wide.
            return one.activation.function.is_relu and one.residual in self.scale_groups
        carried = self.carried_from(one.output)
        if one.activation.function.is_lopsided and not any(map(self._is_padded, carried)):
            return False
        return self._is_read_as_int8(one.output)

    def _is_read_as_int8(self, name: str) -> bool:
        readers = self._graph.readers(name)
        return bool(readers) and all(self.reads_int8(position, name) for position in readers)

    def reads_int8(self, position: int, name: str) -> bool:
        """Return whether the op at a position takes integers for ``name``."""
        if self._reads.get(position) == name:
            return True
        adds = self.fused_at.get(position)
        if adds is not None:
            return adds.residual == name and adds.activation.function.is_relu
        for one in self.accumulations:
            if position in (one.product, one.sum):
                return name == (one.feature_map if position == one.product else one.base)
        found = self.carriers.get(position)
        return (
            found is not None
            and found.output in self.scale_groups
            and self._is_read_as_int8(found.output)
        )

    def carried_from(self, name: str) -> list[str]:
        """Return ``name`` and the integer tensors that it becomes without a change of scale."""
        found = [name]
        for position in self._graph.readers(name):
            output = self.carriers[position].output if position in self.carriers else None
            if output in self.scale_groups:
                found += self.carried_from(output)
        return found

    def _move(self, name: str, readers: Mapping[int, str]) -> None:
        """Let ``name`` be computed from integers if these are fewer and only ``readers`` read it.

        ``readers`` maps positions to the tensors that they read as integers of one scale.
        """
        position = self._graph.producer(name)
        if position is None or not self._is_movable(name, readers):
            return
        self.computed_as_integers[name] = position
        for source in self.carriers[position].inputs:
            self._move(source, {position: source})

    def _is_movable(self, name: str, readers: Mapping[int, str]) -> bool:
        position = self._graph.producer(name)
        found = None if position is None else self.carriers.get(position)
        if found is None or not found.enlarges or name in self.scale_groups:
            return False
        others = any(readers.get(reader) != name for reader in self._graph.readers(name))
        return not others and not self._graph.is_kept(name)

    def _is_padded(self, name: str) -> bool:
        """Return whether an int8 op pads ``name`` with zeros."""
        return any(self._reads.get(p) == name for p in self._graph.readers(name) & self.padded)

    def takes_zero_point(self, name: str) -> bool:
        """Return whether the readers of ``name`` can compute with a zero point."""
        readers = self._graph.readers(name) & (self.padded - self._bordered)
        return not any(self._reads.get(position) == name for position in readers)

    def reads_int8_as_uint8(self, op: WeightedOp) -> bool:
        """Return whether an int8 op reads signed integers as unsigned ones, which is quicker."""
        sums = {one.output for one in self.accumulations}
        return op.position in self._bordered and self.scale_groups.get(op.activation) in sums

    def is_unsigned(self, name: str, scale_groups: Mapping[str, str]) -> bool:
        """Return whether a tensor that is written as integers with its own scale is unsigned.

        As in GetDstType of conv_function.h and in fc_kernel.cc; a sum has the type of its residual.
        """
        one = self.int8_outputs.get(name)
        if one is None:
            return False
        if one.residual is not None and one.residual in scale_groups:
            return self.is_unsigned(scale_groups[one.residual], scale_groups)
        if one.op.op_type in CONVOLUTIONS:
            return one.activation.function.is_relu
        return one.activation.name == "relu"


def _pads(graph: Graph, op: WeightedOp) -> bool:
    return op.op_type in CONVOLUTIONS and graph.ops[op.position].geometry().pads


def _gains_by_border(graph: Graph, op: WeightedOp) -> bool:
    """Return whether a padded convolution of signed values should read uint8 and more channels.

    Its weights then keep 8 bits (see `saturation`), and it saves time if it is large: without AMX,
    kernels take only uint8, and convert int8 to it. Concatenating an input takes as long as some
    products: 96 to 24 channels of 160 x 160 took 8.6 ms with int8 and 7.1 ms with more channels.
    """
    shape, desc = graph.model.parameters[op.weight].shape, graph.ops[op.position]
    strides = math.prod(desc.geometry().strides)
    dims, products = graph.dims(op.activation) or [0, 0], shape[0] * math.prod(shape[2:]) // strides
    has_groups = dims[1] != shape[1]
    return not has_groups and shape[1] >= _LEAST_INPUTS and bool(products >= _LEAST_PRODUCTS)


_LEAST_INPUTS, _LEAST_PRODUCTS = 16, 100
