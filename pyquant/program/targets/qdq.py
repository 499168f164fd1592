"""Int8 programs in which ``quantize_linear`` and ``dequantize_linear`` mark what to quantize."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .. import proto
from ..folding.addition import add_to_outputs
from ..folding.cross_layer_equalization import divide
from ..graph import Graph
from ..matrix_products import PRODUCTS, Bias, find_biases
from ..misfusion import keep_apart
from ..model import Model, copy_model
from ..names import DEQUANTIZED, QUANTIZED, SCALE, ZERO_POINT
from ..op import Op, make_cast, make_elementwise, make_op
from ..parameters import Array, DerivedTensor, Tensor
from ..quantizable import WeightedOp
from ..ranges import Grid, Range, fitted_grid, symmetric_grid
from ..stored_weights import dequantize_by_scale, read_dequantized, store_weights
from ..weights import QuantizedWeight
from .choices import Choices
from .profiles import Target
from .reads import Read, reads_behind, reads_of_ops, reads_of_sums, reads_of_types
from .saturation import without_saturation


@dataclass(frozen=True)
class QdqPlan:
    """Which tensors of a float model get QDQ, for the passes of an inference target to find."""

    model: Model
    ops: Sequence[WeightedOp]
    target: Target
    other_reads: Sequence[Read]  # by ops without a weight

    @property
    def reads(self) -> list[Read]:
        """All that is read as integers."""
        return [*reads_of_ops(self.ops), *self.other_reads]

    @property
    def observed(self) -> Collection[str]:
        """The tensors whose ranges must be known."""
        return list(dict.fromkeys(read.tensor for read in self.reads))

    def quantizes_per_token(self, name: str) -> bool:
        """Return whether the positions of an activation can have scales of their own."""
        return False

    def takes_factors(self, name: str) -> bool:
        """Return whether an activation can be divided by factors before it becomes integers."""
        readers = [op for op in self.ops if op.activation == name]
        # Behind a convolution with channels last, oneDNN's elementwise_mul takes a wrong axis for
        # that of the channels, which differs between 2.6 and 3.3.
        is_last = any(op.desc(self.model).is_channels_last for op in readers)
        return not is_last and all(read.tensor != name for read in self.other_reads)

    def grid(self, name: str, given: Range) -> Grid:
        """Return the grid of a tensor of `observed` that has a given range."""
        is_fitted = self.target.takes_zero_points
        return fitted_grid(given) if is_fitted else symmetric_grid(given, False)

    def steps(self, ranges: Mapping[str, Range]) -> dict[str, float]:
        """Return the steps of the tensors of `observed` that have these ranges."""
        return {name: 1 / self.grid(name, given).factor for name, given in ranges.items()}

    def bits(self, name: str, given: Range) -> int:
        """Return the bits of signed integers with as fine a step; ``given`` is not clipped."""
        return 9 if self.target.takes_zero_points and given.is_one_sided else 8

    def without_saturation(
        self, weights: Mapping[str, QuantizedWeight], ranges: Mapping[str, Range]
    ) -> dict[str, QuantizedWeight]:
        """As `OneDnnPlan.without_saturation`, for the op types of which the target says so.

        Paddle's passes choose the scale of a filter by its largest weight, so a channel can have no
        other threshold (ComputeVarScales in ``compute_propagate_scales_onednn_pass.cc``).
        """
        suited, unsigned = dict(weights), self.target.takes_zero_points
        for op in self.ops:
            if op.op_type in self.target.suits_pairs:
                weight = suited[op.weight]
                suited[op.weight] = without_saturation(weight, op, op.desc(self.model), unsigned)
        return suited

    def emit(self, choices: Choices) -> Model:
        """Return the int8 program."""
        written = copy_model(self.model)
        graph = Graph(written)
        # A runtime that fuses ops into int8 ones sees an output before its bias.
        add_to_outputs(graph, choices.corrections, inserts=not self.target.fused)
        _Emitter(graph, self, choices).emit()
        if self.target.substitute is not None:
            self.target.substitute(graph)
        graph.write_back()
        if self.target.runs_here:
            keep_apart(written)
        return written


def plan_qdq(
    model: Model, ops: Sequence[WeightedOp], target: Target, skip_tensors: Collection[str]
) -> QdqPlan:
    """Plan the int8 program; ops that read or write one of ``skip_tensors`` stay in float."""
    graph, others = Graph(model), list[Read]()
    if target.weightless:
        others += reads_of_types(graph, target.weightless, skip_tensors)
    if target.fused:
        others += reads_behind(graph, ops, target.fused, skip_tensors)
    if target.adds_maps:
        others += reads_of_sums(graph, ops, skip_tensors)
    return QdqPlan(model, ops, target, others)


class _Emitter:
    """Edits a graph so that its program becomes int8."""

    def __init__(self, graph: Graph, plan: QdqPlan, choices: Choices) -> None:
        self._graph = graph
        self._plan = plan
        self._choices = choices
        self._writes = _positions_of_writes(plan.model)

    def emit(self) -> None:
        plan, weights = self._plan, self._choices.weights
        self._quantize_activations()
        for op in plan.ops:
            # This attribute, which Paddle's own PTQ sets, tells passes what is to be int8.
            number = self._graph.number(op.block, op.position)
            self._graph.op(number).set_attr("quantization_type", "qat_with_weight")
        unit = PRODUCTS if plan.target.unit_columns else ()
        others = [op for op in plan.ops if op.op_type not in unit]
        read_dequantized(self._graph, weights, others, _dequantize_linear)
        self._equalize_products([op for op in plan.ops if op.op_type in unit])
        dequantize_by_scale(self._graph, weights, self._choices.weight_only)

    def _quantize_activations(self) -> None:
        """Put ``quantize_linear`` and ``dequantize_linear`` between each tensor and its reader.

        The pattern is the one that ``quant_dequant_onednn_pass.cc``,
        ``delete_quant_dequant_linear_op_pass.cc`` (TensorRT) and Paddle-Lite's
        ``quant_dequant_op_fuser.cc`` take: one Scale for both ops, ``bit_length`` 8,
        ``quant_axis`` -1, ``round_type`` 0 (ties to even). A tensor that has factors is divided by
        them first.
        """
        dequantized: dict[tuple[int, str, int], str] = {}
        for block, position, name in sorted(self._plan.reads):
            given = self._choices.ranges[name]
            if given.threshold <= 0:
                continue  # a tensor that was always zero has no scale
            number = self._graph.number(block, position)
            writes = bisect_left(self._writes.get((block, name), ()), position)
            key = (block, name, writes)
            if key not in dequantized:
                factors, ops = self._choices.factors, self._plan.ops
                before, source = divide(self._graph, name, factors, ops)
                grid = self._plan.grid(name, given)
                made, dequantized[key] = _qdq(self._graph, block, source, writes, grid)
                self._graph.insert_before(number, [*before, *made])
            self._graph.rename_input(number, name, dequantized[key])

    def _equalize_products(self, ops: Sequence[WeightedOp]) -> None:
        """Let matrix products read weights whose columns are all of magnitude 1.

        Paddle's passes compute wrong scales for the weight's columns of an ``fc`` (GetScales of
        axis 0 in ``compute_propagate_scales_onednn_pass.cc``), unless a ``quantize_linear`` on the
        weight tells them its scale, which they use for all columns. So the columns are scaled to
        one magnitude, and their thresholds multiply the output instead.
        """
        weights = self._choices.weights
        integers = {op.weight: weights[op.weight].values for op in ops}
        stored = store_weights(self._graph, integers, ops)
        biases = find_biases(self._graph)
        for op in ops:
            weight, number = weights[op.weight], self._graph.number(op.block, op.position)
            made, unit = self._unit_columns(op, weight, stored[op.weight])
            self._graph.insert_before(number, made)
            self._graph.rename_input(number, op.weight, unit)
            self._scale_output(op.block, number, weight, biases.get(number))

    def _unit_columns(
        self, op: WeightedOp, weight: QuantizedWeight, stored: str
    ) -> tuple[list[Op], str]:
        """Scale the integers to magnitude 1, which constant folding does at load time.

        The quantization behind that changes no value; it tells Paddle's passes the scale. Each op
        has its own, since the passes multiply the scale by 127 again if another op reads the weight
        of an fc (QuantizeFc in ``cpu_quantize_pass.cc``).
        """
        graph, block, dims = self._graph, op.block, weight.stored.shape
        values = graph.add_tensor(f"{weight.name}.cast{op.position}", dims, block=block)
        unit = graph.add_tensor(f"{weight.name}.unit{op.position}", dims, block=block)
        step = graph.shared_parameter("int8@step", np.array([1 / 127], np.float32))
        integer_type = proto.paddle_dtype(weight.values.dtype)
        quantization, output = _qdq(graph, block, unit, 0, _UNIT)
        ops = [
            make_cast(stored, values, integer_type, proto.FP32),
            make_elementwise("elementwise_mul", values, step, unit),
        ]
        return ops + quantization, output

    def _scale_output(
        self, block: int, number: int, weight: QuantizedWeight, bias: Bias | None
    ) -> None:
        """Multiply the output by the columns' thresholds, after a bias that is divided by them."""
        graph, made = self._graph, list[Op]()
        scale = graph.shared_parameter(f"{weight.name}{SCALE}", weight.full_scales)
        if bias is not None:
            number, output = bias.number, bias.output
            graph.rename_input(number, bias.name, self._divided_bias(bias, weight))
            total = graph.add_variable(f"{output}.unit", output, block=block)
            graph.rename_output(number, output, total)
        else:  # there is no fc without a bias
            output = graph.op(number).output()
            zeros = np.zeros(weight.stored.shape[1], np.float32)
            zero = graph.shared_parameter(f"{weight.name}@zero", zeros)
            product = graph.add_variable(f"{output}.product", output, block=block)
            graph.rename_output(number, output, product)
            total = graph.add_variable(f"{output}.unit", output, block=block)
            made.append(make_elementwise("elementwise_add", product, zero, total))
        made.append(make_elementwise("elementwise_mul", total, scale, output))
        graph.insert_after(number, made)

    def _divided_bias(self, bias: Bias, weight: QuantizedWeight) -> str:
        values: Array = self._graph.model.parameters[bias.name]
        divided = DerivedTensor(values.shape, values.dtype, lambda: [values / weight.full_scale])
        if bias.is_shared:
            return self._graph.add_parameter(f"{bias.output}.bias", divided)
        self._graph.replace_parameter(bias.name, divided)
        return bias.name


