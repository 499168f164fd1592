"""Rewriting a program: quantized weights in, and QDQ around the inputs of quantized ops."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from . import proto
from .model import Model
from .names import DEQUANTIZED, EQUALIZED, QUANTIZED, RECIPROCALS, SCALE, ZERO_POINT
from .op import Op, make_cast, make_op, ops_of, replace_ops
from .parameters import Array, DerivedTensor, Tensor
from .products import PRODUCTS, Bias, find_biases
from .quantizable import WeightedOp
from .reads import Read
from .weights import QuantizedWeight


class Rewriter:
    """Edits of a model's program, collected by op and applied at once by `apply`."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._before: dict[tuple[int, int], list[Op]] = defaultdict(list)
        self._after: dict[tuple[int, int], list[Op]] = defaultdict(list)
        self._renamed: dict[tuple[int, int], dict[str, str]] = defaultdict(dict)
        self._renamed_outputs: dict[tuple[int, int], dict[str, str]] = defaultdict(dict)
        self._dequantized: dict[tuple[int, str, int], str] = {}
        self._writes = _positions_of_writes(model)
        self._variables = {var.name: var for block in model.program.blocks for var in block.vars}
        self._taken = frozenset(self._variables)
        self._parameters: dict[str, str] = {}
        self._declared = {
            (index, var.name)
            for index, block in enumerate(model.program.blocks)
            for var in block.vars
        }

    def dequantize_weights_by_scale(
        self, weights: Mapping[str, QuantizedWeight], ops: Sequence[WeightedOp]
    ) -> None:
        """Let ``ops`` read float weights made by ``cast`` and ``elementwise_mul``.

        These two run in every Paddle and every integer width, and its constant folding removes
        them at load time, where ``dequantize_linear`` takes int8 alone and stays in the graph.
        """
        self._read_dequantized(weights, ops, self._cast_and_scale)

    def dequantize_weights_linear(
        self, weights: Mapping[str, QuantizedWeight], ops: Sequence[WeightedOp]
    ) -> None:
        """Let ``ops`` read float weights made by ``dequantize_linear``, as int8 passes expect."""
        self._read_dequantized(weights, ops, self._dequantize_linear)

    def equalize_products(
        self, weights: Mapping[str, QuantizedWeight], ops: Sequence[WeightedOp]
    ) -> None:
        """Let matrix products read weights whose columns are all of magnitude 1.

        Of an ``fc``, Paddle's passes compute the scales of the weight's columns wrongly (GetScales
        of axis 0 in ``compute_propagate_scales_onednn_pass.cc``), unless they know the weight's
        scale from a ``quantize_linear`` on it; then they take that one for all columns. So the
        columns are stretched to one magnitude, and their thresholds multiply the output instead.
        """
        integers = {op.weight: weights[op.weight].values for op in ops}
        stored = store_weights(self._model, integers, ops)
        biases = find_biases(self._model)
        for op in ops:
            weight = weights[op.weight]
            made, unit = self._unit_columns(op, weight, stored[op.weight])
            self._before[op.block, op.position] += made
            self._renamed[op.block, op.position][op.weight] = unit
            self._scale_output(op, weight, biases.get((op.block, op.output)))

    def quantize_activations(
        self,
        thresholds: Mapping[str, float],
        reads: Sequence[Read],
        reciprocals: Mapping[str, Array],
    ) -> None:
        """Put ``quantize_linear`` and ``dequantize_linear`` between each tensor and its reader.

        The pattern is the one that ``quant_dequant_onednn_pass.cc``,
        ``delete_quant_dequant_linear_op_pass.cc`` (TensorRT) and Paddle-Lite's
        ``quant_dequant_op_fuser.cc`` take: one Scale for both ops, ``bit_length`` 8,
        ``quant_axis`` -1, ``round_type`` 0 (ties to even). A tensor that has ``reciprocals`` is
        multiplied by them first.
        """
        for block, position, name in sorted(reads):
            writes = bisect_left(self._writes.get((block, name), ()), position)
            key = (block, name, writes)
            if key not in self._dequantized:
                source = self._multiplied(block, position, name, reciprocals.get(name))
                made, output = self._qdq(block, source, writes, thresholds[name])
                self._before[block, position] += made
                self._dequantized[key] = output
            self._renamed[block, position][name] = self._dequantized[key]

    def divide_activations(
        self, ops: Sequence[WeightedOp], reciprocals: Mapping[str, Array]
    ) -> None:
        """Let ``ops`` read their activations multiplied by ``reciprocals``, without integers."""
        for op in ops:
            key = (op.block, op.activation, 0)
            if key not in self._dequantized:
                values = reciprocals[op.activation]
                made = self._multiplied(op.block, op.position, op.activation, values)
                self._dequantized[key] = made
            self._renamed[op.block, op.position][op.activation] = self._dequantized[key]

    def mark_quantized(self, ops: Sequence[WeightedOp]) -> None:
        """Tell passes, by the attribute that Paddle's own PTQ sets, which ops are to be int8."""
        for op in ops:
            desc = op.desc(self._model)
            desc.set_attr("quantization_type", "qat_with_weight")

    def apply(self) -> None:
        """Rebuild every block with the collected edits."""
        for block_index, block in enumerate(self._model.program.blocks):
            ops = []
            for position, op in enumerate(ops_of(block)):
                ops += self._before.get((block_index, position), [])
                op.rename_inputs(self._renamed.get((block_index, position), {}))
                op.rename_outputs(self._renamed_outputs.get((block_index, position), {}))
                ops.append(op.copy())
                ops += self._after.get((block_index, position), [])
            replace_ops(block, ops)

    def _read_dequantized(
        self,
        weights: Mapping[str, QuantizedWeight],
        ops: Sequence[WeightedOp],
        make: Callable[[int, QuantizedWeight, str], tuple[list[Op], str]],
    ) -> None:
        integers = {op.weight: weights[op.weight].values for op in ops}
        stored = store_weights(self._model, integers, ops)
        for op in sorted(ops, key=lambda op: (op.block, op.read_at)):
            key = (op.block, op.weight, 0)
            if key not in self._dequantized:
                made, name = make(op.block, weights[op.weight], stored[op.weight])
                self._before[op.block, op.read_at] += made
                self._dequantized[key] = name
            self._renamed[op.block, op.read_at][op.weight] = self._dequantized[key]

    def _unit_columns(
        self, op: WeightedOp, weight: QuantizedWeight, stored: str
    ) -> tuple[list[Op], str]:
        """Scale the integers to magnitude 1, which constant folding does at load time.

        The quantization behind that changes no value; it tells Paddle's passes the scale. Each op
        has its own, as of an fc's weight that another reads they multiply the scale by 127 again
        (QuantizeFc in ``cpu_quantize_pass.cc``).
        """
        block, dims = op.block, weight.stored.shape
        values = self._variable(block, f"{weight.name}.cast{op.position}", dims)
        unit = self._variable(block, f"{weight.name}.unit{op.position}", dims)
        step = self._parameter("int8@step", np.array([1 / 127], np.float32))
        integer_type = proto.paddle_dtype(weight.values.dtype)
        quantization, output = self._qdq(block, unit, 0, 1.0)
        ops = [
            make_cast(stored, values, integer_type, proto.FP32),
            _elementwise("elementwise_mul", values, step, unit),
        ]
        return ops + quantization, output

    def _scale_output(self, op: WeightedOp, weight: QuantizedWeight, bias: Bias | None) -> None:
        """Multiply by the columns' thresholds, behind the bias, which is divided by them."""
        scale = self._parameter(f"{weight.name}{SCALE}", weight.full_scales)
        if bias is not None:
            key, output = (op.block, bias.position), bias.output
            self._renamed[key][bias.name] = self._divided_bias(bias, weight)
            total = self._other_output(key, output, f"{output}.unit")
        else:  # there is no fc without a bias
            key, output = (op.block, op.position), op.output
            zeros = np.zeros(weight.stored.shape[1], np.float32)
            zero = self._parameter(f"{weight.name}@zero", zeros)
            product = self._other_output(key, output, f"{output}.product")
            dims = proto.tensor_desc(self._variables[output]).dims
            total = self._variable(op.block, f"{output}.unit", dims)
            self._after[key].append(_elementwise("elementwise_add", product, zero, total))
        self._after[key].append(_elementwise("elementwise_mul", total, scale, output))

    def _divided_bias(self, bias: Bias, weight: QuantizedWeight) -> str:
        values: Array = self._model.parameters[bias.name]
        divided = DerivedTensor(values.shape, values.dtype, lambda: [values / weight.full_scale])
        if bias.is_shared:
            return self._parameter(f"{bias.output}.bias", divided)
        self._model.put(bias.name, divided)
        return bias.name

    def _other_output(self, key: tuple[int, int], output: str, other: str) -> str:
        """Let the op at ``key`` write ``other`` instead of ``output``."""
        self._renamed_outputs[key][output] = other
        return self._variable(key[0], other, proto.tensor_desc(self._variables[output]).dims)

    def _cast_and_scale(
        self, block: int, weight: QuantizedWeight, stored: str
    ) -> tuple[list[Op], str]:
        float_type = proto.paddle_dtype(weight.stored.dtype)
        scale = self._parameter(f"{weight.name}{SCALE}", weight.scale)
        values = self._variable(block, f"{weight.name}.cast", weight.stored.shape)
        scaled = self._variable(block, f"{weight.name}{DEQUANTIZED}", weight.stored.shape)
        ops = [
            make_cast(stored, values, proto.paddle_dtype(weight.values.dtype), proto.FP32),
            _elementwise("elementwise_mul", values, scale, scaled),
        ]
        if float_type != proto.FP32:
            # A step in half precision would lose bits, or underflow: scale first, then round once.
            half = self._variable(block, f"{weight.name}.half", weight.stored.shape, float_type)
            ops.append(make_cast(scaled, half, proto.FP32, float_type))
            scaled = half
        return ops, scaled

    def _dequantize_linear(
        self, block: int, weight: QuantizedWeight, stored: str
    ) -> tuple[list[Op], str]:
        output = self._variable(block, f"{weight.name}{DEQUANTIZED}", weight.stored.shape)
        op = self._linear_op(
            "dequantize_linear", stored, output, weight.name, weight.full_scales, weight.axis
        )
        return [op], output

    def _multiplied(self, block: int, position: int, name: str, reciprocals: Array | None) -> str:
        """Multiply what the op at a position reads, if there is anything to multiply it by."""
        if reciprocals is None:
            return name
        dims = list(proto.tensor_desc(self._variables[name]).dims)
        output = self._variable(block, f"{name}{EQUALIZED}", dims)
        parameter = self._parameter(f"{name}{RECIPROCALS}", reciprocals)
        self._before[block, position].append(make_multiplication(name, parameter, output))
        return output

    def _qdq(self, block: int, name: str, writes: int, threshold: float) -> tuple[list[Op], str]:
        dims = list(proto.tensor_desc(self._variables[name]).dims)
        # A variable that the program writes again has another value to quantize after each write.
        version = f".{writes}" if writes > 1 else ""
        quantized = self._variable(block, f"{name}{QUANTIZED}{version}", dims)
        output = self._variable(block, f"{name}{DEQUANTIZED}{version}", dims)
        scale = np.array([threshold], np.float32)
        return [
            self._linear_op("quantize_linear", name, quantized, name, scale, -1),
            self._linear_op("dequantize_linear", quantized, output, name, scale, -1),
        ], output

    def _linear_op(
        self, op_type: str, source: str, output: str, name: str, threshold: Tensor, axis: int
    ) -> Op:
        scale = self._parameter(f"{name}{SCALE}", threshold)
        zero_point = self._parameter(f"{name}{ZERO_POINT}", np.zeros(threshold.shape, np.int32))
        return make_op(
            op_type,
            {"X": [source], "Scale": [scale], "ZeroPoint": [zero_point]},
            {"Y": [output]},
            {
                "bit_length": 8,
                "quant_axis": axis,
                "round_type": 0,
                "is_test": True,
                "only_observer": False,
            },
        )

    def _parameter(self, wanted: str, tensor: Tensor) -> str:
        """Add a parameter, once, and return its name."""
        if wanted not in self._parameters:
            name = self._parameters[wanted] = self._free(wanted)
            block, data_type = self._model.program.blocks[0], proto.paddle_dtype(tensor.dtype)
            proto.add_var(block, name, data_type, tensor.shape).persistable = True
            self._model.put(name, tensor)
        return self._parameters[wanted]

    def _variable(
        self, block: int, wanted: str, dims: Iterable[int], data_type: int = proto.FP32
    ) -> str:
        name = self._free(wanted)
        if (block, name) not in self._declared:  # a variable of a branch is not seen in another
            added = proto.add_var(self._model.program.blocks[block], name, data_type, dims)
            self._variables[name] = added
            self._declared.add((block, name))
        return name

    def _free(self, wanted: str) -> str:
        """Return ``wanted``, or another name if the float model has that for something else."""
        while wanted in self._taken:
            wanted += ".new"
        return wanted


