"""Int8 programs of oneDNN's own ops: ``quantize``, ``fused_conv2d``, ``fc`` and ``dequantize``.

Paddle's int8 passes turn a QDQ program into these when a Predictor loads it. Written directly, they
need no passes, run wherever oneDNN is enabled (2.6 and 3.x), and express what the passes cannot:
activations with any zero point, the right scales of fc, and signed residuals.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from ...folding.cross_layer_equalization import divide
from ...graph import Graph
from ...matrix_products import PRODUCTS
from ...misfusion import keep_apart
from ...model import Model, copy_model
from ...names import BORDERED, DEQUANTIZED, QUANTIZED
from ...op import Op, make_elementwise
from ...per_token import divide_tokens, multiply_tokens
from ...quantizable import WeightedOp
from ...ranges import Grid
from ...stored_weights import dequantize_by_scale
from ...weights import QuantizedWeight
from ..choices import Choices
from ..saturation import HALVED_BITS, is_halved
from .accumulation import Accumulation
from .flow import Flow
from .fusion import FusedOp
from .grids import Grids
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
from .widening import Family, Linear, Widening, add_weight, find_family


def emit(model: Model, fused: Sequence[FusedOp], flow: Flow, choices: Choices) -> Model:
    """Return the int8 program of a float model; ``fused`` are in the order in which they run."""
    written = copy_model(model)
    _Emitter(Graph(written), fused, flow, choices).emit()
    write_in_place(written)
    keep_apart(written)
    _drop_unread_shapes(written)
    return written


def _drop_unread_shapes(model: Model) -> None:
    """Drop the shapes that ops keep for a backward pass, as reshape2 does.

    The time of ``matmul_transpose_reshape_onednn_fuse_pass`` grows with their number, and with the
    square of the number of ops.
    """
    reads, dropped = model.reads(), set[str]()
    for op in model.ops():
        names = op.outputs("XShape")
        if names and not any(reads[name] for name in names):
            op.remove_output("XShape")
            dropped.update(names)
    for block in model.program.blocks:
        kept = [var for var in block.vars if var.name not in dropped]
        if len(kept) < len(block.vars):
            copies = [type(var).FromString(var.SerializeToString()) for var in kept]
            del block.vars[:]
            block.vars.extend(copies)


class _Emitter:
    """Edits a graph so that its program becomes int8."""

    def __init__(
        self, graph: Graph, fused: Sequence[FusedOp], flow: Flow, choices: Choices
    ) -> None:
        self._graph = graph
        self._fused = fused
        self._flow = flow
        self._choices = choices
        self._grids = Grids(flow, choices.ranges)
        self._weights = dict(choices.weights)
        self._quantized: dict[str, str] = {}
        self._floats: dict[str, str] = {}
        self._token_maxima: dict[str, str] = {}
        self._weight_only = {graph.number(op.block, op.position): op for op in choices.weight_only}
        self._linear = {
            one.op.position: Linear(one.op.weight, one.bias(graph, self._correction(one.op, False)))
            for one in fused
        }

    def _correction(self, op: WeightedOp, of_quotients: bool) -> Any:
        """Return what is added to an op's output, or to the product of quotients, or None."""
        is_per_token = op.activation in self._choices.per_token
        return self._choices.corrections.get(op) if is_per_token == of_quotients else None

    def emit(self) -> None:
        self._make_room()
        # In the order of the program, so that a tensor is quantized in front of its first reader.
        computed, accumulations = self._flow.computed_as_integers, self._flow.accumulations
        made: list[tuple[int, Callable[[], None]]] = [
            *((one.position, partial(self._emit, one)) for one in self._fused),
            *((one.product, partial(self._multiply, one)) for one in accumulations),
            *((computed.get(one.base, one.sum), partial(self._add, one)) for one in accumulations),
        ]
        for _, emit_one in sorted(made, key=itemgetter(0)):
            emit_one()
        self._enable_carriers()
        ops = [
            replace(one.op, position=one.position, weight=self._linear[one.op.position].weight)
            for one in self._fused
        ]
        dequantize_by_scale(self._graph, self._weights, [*ops, *self._weight_only.values()])
        self._graph.write_back()

    def _enable_carriers(self) -> None:
        """Let oneDNN run the ops that move integers, also where no pass of Paddle's does so."""
        for position, carried in self._flow.carriers.items():
            if carried.output in self._flow.scale_groups:
                for attribute, value in ENABLED.items():
                    self._graph.ops[position].set_attr(attribute, value)

    def _emit(self, one: FusedOp) -> None:
        grid, linear = self._grids.of_input(one.op), self._linear[one.op.position]
        is_direct = one.output in self._flow.int8_outputs
        if grid.zero_point and one.op.position in self._flow.padded:
            before, source = self._bordered_integers(one, grid)
        else:
            before, source = self._integers(one.op.activation, grid)
        weight, bias = self._weights[linear.weight], linear.bias
        after = self._dequantize(one.output) if is_direct else []
        maxima = self._token_maxima.get(one.op.activation)
        if maxima is not None:
            correction = self._correction(one.op, True)
            one, after = self._multiplied_tokens(one, maxima, bias)
            bias = np.zeros(1) if correction is None else correction
        if grid.zero_point:
            bias = bias - _zero_point_compensation(weight, grid, one.op.channel_axis)
        desc = self._graph.ops[one.op.position]
        for position in one.replaced:
            self._graph.remove(position)
        attributes: dict[str, Any] = {
            "Scale_in": grid.factor,
            "Scale_weights": _weight_scales(weight, is_halved(one.op, grid.unsigned)),
            "Scale_out": self._grids[one.output].factor if is_direct else 1.0,
            "force_fp32_output": not is_direct and one.residual is None,
        }
        inputs = {"Input": [source]}
        if bias.any() or one.op.op_type in PRODUCTS:  # an int8 pass requires one of every fc
            inputs["Bias"] = [self._bias(one, bias)]
        if one.residual is not None:
            attributes["fuse_residual_connection"] = True
            residual = one.residual if is_direct else self._floats.get(one.residual, one.residual)
            inputs["ResidualData"] = [residual]
            factor = self._grids[one.residual].factor if is_direct else 1.0
            attributes["Scale_in_eltwise"] = factor
        rank = len(self._graph.dims(one.output) or ())
        made = make_fused(
            desc,
            one,
            linear.weight,
            inputs,
            attributes,
            rank,
            self._flow.reads_int8_as_uint8(one.op),
        )
        self._put(one.position, before, made, after)

    def _multiplied_tokens(self, one: FusedOp, maxima: str, bias: Any) -> tuple[FusedOp, list[Op]]:
        """Return the int8 op of an activation whose positions were divided, and what follows it."""
        name, output = one.op.output, one.output
        added = list[Op]()
        if name != output:
            added.append(make_elementwise("elementwise_add", name, self._bias(one, bias), output))
        product, multiplied = multiply_tokens(self._graph, maxima, name)
        return replace(one, output=product), [multiplied, *added]

    def _bias(self, one: FusedOp, bias: Any) -> str:
        """Add a parameter of one value per output channel, and return its name."""
        weight = self._weights[self._linear[one.op.position].weight]
        vector = np.broadcast_to(bias, weight.stored.shape[one.op.channel_axis])
        return self._graph.add_parameter(f"{one.output}.bias", vector.astype(np.float32))

    def _multiply(self, one: Accumulation) -> None:
        names = one.feature_map, one.factor, one.scaled
        self._emit_binary(one.product, "fused_elementwise_mul", names)

    def _add(self, one: Accumulation) -> None:
        names = one.scaled, one.base, one.output
        self._emit_binary(one.sum, "fused_elementwise_add", names)

    def _emit_binary(self, position: int, op_type: str, names: tuple[str, str, str]) -> None:
        """Compute an op with integers; its first input is integers already."""
        x, y, output = names
        grids = [self._grids[name] for name in names]
        before, source = self._integers(y, grids[1])
        self._put(position, before, make_binary(op_type, (x, source, output), grids))

    def _put(self, position: int, before: Sequence[Op], op: Op, after: Sequence[Op] = ()) -> None:
        """Replace the op at a position by ``op``, and put others around it."""
        self._graph.replace(position, op)
        self._graph.insert_before(position, before)
        self._graph.insert_after(position, after)

    def _integers(self, name: str, grid: Grid) -> tuple[list[Op], str]:
        """Return ops that quantize ``name``, if they are needed, and the integers' name."""
        if name in self._flow.scale_groups and not grid.zero_point:
            return [], name
        if (
            name not in self._quantized
            and name in self._flow.computed_as_integers
            and name not in self._choices.factors
        ):
            self._quantized[name] = self._carry(name, grid)
        if name in self._quantized:
            return [], self._quantized[name]
        if name in self._flow.scale_groups:
            shifted, self._quantized[name] = self._add_zero_point(name, grid)
            return [shifted], self._quantized[name]
        ops = (one.op for one in self._fused)
        divided, source = divide(self._graph, name, self._choices.factors, ops)
        if name in self._choices.per_token:
            made, self._token_maxima[name], source = divide_tokens(self._graph, source)
            divided += made
        quantized, self._quantized[name] = self._quantize(source, name, grid)
        return [*divided, quantized], self._quantized[name]

    def _bordered_integers(self, one: FusedOp, grid: Grid) -> tuple[list[Op], str]:
        """Return ops that let a convolution pad integers with a zero point, and the integers' name.

        The integers 0 that it pads do not stand for zero. So channels of zeros are added, whose
        weights make the sum of the weights of each tap zero. Then padding does not matter: a tap
        adds that sum times the zero point inside the feature map, and nothing outside.
        """
        name, linear = one.op.activation, self._linear[one.op.position]
        weight = self._weights[linear.weight].with_sums_of_zero(grid.zero_point)
        dims = list(self._graph.dims(name) or ())
        weight = weight.with_zeros(0, max(0, dims[1] - weight.stored.shape[1]))
        filters = f"{linear.weight}{BORDERED}"
        linear.weight = add_weight(self._graph, self._weights, filters, weight)
        zeros = weight.stored.shape[1] - dims[1]
        if not zeros:
            return self._integers(name, grid)
        position = self._flow.computed_as_integers.get(name)
        if position is not None and self._is_of_channels(position) and self._is_alone(name):
            return [], self._carry(name, grid, zeros)
        made, source = self._integers(name, grid)
        dims[1] += zeros
        added, others = self._zeros(source, name, zeros, grid)
        output = self._graph.add_tensor(f"{name}{BORDERED}", dims, data_type(grid))
        return [*made, *added, make_concat((source, others), output)], output

    def _make_room(self) -> None:
        """Give what bordered convolutions read its channels of zeros from the start."""
        bordered = {
            one.op.position: one
            for one in self._fused
            if one.op.position in self._flow.padded and self._grids.of_input(one.op).zero_point
        }
        families: dict[frozenset[str], tuple[Family, int]] = {}
        for one in bordered.values():
            family = self._family(one, bordered.keys())
            if family is not None:
                key = frozenset(family.feature_maps)
                others = families[key][1] if key in families else 0
                zero_point = self._grids.of_input(one.op).zero_point
                needed = self._weights[one.op.weight].inputs_for_sums_of_zero(zero_point)
                families[key] = family, max(others, needed)
        widening = Widening(self._graph, self._linear, self._weights, self._weight_only)
        for family, count in families.values():
            widening.widen(family, count, bordered.keys())

    def _family(self, one: FusedOp, bordered: Collection[int]) -> Family | None:
        """Return the feature maps that are to get channels of zeros for a bordered convolution."""
        name, end, others = one.op.activation, None, []
        position = self._flow.computed_as_integers.get(name)
        if position is not None and self._is_of_channels(position) and self._is_alone(name):
            *others, name = self._flow.carriers[position].inputs
            end = position
        family = find_family(self._graph, self._flow.fused_at, bordered, name, end)
        if family is None or not family.feature_maps.isdisjoint([*others, *self._choices.factors]):
            return None
        if end is not None:
            family.feature_maps.add(one.op.activation)
        return family

    def _is_of_channels(self, position: int) -> bool:
        op = self._graph.ops[position]
        *_, last = self._flow.carriers[position].inputs
        is_of_channels = op.type == "concat" and op.attr("axis", 0) == 1
        return is_of_channels and (self._graph.dims(last) or [0, 0])[1] > 0

    def _is_alone(self, name: str) -> bool:
        return len(self._graph.readers(name)) == 1 and name not in self._choices.factors

    def _zeros(self, like: str, name: str, count: int, grid: Grid) -> tuple[list[Op], str]:
        """Return ops that make ``count`` channels of zeros, and the name of their integers.

        There are as many positions as in ``name``, whose integers are ``like``.
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

        It also concatenates ``zeros`` channels of zeros.
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
        self._put(position, before, op)
        return output

    def _quantize(self, source: str, name: str, grid: Grid) -> tuple[Op, str]:
        """Return an op that quantizes ``source``, which stands for ``name``, and its output."""
        output = self._graph.add_variable(f"{name}{QUANTIZED}", name, data_type(grid))
        return make_quantize(source, output, grid), output

    def _add_zero_point(self, name: str, grid: Grid) -> tuple[Op, str]:
        """Return an op that adds the zero point to integers without one, and its output."""
        output = self._graph.add_variable(f"{name}.shifted", name, data_type(grid))
        return make_requantize(name, output, grid), output

    def _dequantize(self, name: str) -> list[Op]:
        """Return ops that dequantize ``name`` for its readers in float."""
        readers = [p for p in self._graph.readers(name) if not self._reads_directly(p, name)]
        if not readers:
            return []
        output = self._graph.add_variable(f"{name}{DEQUANTIZED}", name)
        self._floats[name] = output
        for position in readers:
            self._graph.rename_input(position, name, output)
        return [make_dequantize(name, output, self._grids[name])]

    def _reads_directly(self, position: int, name: str) -> bool:
        adds = self._flow.fused_at.get(position)
        if adds is not None and adds.residual == name:
            return adds.output in self._flow.int8_outputs
        return self._flow.reads_int8(position, name)


def _weight_scales(weight: QuantizedWeight, halved: bool) -> list[float]:
    """Return the factors by which a kernel quantizes channels, doubled if it may halve them."""
    doubled = 2 if halved and weight.bits <= HALVED_BITS else 1
    scales: list[float] = (doubled / weight.step.astype(np.float64)).tolist()
    return scales


def _zero_point_compensation(weight: QuantizedWeight, grid: Grid, channel_axis: int) -> Any:
    """Return what the zero point of the integers adds to each output channel: float64."""
    others = tuple(axis for axis in range(weight.stored.ndim) if axis != channel_axis)
    totals = [part.sum(axis=others, dtype=np.int64) for part in weight.values.chunks()]
    summed = np.concatenate(totals) if channel_axis == 0 else np.sum(totals, axis=0)
    return grid.zero_point / grid.factor * (summed * weight.step.astype(np.float64))
