"""Int8 programs in the form that ONNX Runtime's kernels are found by: QDQ with uint8 activations.

ONNX Runtime runs an op as int8 if ``DequantizeLinear`` is in front of each of its inputs, and
``QuantizeLinear`` behind its output; a bias is int32, of the step of the input times that of the
weight (``qdq_selectors.cc``). A product may have a float output. Its x86-64 kernels are those of
uint8 activations with int8 weights, so every activation is uint8, with a zero point where it has
negative values. Ops that only move values take and give integers of one grid.

The program is a ProgramDesc whose Scale is a threshold, as for Paddle, but whose ``ZeroPoint`` and
bias only `onnx_model` knows: Paddle does not run it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .. import proto
from ..folding.addition import add_to_outputs
from ..graph import Graph
from ..model import Model, copy_model
from ..names import DEQUANTIZED, QUANTIZED, SCALE, ZERO_POINT
from ..op import Op, make_op
from ..op_facts import NO_LIMITS, Limits, varies_between
from ..parameters import Array
from ..quantizable import CONVOLUTIONS, WeightedOp
from ..ranges import Grid, Range, fitted_grid
from ..stored_weights import read_dequantized
from ..weights import QuantizedWeight
from .choices import Choices
from .saturation import without_saturation

_RELUS = ("relu", "relu6")
_MOVING = ("reshape2", "transpose2", "squeeze2", "unsqueeze2", "flatten_contiguous_range")
_COMPUTING = ("elementwise_add", "elementwise_mul", "concat", "pool2d")
_MOST = 2.0**31 - 128  # of int32, as float32 has it
_LEVELS = 127  # Paddle's Scale is the magnitude of this integer


@dataclass(frozen=True)
class OnnxPlan:
    """Which tensors of a float model become integers.

    Attributes:
        results: the tensors that int8 ops write as integers; all readers read these.
        roots: the tensors that have the grid of another one, which they are moved from.
        limits: what the values of tensors are clipped to by what reads them.
    """

    model: Model
    ops: Sequence[WeightedOp]
    results: Collection[str]
    roots: Mapping[str, str]
    limits: Mapping[str, Limits]

    @property
    def quantized(self) -> list[str]:
        """All tensors that become integers."""
        return list(dict.fromkeys([*(op.activation for op in self.ops), *self.results]))

    @property
    def observed(self) -> Collection[str]:
        """The tensors whose ranges must be known."""
        roots = [self.roots.get(name, name) for name in self.quantized]
        return list(dict.fromkeys([*roots, *(op.activation for op in self.ops)]))

    def quantizes_per_token(self, name: str) -> bool:
        """Return whether the positions of an activation can have scales of their own."""
        return False

    def takes_factors(self, name: str) -> bool:
        """Return whether an activation can be divided by factors: an op more would cost time."""
        return False

    def grid(self, name: str, given: Range) -> Grid:
        """Return the grid of a tensor of `observed` that has a given range."""
        return fitted_grid(given.within(*self.limits.get(name, NO_LIMITS)))

    def steps(self, ranges: Mapping[str, Range]) -> dict[str, float]:
        """Return the steps of the tensors of `observed` that have these ranges."""
        return {name: 1 / self.grid(name, given).factor for name, given in ranges.items()}

    def bits(self, name: str, given: Range) -> int:
        """Return the bits of signed integers with as fine a step; ``given`` is not clipped."""
        return 9 if given.is_one_sided else 8

    def without_saturation(
        self, weights: Mapping[str, QuantizedWeight], ranges: Mapping[str, Range]
    ) -> dict[str, QuantizedWeight]:
        """Return weights of which no two neighbours saturate (``MlasGemmU8S8KernelAvx2``)."""
        suited = dict(weights)
        for op in self.ops:
            weight = suited[op.weight]
            suited[op.weight] = without_saturation(weight, op, op.desc(self.model), True)
        return suited

    def emit(self, choices: Choices) -> Model:
        """Return the int8 program."""
        written = copy_model(self.model)
        graph = Graph(written)
        add_to_outputs(graph, choices.corrections, inserts=True)
        _Emitter(graph, self, choices).emit()
        graph.write_back()
        return written


def plan_onnx(model: Model, ops: Sequence[WeightedOp]) -> OnnxPlan:
    """Plan the int8 program in which ``ops`` of a float model are int8."""
    graph = Graph(model)
    read = {op.activation for op in ops}
    results = {_result(graph, op.output) for op in ops if op.op_type in CONVOLUTIONS}
    roots: dict[str, str] = {}
    computed: list[tuple[str, list[str]]] = []  # by ops without a weight: the result, the inputs
    integers = set(results)
    for number in sorted(graph.ops):
        op = graph.ops[number]
        inputs = list(_activations(graph, op))
        if not inputs or not _keeps_integers(op) or graph.dims(op.output()) is None:
            continue
        if not all(name in integers or name in read for name in inputs):
            continue
        if integers.isdisjoint(inputs):
            continue
        is_moved = _is_moving(op)
        output = op.output() if is_moved else _result(graph, op.output())
        if is_moved:
            roots[output] = roots.get(inputs[0], inputs[0])
        integers.add(output)
        computed.append((output, inputs))
    wanted = set(read)
    for output, inputs in reversed(computed):
        if output in wanted:
            wanted.update(inputs)
            results.add(output)
    others = {name for name in wanted if name in integers}
    found = sorted(results | others)
    kept_roots = {name: roots[name] for name in found if name in roots}
    limits = {name: limits for name in found if (limits := _limits(graph, name)) != NO_LIMITS}
    return OnnxPlan(model, ops, found, kept_roots, limits)


def _limits(graph: Graph, name: str) -> Limits:
    """Return between which values of a tensor the results of its only reader vary."""
    reader = graph.only_reader(name)
    return NO_LIMITS if reader is None else varies_between(graph.ops[reader])


def _is_moving(op: Op) -> bool:
    is_maximum = op.type == "pool2d" and op.attr("pooling_type", "max") == "max"
    return op.type in _MOVING or is_maximum


def _keeps_integers(op: Op) -> bool:
    return (op.type in _MOVING or op.type in _COMPUTING) and not op.is_channels_last


def _activations(graph: Graph, op: Op) -> Iterator[str]:
    """Yield what an op without a weight reads; nothing if it reads a parameter."""
    names = [name for slot in ("X", "Y") for name in op.inputs(slot)]
    if not any(name in graph.model.parameters for name in names):
        yield from names


def _result(graph: Graph, name: str) -> str:
    """Return a tensor behind the bias and the relu that become one op with its producer."""
    for is_inside in (_is_bias, _is_relu):
        reader = graph.only_reader(name)
        if reader is not None and is_inside(graph, graph.ops[reader], name):
            name = graph.ops[reader].output()
    return name


def _is_bias(graph: Graph, op: Op, name: str) -> bool:
    producer = graph.producer(name)
    if op.type != "elementwise_add" or producer is None or op.input("X") != name:
        return False
    of_convolution = graph.ops[producer].type in CONVOLUTIONS
    return of_convolution and _bias_of(graph, op) is not None


def _bias_of(graph: Graph, op: Op) -> Array | None:
    """Return what an addition adds to each channel, None if it does something else."""
    values = graph.model.parameters.get(op.input("Y"))
    dims = graph.dims(op.input("X"))
    if values is None or dims is None or len(dims) != 4 or values.size != dims[1]:
        return None
    axis = op.attr("axis", -1)
    is_vector = values.ndim == 1 and axis == 1
    is_column = values.ndim in (3, 4) and values.shape[-3:] == (dims[1], 1, 1)
    return graph.model.made(op.input("Y")) if is_vector or is_column else None


def _row_of(graph: Graph, op: Op) -> Array | None:
    """Return what an addition adds to each row of a matrix, None if it does something else."""
    values, dims = graph.model.parameters.get(op.input("Y")), graph.dims(op.input("X"))
    if values is None or dims is None or len(dims) != 2 or values.shape != (dims[1],):
        return None
    return graph.model.made(op.input("Y")) if op.attr("axis", -1) in (-1, 1) else None


def _is_relu(graph: Graph, op: Op, name: str) -> bool:
    return op.type in _RELUS


class _Emitter:
    """Edits a graph so that its program becomes int8."""

    def __init__(self, graph: Graph, plan: OnnxPlan, choices: Choices) -> None:
        self._graph = graph
        self._plan = plan
        self._choices = choices

    def emit(self) -> None:
        for op in self._plan.ops:
            self._store_bias(op)
        weights, ops = self._choices.weights, self._plan.ops
        read_dequantized(self._graph, weights, ops, _dequantized_weight)
        for name in self._plan.quantized:
            self._quantize(name)

    def _grid(self, name: str) -> Grid:
        root = self._plan.roots.get(name, name)
        return self._plan.grid(root, self._choices.ranges[root])

    def _store_bias(self, op: WeightedOp) -> None:
        """Let a convolution, or a product of two matrices, add its bias as int32.

        ONNX Runtime makes such a product and a float addition one node, which is not int8.
        """
        graph = self._graph
        desc = graph.ops[op.position]
        reader = graph.only_reader(desc.output())
        if reader is None or graph.ops[reader].type != "elementwise_add":
            return
        addition, is_product = graph.ops[reader], op.op_type not in CONVOLUTIONS
        values = _row_of(graph, addition) if is_product else _bias_of(graph, addition)
        if values is None or addition.input("X") != desc.output():
            return
        bias, made = self._integer_bias(op, values)
        output = addition.output()
        graph.remove(reader)
        if is_product:
            inputs = {"Input": [op.activation], "W": [op.weight], "Bias": [bias]}
            product = make_op("fc", inputs, {"Out": [output]}, {"in_num_col_dims": 1})
            graph.replace(op.position, product)
        else:
            graph.rename_output(op.position, desc.output(), output)
            desc.remove_input("Bias")
            desc.desc.inputs.add(parameter="Bias", arguments=[bias])
        graph.insert_before(op.position, [made])

    def _integer_bias(self, op: WeightedOp, values: Array) -> tuple[str, Op]:
        """Return a bias that is dequantized, and the op that does it."""
        graph, weight = self._graph, self._choices.weights[op.weight]
        step = weight.step.astype(np.float64) / self._grid(op.activation).factor
        integers = np.clip(np.rint(values.reshape(-1) / step), -_MOST, _MOST)
        stored = graph.add_parameter(f"{op.output}.bias", integers.astype(np.int32))
        bias = graph.add_tensor(f"{op.output}.bias{DEQUANTIZED}", integers.shape)
        steps = np.broadcast_to(step, integers.shape)
        return bias, _linear(graph, "dequantize_linear", stored, bias, steps, np.int32(0), 0)

    def _quantize(self, name: str) -> None:
        """Put QDQ behind the op that computes a tensor."""
        graph, grid = self._graph, self._grid(name)
        producer = graph.producer(name)
        is_result = name in self._plan.results
        source, output = name, f"{name}{DEQUANTIZED}"
        assert producer is not None
        if is_result:
            source, output = graph.add_variable(f"{name}.float", name), name
            graph.rename_output(producer, name, source)
        else:
            output = graph.add_variable(output, name)
        integers = graph.add_variable(f"{name}{QUANTIZED}", name, proto.UINT8)
        step = np.array([1 / grid.factor], np.float64)
        zero = np.uint8(grid.zero_point)
        made = [
            _linear(graph, "quantize_linear", source, integers, step, zero, -1),
            _linear(graph, "dequantize_linear", integers, output, step, zero, -1),
        ]
        graph.insert_after(producer, made)
        if not is_result:
            for op in self._plan.ops:
                if op.activation == name:
                    graph.rename_input(op.position, name, output)


def _dequantized_weight(
    graph: Graph, block: int, weight: QuantizedWeight, stored: str
) -> tuple[list[Op], str]:
    output = graph.add_tensor(f"{weight.name}{DEQUANTIZED}", weight.stored.shape, block=block)
    step = weight.step.astype(np.float64)
    op = _linear(graph, "dequantize_linear", stored, output, step, np.int8(0), weight.axis)
    return [op], output


def _linear(
    graph: Graph, op_type: str, source: str, output: str, step: Array, zero: np.generic, axis: int
) -> Op:
    """Return an op between float and integers, by the step of each channel or of the tensor."""
    threshold = (step.astype(np.float64) * _LEVELS).astype(np.float32)
    scale = graph.add_parameter(f"{output}{SCALE}", threshold)
    zeros = np.full(threshold.shape, zero)
    zero_point = graph.add_parameter(f"{output}{ZERO_POINT}", zeros)
    inputs = {"X": [source], "Scale": [scale], "ZeroPoint": [zero_point]}
    return make_op(op_type, inputs, {"Y": [output]}, {"bit_length": 8, "quant_axis": axis})
