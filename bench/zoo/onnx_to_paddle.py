"""Writes an ONNX model as a Paddle model.

onnxsim fixes the shapes of the inputs and computes what follows from them. Each node that is left
becomes one call of Paddle, named in `_CALLS`. x2paddle 1.6 is not used: it has no GRU, cannot
convert the LSTM, PRelu and MaxPool of these networks, and needs an old onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxsim
import paddle
from numpy.typing import NDArray
from onnx import numpy_helper
from paddle import nn
from paddle.nn import functional as F  # noqa: N812 (its usual name)

Shapes = Mapping[str, Sequence[int]]
Attributes = Mapping[str, Any]


def convert(source: Path, directory: Path, shapes: Shapes) -> tuple[Path, Path]:
    """Write ``directory``/model.json; return its two files.

    Args:
        source: the ONNX model.
        directory: of the Paddle model.
        shapes: of inputs whose shapes the model leaves open; the first axis stays open if it is -1.
    """
    fixed = {name: [abs(size) for size in shape] for name, shape in shapes.items()}
    model, same = onnxsim.simplify(onnx.load(source), overwrite_input_shapes=fixed or None)
    if not same:
        raise ValueError(f"{source}: onnxsim changes what it computes")
    paddle.enable_static()
    program, startup = paddle.static.Program(), paddle.static.Program()
    with (
        paddle.static.program_guard(program, startup),
        paddle.static.scope_guard(paddle.static.Scope()),
    ):
        network = _Network(model.graph, shapes)
        executor = paddle.static.Executor(paddle.CPUPlace())
        executor.run(startup)
        network.set_weights()
        paddle.static.save_inference_model(
            str(directory / "model"), network.inputs, network.outputs, executor, program=program
        )
    paddle.disable_static()
    return directory / "model.json", directory / "model.pdiparams"


class _Network:
    """The nodes of an ONNX graph, put into Paddle's program in their order."""

    def __init__(self, graph: Any, shapes: Shapes) -> None:
        self._constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        self._weights: dict[str, NDArray[Any]] = {}
        self._values: dict[str, Any] = {"": None}
        self._dropout_state = None  # Paddle gives those of all layers the same name
        self.inputs = []
        for value in _inputs(graph):
            self._values[value.name] = _input(value, shapes)
            self.inputs.append(self._values[value.name])
        for node in graph.node:
            self._add(node)
        self.outputs = [self._values[value.name] for value in graph.output]

    def set_weights(self) -> None:
        """Give the parameters their values, after the startup program ran."""
        scope, place = paddle.static.global_scope(), paddle.CPUPlace()
        for name, array in self._weights.items():
            scope.find_var(name).get_tensor().set(array, place)

    def _add(self, node: Any) -> None:
        attributes = _attributes(node)
        if node.op_type == "Constant":
            self._constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
            return
        if node.op_type in _RECURRENT:
            outputs = self._recurrent(node, attributes)
        else:
            outputs = _CALLS[node.op_type](attributes, *self._arguments(node))
        self._values.update(
            zip(node.output, outputs if isinstance(outputs, (list, tuple)) else [outputs])
        )

    def _arguments(self, node: Any) -> list[Any]:
        if node.op_type in _ARITHMETIC:
            return [self._number(name) for name in node.input]
        count = 1 if node.op_type in _ON_CONSTANTS else len(node.input)
        tensors = [self._tensor(name) for name in node.input[:count]]
        return tensors + [self._constants.get(name) for name in node.input[count:]]

    def _number(self, name: str) -> Any:
        """Return a constant of one value as a number, for which Paddle writes a scale."""
        array = self._constants.get(name)
        return self._tensor(name) if array is None or array.size > 1 else array.item()

    def _tensor(self, name: str) -> Any:
        if name not in self._values:
            array = self._constants[name]
            if array.dtype != np.float32:
                return paddle.to_tensor(array)
            weight = paddle.create_parameter(list(array.shape), "float32")
            self._weights[weight.name] = array
            self._values[name] = weight
        return self._values[name]

    def _recurrent(self, node: Any, attributes: Attributes) -> list[Any]:
        """Return ONNX's outputs: [time, directions, batch, hidden], then the last states."""
        make, order = _RECURRENT[node.op_type]
        if node.op_type == "GRU" and not attributes.get("linear_before_reset"):
            raise NotImplementedError("a GRU that resets before its matrix product")
        arrays = [self._constants[name] for name in node.input[1:4]]
        directions, _, features = arrays[0].shape
        direction = "bidirect" if directions == 2 else "forward"
        layer = make(features, attributes["hidden_size"], direction=direction, time_major=True)
        self._dropout_state = layer._dropout_state = (
            layer._dropout_state if self._dropout_state is None else self._dropout_state
        )
        for index in range(directions):
            self._set_gates(
                layer, "_reverse" if index else "", order, [one[index] for one in arrays]
            )
        states = [self._tensor(name) for name in node.input[5:7]]
        given = None if None in states or not states else states[0] if len(states) == 1 else states
        y, last = layer(self._values[node.input[0]], given)
        time, batch, width = y.shape
        y = y.reshape([time, batch, directions, width // directions]).transpose([0, 2, 1, 3])
        return [y, *(last if isinstance(last, (list, tuple)) else [last])]

    def _set_gates(self, layer: Any, suffix: str, order: Sequence[int], arrays: list[Any]) -> None:
        values = (*arrays[:2], *np.split(arrays[2], 2))
        for kind, array in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), values):
            gates = np.split(array, len(order))
            name = getattr(layer, f"{kind}_l0{suffix}").name
            self._weights[name] = np.concatenate([gates[gate] for gate in order])


