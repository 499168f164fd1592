"""Int8 programs of oneDNN's own ops: ``quantize``, ``fused_conv2d``, ``fc`` and ``dequantize``.

These are what Paddle's int8 passes make of a QDQ program when a Predictor loads it. Written at
once, they need no passes, run wherever oneDNN is enabled (2.6 and 3.x), and say what the passes
cannot: activations of any zero point, the right scales of fc, residuals that are signed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from ..graph import Graph
from ..misfusion import keep_apart
from ..model import Model
from ..names import BORDERED, DEQUANTIZED, EQUALIZED, QUANTIZED, RECIPROCALS
from ..op import Op
from ..parameters import Array
from ..products import PRODUCTS
from ..quantizable import CONVOLUTIONS, WeightedOp, located
from ..ranges import Grid, Range, fitted_grid, symmetric_grid
from ..rewrite import Rewriter, make_multiplication, reciprocals_of
from ..saturation import HALVED_BITS, is_halved, without_saturation
from ..weights import QuantizedWeight
from .accumulation import Accumulation
from .flow import Flow
from .fusion import FusedOp, fuse
from .in_place import write_in_place
from .ops import (
    ENABLED,
    data_type,
    make_binary,
    make_concat,
    make_dequantize,
    make_fused,
    make_quantize,
    make_requantize,
    make_zeros,
)
from .widening import Family, Widening, add_weight, find_family


class OneDnnWriter:
    """Puts int8 ops of oneDNN into a program."""

    def __init__(self, model: Model, ops: Sequence[WeightedOp]) -> None:
        """Plan the int8 program.

        Args:
            model: the float model.
            ops: what becomes int8, all in the main block.
        """
        self._model = model
        self._ops = ops
        self._graph = Graph(model)
        fused = [self._fuse(op) for op in ops]
        self._fused = sorted(fused, key=lambda one: one.position)
        self._flow = Flow(self._graph, self._fused)
        self._grids: dict[str, Grid] = {}
        self._quantized: dict[str, str] = {}
        self._floats: dict[str, str] = {}
        self._factors: Mapping[str, Array] = {}
        self._weights: dict[str, QuantizedWeight] = {}

    @property
    def observed(self) -> Collection[str]:
        """The tensors whose ranges have to be known."""
        names = dict.fromkeys(one.op.activation for one in self._fused)
        for name, one in self._flow.direct.items():
            # A sum of integers may have none but float readers once fewer ops are int8.
            is_sum = one.residual is not None
            if is_sum or names.keys().isdisjoint(self._flow.carried_from(name)):
                names[name] = None
        for accumulation in self._flow.accumulations:
            _, _, image, factor, scaled, base, output = accumulation
            names |= dict.fromkeys((image, factor, scaled, self._flow.source_of(base), output))
        return list(names)

    @property
    def accumulated(self) -> set[str]:
        """The images that are multiplied and added as integers."""
        return {one.image for one in self._flow.accumulations}

    def bits(self, name: str, given: Range) -> int:
        """Return of how many bits a signed integer would be with as fine a step for a tensor.

        Args:
            name: the tensor.
            given: its range, nothing cut.
        """
        root = self._flow.scale_groups.get(name, name)
        if root in self._flow.direct or root in self._flow.symmetric:
            return 9 if self._flow.is_unsigned(root, self._flow.scale_groups) else 8
        smaller, larger = sorted((-given.minimum, given.maximum))
        is_fine = smaller <= 0 or (self._flow.takes_zero_point(name) and smaller < larger / 3)
        return 9 if is_fine else 8

    def takes_factors(self, name: str) -> bool:
        """Return whether an activation can be divided by factors before it becomes integers."""
        return name not in self._flow.scale_groups and name not in self._flow.symmetric

    def without_saturation(
        self, weights: Mapping[str, QuantizedWeight], ranges: Mapping[str, Range]
    ) -> dict[str, QuantizedWeight]:
        """Return weights, by their names, as integers that are multiplied exactly everywhere.

        Args:
            weights: of the ops.
            ranges: of the tensors of `observed`.
        """
        suited = dict(weights)
        for one in self._fused:
            name, desc = one.op.weight, self._graph.ops[one.op.position]
            is_unsigned = self._input_grid(one, ranges).unsigned
            suited[name] = without_saturation(suited[name], one.op, desc, is_unsigned)
        return suited

    def write(
        self,
        ranges: Mapping[str, Range],
        weights: Mapping[str, QuantizedWeight],
        weight_only: Sequence[WeightedOp],
        factors: Mapping[str, Array],
    ) -> None:
        """Replace the ops.

        Args:
            ranges: of the tensors of `observed`.
            weights: of the ops, by the weights' names.
            weight_only: ops that stay in float but for their weight.
            factors: by which activations are divided before they become integers, float32 of
                one value per channel; the ranges and the weights are those behind that.
        """
        self._factors = factors
        self._weights = dict(weights)
        weight_only = self._make_room(ranges, weight_only)
        # In the order of the program: what several ops read is quantized in front of the first.
        made: list[tuple[int, Callable[[], None]]] = [
            *((one.position, partial(self._emit, one, ranges)) for one in self._fused),
            *(
                (one.product, partial(self._multiply, one, ranges))
                for one in self._flow.accumulations
            ),
            *(
                (
                    self._flow.computed_as_integers.get(one.base, one.sum),
                    partial(self._add, one, ranges),
                )
                for one in self._flow.accumulations
            ),
        ]
        for _, emit in sorted(made, key=itemgetter(0)):
            emit()
        self._enable_carriers()
        self._graph.write_back()
        rewriter = Rewriter(self._model)
        outputs = {one.op.output: one.output for one in self._fused}
        ops = [one.op for one in self._fused]
        written = located(self._model, [*ops, *weight_only], outputs)
        rewriter.dequantize_weights_by_scale(self._weights, written)
        rewriter.apply()
        write_in_place(self._model)
        keep_apart(self._model)

    def _enable_carriers(self) -> None:
        """Let what moves integers be oneDNN's, also where no pass of Paddle's does that."""
        for position, carried in self._flow.carriers.items():
            if carried.output in self._flow.scale_groups:
                for attribute, value in ENABLED.items():
                    self._graph.ops[position].set_attr(attribute, value)

    def _fuse(self, op: WeightedOp) -> FusedOp:
        channels = self._model.parameters[op.weight].shape[op.channel_axis]
        return fuse(self._graph, op, 1 if op.op_type in CONVOLUTIONS else -1, channels)

    def grid(self, name: str, given: Range) -> Grid:
        """Return the integers of a tensor of `observed` whose range is given."""
        root = self._flow.scale_groups.get(name, name)
        if root in self._flow.direct or root in self._flow.symmetric:
            return symmetric_grid(given, self._flow.is_unsigned(root, self._flow.scale_groups))
        if self._flow.takes_zero_point(root):
            return fitted_grid(given)
        return symmetric_grid(given, given.minimum >= 0)

    def steps(self, ranges: Mapping[str, Range]) -> dict[str, float]:
        """Return the steps of the integers of `observed`, of these ranges."""
        return {name: 1 / self._grid_of(name, ranges).factor for name in ranges}

    def _grid_of(self, name: str, ranges: Mapping[str, Range]) -> Grid:
        root = self._flow.scale_groups.get(name, name)
        if root not in self._grids:
            of_one_scale = [
                other for other, known in self._flow.scale_groups.items() if known == root
            ]
            others = of_one_scale or [root if root in ranges else self._flow.source_of(root)]
            found = [ranges[other] for other in others if other in ranges]
            self._grids[root] = self.grid(root, max(found, key=lambda one: one.threshold))
        return self._grids[root]

    def _input_grid(self, one: FusedOp, ranges: Mapping[str, Range]) -> Grid:
        """Return the integers that an op reads."""
        grid = self._grid_of(one.op.activation, ranges)
        return grid.shifted() if self._flow.is_shifted(one.op) else grid

    def _emit(self, one: FusedOp, ranges: Mapping[str, Range]) -> None:
        weight = self._weights[one.op.weight]
        grid = self._input_grid(one, ranges)
        if grid.zero_point and one.op.position in self._flow.padded:
            weight, before, source = self._bordered_integers(one, grid, weight)
        else:
            before, source = self._integers(one.op.activation, grid)
        is_direct = one.output in self._flow.direct
        bias = one.bias
        if grid.zero_point:
            bias = bias - grid.zero_point / grid.factor * _sums(weight, one.op.channel_axis)
        attributes: dict[str, Any] = {
            "Scale_in": grid.factor,
            "Scale_weights": _weight_scales(weight, is_halved(one.op, grid.unsigned)),
            "Scale_out": self._grid_of(one.output, ranges).factor if is_direct else 1.0,
            "force_fp32_output": not is_direct and one.residual is None,
        }
        inputs = {"Input": [source]}
        if bias.any() or one.op.op_type in PRODUCTS:  # an int8 pass asks for that of every fc
            vector = np.broadcast_to(bias, weight.stored.shape[one.op.channel_axis])
            name = self._graph.add_parameter(f"{one.output}.bias", vector.astype(np.float32))
            inputs["Bias"] = [name]
        if one.residual is not None:
            attributes["fuse_residual_connection"] = True
            residual = one.residual if is_direct else self._floats.get(one.residual, one.residual)
            inputs["ResidualData"] = [residual]
            factor = self._grid_of(one.residual, ranges).factor if is_direct else 1.0
            attributes["Scale_in_eltwise"] = factor
        rank = len(self._graph.dims(one.output) or ())
        desc = self._graph.ops[one.op.position]
        made = make_fused(desc, one, inputs, attributes, rank, self._flow.is_shifted(one.op))
        after = self._dequantize(one.output, ranges) if is_direct else []
        for position in one.replaced:
            self._graph.remove(position)
        self._graph.replace(one.position, *before, made, *after)

    def _multiply(self, one: Accumulation, ranges: Mapping[str, Range]) -> None:
        names = one.image, one.factor, one.scaled
        self._emit_binary(one.product, "fused_elementwise_mul", names, ranges)

    def _add(self, one: Accumulation, ranges: Mapping[str, Range]) -> None:
        names = one.scaled, one.base, one.output
        self._emit_binary(one.sum, "fused_elementwise_add", names, ranges)

    def _emit_binary(
        self, position: int, op_type: str, names: tuple[str, str, str], ranges: Mapping[str, Range]
    ) -> None:
        """Compute with integers what an op reads, the first of which are integers already."""
        x, y, output = names
        grids = [self._grid_of(name, ranges) for name in names]
        before, source = self._integers(y, grids[1])
        made = make_binary(op_type, (x, source, output), grids)
        self._graph.replace(position, *before, made)

    def _integers(self, name: str, grid: Grid) -> tuple[list[Op], str]:
        """Return ops that quantize ``name``, if they are needed, and the integers' name."""
        if name in self._flow.scale_groups and not grid.zero_point:
            return [], name
        if (
            name not in self._quantized
            and name in self._flow.computed_as_integers
            and name not in self._factors
        ):
            self._quantized[name] = self._carry(name, grid)
        if name in self._quantized:
            return [], self._quantized[name]
        if name in self._flow.scale_groups:
            shifted, self._quantized[name] = self._shift(name, grid)
            return [shifted], self._quantized[name]
        divided, source = self._divided(name)
        quantized, self._quantized[name] = self._quantize(source, name, grid)
        return [*divided, quantized], self._quantized[name]

    def _bordered_integers(
        self, one: FusedOp, grid: Grid, weight: QuantizedWeight
    ) -> tuple[QuantizedWeight, list[Any], str]:
        """Return what lets a convolution pad integers that have a zero point.

        The zeros that it puts around them do not stand for zero. With more channels, all of zeros,
        whose weights let each tap's add up to nothing, that does not matter: a tap adds the sum of
        its weights times the zero point inside, and nothing outside.

        Returns:
            The weight with more channels, ops, and the name of as many integers.
        """
        name = one.op.activation
        weight = weight.with_sums_of_zero(grid.zero_point)
        dims = list(self._graph.dims(name) or ())
        weight = weight.with_zeros(0, max(0, dims[1] - weight.stored.shape[1]))
        filters = add_weight(self._graph, self._weights, f"{one.op.weight}{BORDERED}", weight)
        one.op, weight = replace(one.op, weight=filters), self._weights[filters]
        zeros = weight.stored.shape[1] - dims[1]
        if not zeros:
            return weight, *self._integers(name, grid)
        position = self._flow.computed_as_integers.get(name)
        if position is not None and self._is_of_channels(position) and self._is_alone(name):
            return weight, [], self._carry(name, grid, zeros)
        made, source = self._integers(name, grid)
        dims[1] += zeros
        added, others = self._zeros(source, name, zeros, grid)
        output = self._graph.add_tensor(f"{name}{BORDERED}", dims, data_type(grid))
        return weight, [*made, *added, make_concat((source, others), output)], output

    def _make_room(
        self, ranges: Mapping[str, Range], weight_only: Sequence[WeightedOp]
    ) -> list[WeightedOp]:
        """Let images have channels of zeros from the start where bordered convolutions read them.

        Returns:
            ``weight_only``, with the weights that they have then.
        """
        bordered = {
            one.op.position: one
            for one in self._fused
            if one.op.position in self._flow.padded and self._input_grid(one, ranges).zero_point
        }
        families: dict[frozenset[str], tuple[Family, int]] = {}
        for one in bordered.values():
            family = self._family(one, bordered.keys())
            if family is not None:
                key = frozenset(family.images)
                others = families[key][1] if key in families else 0
                zero_point = self._input_grid(one, ranges).zero_point
                needed = self._weights[one.op.weight].inputs_for_sums_of_zero(zero_point)
                families[key] = family, max(others, needed)
        in_float = {op.position: op for op in weight_only if op.block == 0}
        widening = Widening(self._graph, self._flow.adds, self._weights, in_float)
        for family, count in families.values():
            widening.widen(family, count, bordered.keys())
        return [in_float[op.position] if op.block == 0 else op for op in weight_only]

    def _family(self, one: FusedOp, bordered: Collection[int]) -> Family | None:
        """Return the images that are to have channels of zeros for a bordered convolution."""
        name, end, others = one.op.activation, None, []
        position = self._flow.computed_as_integers.get(name)
        if position is not None and self._is_of_channels(position) and self._is_alone(name):
            *others, name = self._flow.carriers[position].inputs
            end = position
        family = find_family(self._graph, self._flow.adds, bordered, name, end)
        if family is None or not family.images.isdisjoint([*others, *self._factors]):
            return None
        if end is not None:
            family.images.add(one.op.activation)
        return family

    def _is_of_channels(self, position: int) -> bool:
        op = self._graph.ops[position]
        *_, last = self._flow.carriers[position].inputs
        is_of_channels = op.type == "concat" and op.attr("axis", 0) == 1
        return is_of_channels and (self._graph.dims(last) or [0, 0])[1] > 0

    def _is_alone(self, name: str) -> bool:
        return len(self._graph.readers(name)) == 1 and name not in self._factors

    def _zeros(self, like: str, name: str, count: int, grid: Grid) -> tuple[list[Op], str]:
        """Return ops that make ``count`` channels of zeros, and the name of their integers.

        Args:
            like: integers of as many positions.
            name: the floats that they stand for.
            count: the channels.
            grid: of the integers.
        """
        dims = list(self._graph.dims(name) or ())
        filters = np.zeros((count, dims[1], 1, 1), np.float32)
        dims[1] = count
        floats = self._graph.add_tensor(f"{name}.zeros", dims)
        weight = self._graph.add_parameter(f"{floats}.w", filters)
        made = make_zeros(like, weight, floats, count)
        quantized, output = self._quantize(floats, floats, grid)
        return [made, quantized], output

    def _carry(self, name: str, grid: Grid, zeros: int = 0) -> str:
        """Let the op that computes ``name`` take integers; return what it then writes.

        Args:
            name: a tensor that is to be computed of integers.
            grid: of the integers.
            zeros: how many channels of zeros are concatenated, too.
        """
        position = self._flow.computed_as_integers[name]
        op = self._graph.ops[position].copy()
        before = []
        for source in dict.fromkeys(self._flow.carriers[position].inputs):
            if source in self._flow.computed_as_integers:
                output = self._carry(source, grid)
            else:
                made, output = self._quantize(source, source, grid)
                before.append(made)
            op.rename_inputs({source: output})
        dims = list(self._graph.dims(name) or ())
        if zeros:
            added, others = self._zeros(output, source, zeros, grid)
            before += added
            op.set_inputs("X", [*op.inputs("X"), others])
            dims[1] += zeros
        output = self._graph.add_tensor(f"{name}{QUANTIZED}", dims, data_type(grid))
        op.rename_outputs({name: output})
        for attribute, value in ENABLED.items():
            op.set_attr(attribute, value)
        self._graph.replace(position, *before, op)
        return output

    def _quantize(self, source: str, name: str, grid: Grid) -> tuple[Op, str]:
        """Return an op that makes integers of ``source``, which stands for ``name``."""
        output = self._graph.add_variable(f"{name}{QUANTIZED}", name, data_type(grid))
        return make_quantize(source, output, grid), output

    def _shift(self, name: str, grid: Grid) -> tuple[Op, str]:
        """Return an op that adds the zero point to integers without one, and its output."""
        output = self._graph.add_variable(f"{name}.shifted", name, data_type(grid))
        return make_requantize(name, output, grid), output

    def _divided(self, name: str) -> tuple[list[Op], str]:
        """Return the op that divides ``name`` by its factors, if it has any, and its output."""
        if name not in self._factors:
            return [], name
        reader = next(op for op in self._ops if op.activation == name)
        values = reciprocals_of(reader, self._factors[name])
        reciprocals = self._graph.add_parameter(f"{name}{RECIPROCALS}", values)
        output = self._graph.add_variable(f"{name}{EQUALIZED}", name)
        return [make_multiplication(name, reciprocals, output)], output

    def _dequantize(self, name: str, ranges: Mapping[str, Range]) -> list[Op]:
        """Return ops that make ``name`` float again, for what reads it in float."""
        readers = [p for p in self._graph.readers(name) if not self._reads_directly(p, name)]
        if not readers:
            return []
        output = self._graph.add_variable(f"{name}{DEQUANTIZED}", name)
        self._floats[name] = output
        for position in readers:
            self._graph.rename_input(position, name, output)
        return [make_dequantize(name, output, self._grid_of(name, ranges))]

    def _reads_directly(self, position: int, name: str) -> bool:
        adds = self._flow.adds.get(position)
        if adds is not None and adds.residual == name:
            return adds.output in self._flow.direct
        return self._flow.reads_int8(position, name)


def _weight_scales(weight: QuantizedWeight, halved: bool) -> list[float]:
    """Return by what a kernel multiplies the channels of a weight to make them integers.

    Integers that it may halve are doubled.
    """
    doubled = 2 if halved and weight.bits <= HALVED_BITS else 1
    scales: list[float] = (doubled / weight.step.astype(np.float64)).tolist()
    return scales


def _sums(weight: QuantizedWeight, channel_axis: int) -> Any:
    """Return the sums of the dequantized weight, one per channel."""
    others = tuple(axis for axis in range(weight.stored.ndim) if axis != channel_axis)
    totals = [part.sum(axis=others, dtype=np.int64) for part in weight.values.chunks()]
    summed = np.concatenate(totals) if channel_axis == 0 else np.sum(totals, axis=0)
    return summed * weight.step.astype(np.float64)