def store_weights(
    model: Model, tensors: Mapping[str, DerivedTensor], ops: Sequence[WeightedOp]
) -> dict[str, str]:
    """Put new values of weights into the model's parameters, for ``ops`` alone.

    A weight that only ``ops`` read is replaced under its own name. One that another op reads as
    well keeps its values, and the new ones go beside it.

    Returns:
        The name under which each weight's new values are stored.
    """
    shared = _read_by_others(model, ops)
    stored = {}
    for name, tensor in tensors.items():
        data_type = proto.paddle_dtype(tensor.dtype)
        if name in shared:
            target = f"{name}{QUANTIZED}"
            block = model.program.blocks[0]
            proto.add_var(block, target, data_type, tensor.shape).persistable = True
        else:
            target = name
            _set_data_type(model, name, data_type)
        model.put(target, tensor)
        stored[name] = target
    return stored


def _set_data_type(model: Model, name: str, data_type: int) -> None:
    for block in model.program.blocks:
        for var in block.vars:
            if var.name == name:
                proto.tensor_desc(var).data_type = data_type


def _positions_of_writes(model: Model) -> dict[tuple[int, str], list[int]]:
    """Return where in its block each variable is written, by block and name."""
    writes: dict[tuple[int, str], list[int]] = defaultdict(list)
    for block, position, op in model.numbered_ops():
        for name in op.writes():
            writes[block, name].append(position)
    return writes


def _read_by_others(model: Model, ops: Iterable[WeightedOp]) -> set[str]:
    """Return what is read otherwise than as the weight of one of ``ops``."""
    weights = {(op.block, op.read_at, op.weight) for op in ops}
    return {
        name
        for block, position, op in model.numbered_ops()
        for name in op.reads()
        if (block, position, name) not in weights
    }


def make_multiplication(name: str, parameter: str, output: str) -> Op:
    """Return an op that multiplies a tensor by a parameter."""
    return _elementwise("elementwise_mul", name, parameter, output)


def reciprocals_of(op: WeightedOp, factors: Array) -> Array:
    """Return what divides the channels of the activation of ``op``, shaped to multiply it.

    Ops that Paddle fuses the multiplication with do not all look at its ``axis``.
    """
    reciprocals: Array = 1 / factors
    return reciprocals if op.op_type in PRODUCTS else reciprocals[:, None, None]


def _elementwise(op_type: str, x: str, y: str, output: str) -> Op:
    return make_op(op_type, {"X": [x], "Y": [y]}, {"Out": [output]}, {"axis": -1})