def _inputs(graph: Any) -> list[Any]:
    constants = {one.name for one in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def _input(value: Any, shapes: Shapes) -> Any:
    kind = value.type.tensor_type
    shape = [dim.dim_value for dim in kind.shape.dim]
    if shapes.get(value.name, [1])[:1] == [-1]:
        shape[0] = -1
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return paddle.static.data(value.name, shape, str(dtype))


def _attributes(node: Any) -> dict[str, Any]:
    return {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}


# Recurrent layers: the gates in Paddle's order, by their places in ONNX's.
_RECURRENT: Mapping[str, tuple[Any, Sequence[int]]] = {
    "LSTM": (nn.LSTM, (0, 2, 3, 1)),
    "GRU": (nn.GRU, (1, 0, 2)),
}


def _binary(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda _, x, y: function(x, y)


def _unary(function: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda _, x: function(x)


def _several(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda _, *values: reduce(function, values)


def _padding(attributes: Attributes, axes: int) -> Any:
    if attributes.get("auto_pad", b"NOTSET") == b"SAME_UPPER":
        return "SAME"
    pads = attributes.get("pads", [0] * 2 * axes)
    return [pad for axis in range(axes) for pad in (pads[axis], pads[axis + axes])]


def _conv(attributes: Attributes, x: Any, weight: Any, bias: Any = None) -> Any:
    axes = weight.ndim - 2
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[axes]
    strides, dilations = (attributes.get(name, [1] * axes) for name in ("strides", "dilations"))
    padding = _padding(attributes, axes)
    if axes == 1 and padding != "SAME" and padding[0] == padding[1]:
        padding = padding[0]
    return convolve(x, weight, bias, strides, padding, dilations, attributes.get("group", 1))


def _transposed_conv(attributes: Attributes, x: Any, weight: Any, bias: Any = None) -> Any:
    return F.conv2d_transpose(
        x, weight, bias, attributes["strides"], _padding(attributes, 2),
        attributes.get("output_padding", 0), attributes.get("group", 1),
    )  # fmt: skip


def _pool(function: Any) -> Callable[..., Any]:
    def call(attributes: Attributes, x: Any) -> Any:
        size, ceil = attributes["kernel_shape"], bool(attributes.get("ceil_mode", 0))
        return function(x, size, attributes["strides"], _padding(attributes, 2), ceil_mode=ceil)

    return call


def _batch_norm(attributes: Attributes, x: Any, *parameters: Any) -> Any:
    scale, bias, mean, variance = parameters
    return F.batch_norm(x, mean, variance, scale, bias, epsilon=attributes.get("epsilon", 1e-5))


def _gemm(attributes: Attributes, x: Any, weight: Any, bias: Any = None) -> Any:
    product = paddle.matmul(x, weight, transpose_y=bool(attributes.get("transB", 0)))
    return product if bias is None else product + bias


def _axes(attributes: Attributes, axes: Any) -> list[int] | None:
    axes = attributes.get("axes") if axes is None else axes
    return None if axes is None else [int(axis) for axis in axes]


def _reduction(function: Any) -> Callable[..., Any]:
    def call(attributes: Attributes, x: Any, axes: Any = None) -> Any:
        return function(x, _axes(attributes, axes), keepdim=bool(attributes.get("keepdims", 1)))

    return call


def _slice(
    attributes: Attributes, x: Any, starts: Any = None, ends: Any = None, axes: Any = None,
    steps: Any = None,
) -> Any:  # fmt: skip
    starts, ends = attributes.get("starts", starts), attributes.get("ends", ends)
    axes = attributes.get("axes", range(len(starts)) if axes is None else axes)
    where = [int(axis) % x.ndim for axis in axes]
    limits = [[int(np.clip(value, -_FAR, _FAR)) for value in one] for one in (starts, ends)]
    if steps is None or set(map(int, steps)) == {1}:
        return paddle.slice(x, where, *limits)
    return paddle.strided_slice(x, where, *limits, [int(step) for step in steps])


def _split(attributes: Attributes, x: Any, sizes: Any = None) -> Any:
    sizes = attributes["split"] if sizes is None else [int(size) for size in sizes]
    return paddle.split(x, sizes, attributes.get("axis", 0))


def _pad(attributes: Attributes, x: Any, pads: Any, value: Any = None, axes: Any = None) -> Any:
    assert axes is None
    mode = attributes.get("mode", b"constant").decode()
    low, high = np.split(np.asarray(pads, np.int64), 2)
    constant = 0.0 if value is None else float(value)
    if np.count_nonzero(low + high) > 1 or x.ndim > 4:
        assert mode == "constant", "Paddle reflects one axis of an image"
        pairs = [int(pad) for both in zip(low, high) for pad in both]
        return F.pad(x, pairs, mode, constant, pad_from_left_axis=True)
    axis = int(np.argmax(low + high))
    # As an image, which Paddle reflects; and its oneDNN crashes in padding arrays of three axes.
    moved = x.moveaxis(axis, -1)
    image = moved.reshape([1] * (4 - x.ndim) + moved.shape)
    padded = F.pad(image, [int(low[axis]), int(high[axis]), 0, 0], mode, constant)
    return padded.reshape([*moved.shape[:-1], padded.shape[-1]]).moveaxis(-1, axis)


def _resize(attributes: Attributes, x: Any, _: Any, scales: Any = None, sizes: Any = None) -> Any:
    mode = {b"nearest": "nearest", b"linear": "bilinear"}[attributes.get("mode", b"nearest")]
    if sizes is not None:
        return F.interpolate(x, [int(size) for size in sizes[2:]], mode=mode)
    return F.interpolate(x, scale_factor=[float(scale) for scale in scales[2:]], mode=mode)


def _clip(attributes: Attributes, x: Any, low: Any = None, high: Any = None) -> Any:
    low, high = attributes.get("min", low), attributes.get("max", high)
    if low is not None and float(low) == 0 and high is not None and float(high) == 6:
        return F.relu6(x)
    return x.clip(None if low is None else float(low), None if high is None else float(high))


def _reshape(_: Attributes, x: Any, shape: Any) -> Any:
    return x.reshape([int(size) for size in shape])


def _cast(attributes: Attributes, x: Any) -> Any:
    return x.astype(str(onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])))


def _gather(attributes: Attributes, x: Any, indices: Any) -> Any:
    axis = attributes.get("axis", 0)
    if indices.ndim == 0:
        index = int(indices) % x.shape[axis]
        return paddle.slice(x, [axis], [index], [index + 1]).squeeze([axis])
    return paddle.gather(x, paddle.to_tensor(indices), axis)


def _prelu(_: Attributes, x: Any, slope: Any) -> Any:
    return F.prelu(x, slope.reshape([-1]))


_ARITHMETIC = {"Add", "Div", "Equal", "Mul", "Pow", "Sub"}

_ON_CONSTANTS = {
    "Clip", "Expand", "Gather", "Pad", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum",
    "Reshape", "Resize", "Slice", "Split", "Squeeze", "Unsqueeze",
}  # fmt: skip
"""Their inputs from the second on are shapes, axes and limits."""

_FAR = 2**31 - 1

_CALLS: Mapping[str, Callable[..., Any]] = {
    "Add": _binary(lambda x, y: x + y),
    "AveragePool": _pool(F.avg_pool2d),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda a, *values: paddle.concat(list(values), a["axis"]),
    "Conv": _conv,
    "ConvTranspose": _transposed_conv,
    "Div": _binary(lambda x, y: x / y),
    "Equal": _binary(lambda x, y: x == y),
    "Exp": _unary(paddle.exp),
    "Expand": lambda _, x, shape: paddle.expand(x, [int(size) for size in shape]),
    "Flatten": lambda a, x: paddle.flatten(x, a.get("axis", 1)),
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, x: F.adaptive_avg_pool2d(x, 1),
    "GlobalMaxPool": lambda _, x: paddle.max(x, list(range(2, x.ndim)), keepdim=True),
    "HardSigmoid": lambda a, x: F.hardsigmoid(x, a.get("alpha", 0.2), a.get("beta", 0.5)),
    "HardSwish": _unary(F.hardswish),
    "Identity": _unary(lambda x: x),
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "Log": _unary(paddle.log),
    "MatMul": lambda _, x, y: paddle.matmul(x, y),
    "Max": _several(paddle.maximum),
    "MaxPool": _pool(F.max_pool2d),
    "Min": _several(paddle.minimum),
    "Mul": _binary(lambda x, y: x * y),
    "Neg": _unary(lambda x: -x),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _binary(lambda x, y: x**y),
    "Reciprocal": _unary(paddle.reciprocal),
    "ReduceMax": _reduction(paddle.max),
    "ReduceMean": _reduction(paddle.mean),
    "ReduceMin": _reduction(paddle.min),
    "ReduceSum": _reduction(paddle.sum),
    "Relu": _unary(F.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": _unary(F.sigmoid),
    "Slice": _slice,
    "Softmax": lambda a, x: F.softmax(x, a.get("axis", -1)),
    "Split": _split,
    "Sqrt": _unary(paddle.sqrt),
    "Squeeze": lambda a, x, axes=None: paddle.squeeze(x, _axes(a, axes)),
    "Sub": _binary(lambda x, y: x - y),
    "Tanh": _unary(paddle.tanh),
    "Transpose": lambda a, x: paddle.transpose(x, a["perm"]),
    "Unsqueeze": lambda a, x, axes=None: paddle.unsqueeze(x, _axes(a, axes)),
    "Where": lambda _, c, x, y: paddle.where(c, x, y),
}