def _dequantize_linear(
    graph: Graph, block: int, weight: QuantizedWeight, stored: str
) -> tuple[list[Op], str]:
    output = graph.add_tensor(f"{weight.name}{DEQUANTIZED}", weight.stored.shape, block=block)
    scale, axis = weight.full_scales, weight.axis
    op = _linear_op(graph, "dequantize_linear", (stored, output), weight.name, scale, axis)
    return [op], output


_LEVELS = 127
_UNIT = Grid(_LEVELS, 0, False)  # of values of magnitude 1


def _qdq(graph: Graph, block: int, name: str, writes: int, grid: Grid) -> tuple[list[Op], str]:
    # A variable that is written again has another value to quantize after each write.
    version = f".{writes}" if writes > 1 else ""
    quantized = graph.add_variable(f"{name}{QUANTIZED}{version}", name, block=block)
    output = graph.add_variable(f"{name}{DEQUANTIZED}{version}", name, block=block)
    scale = np.array([_LEVELS / grid.factor], np.float32)
    # The ops have signed integers alone.
    zero_point = grid.zero_point - (_LEVELS + 1 if grid.unsigned else 0)
    return [
        _linear_op(graph, "quantize_linear", (name, quantized), name, scale, -1, zero_point),
        _linear_op(graph, "dequantize_linear", (quantized, output), name, scale, -1, zero_point),
    ], output


def _linear_op(
    graph: Graph,
    op_type: str,
    ends: tuple[str, str],
    name: str,
    threshold: Tensor,
    axis: int,
    zero_point: int = 0,
) -> Op:
    """Return an op from one tensor to another; ``name`` is the one that has the threshold."""
    scale = graph.shared_parameter(f"{name}{SCALE}", threshold)
    points = np.full(threshold.shape, zero_point, np.int32)
    zero_points = graph.shared_parameter(f"{name}{ZERO_POINT}", points)
    attributes: dict[str, proto.AttributeValue] = {
        **{"bit_length": 8, "quant_axis": axis, "round_type": 0},
        **{"is_test": True, "only_observer": False},
    }
    inputs = {"X": [ends[0]], "Scale": [scale], "ZeroPoint": [zero_points]}
    return make_op(op_type, inputs, {"Y": [ends[1]]}, attributes)


def _positions_of_writes(model: Model) -> dict[tuple[int, str], list[int]]:
    """Return where in its block each variable is written, by block and name."""
    writes: dict[tuple[int, str], list[int]] = defaultdict(list)
    for block, position, op in model.numbered_ops():
        for name in op.writes():
            writes[block, name].append(position)
    return writes
