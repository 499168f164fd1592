"""Which ops can be quantized, and where their activation, weight and channels are."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import NothingQuantizedError, SettingError, UnsupportedError
from ..settings import check_list
from .model import Model
from .names import QUANTIZED, SCALE, stems
from .op import Op
from .parameters import Array
from .reshaped import Axes, ReshapedParameter, reshaped_parameters


class QuantizableOp(NamedTuple):
    """How an op type takes a weight.

    Attributes:
        activation: the input slot of the activation.
        weight: the input slot of the weight; in a list, the matrices are weights, not the vectors.
        channel_axis: the weight's axis of output channels (rows of an embedding).
        transpose: the attribute that swaps the weight's last two axes, if there is one.
        is_weight_only: whether its activation holds indices, or the op has no int8 kernel.
        output: the output slot whose tensor names the op in messages, if it has several slots.
        more: further input slots of weights, with the same axis.
    """

    activation: str
    weight: str
    channel_axis: int
    transpose: str | None = None
    is_weight_only: bool = False
    output: str | None = None
    more: tuple[str, ...] = ()

    def weights(self, op: Op) -> list[str]:
        """Return the variables in the slots of weights."""
        return [name for slot in (self.weight, *self.more) for name in op.inputs(slot)]


# The weight of gru is two matrices in one, whose rows are out of order (gru_op.cc). But each column
# belongs to one unit of the hidden state.
QUANTIZABLE_OPS = {
    "conv2d": QuantizableOp("Input", "Filter", 0),
    "depthwise_conv2d": QuantizableOp("Input", "Filter", 0),
    "conv2d_transpose": QuantizableOp("Input", "Filter", 1),
    "mul": QuantizableOp("X", "Y", -1),
    "matmul": QuantizableOp("X", "Y", -1, "transpose_Y"),
    "matmul_v2": QuantizableOp("X", "Y", -1, "trans_y"),
    "lookup_table_v2": QuantizableOp("Ids", "W", 0, is_weight_only=True),
    "lookup_table": QuantizableOp("Ids", "W", 0, is_weight_only=True),
    "rnn": QuantizableOp("Input", "WeightList", 0, is_weight_only=True, output="Out"),
    "lstm": QuantizableOp("Input", "Weight", 1, is_weight_only=True, output="Hidden"),
    "gru": QuantizableOp("Input", "Weight", 1, is_weight_only=True, output="Hidden"),
    "fc": QuantizableOp("Input", "W", 1, is_weight_only=True),
    "fusion_lstm": QuantizableOp("X", "WeightX", 1, None, True, "Hidden", ("WeightH",)),
    "fusion_gru": QuantizableOp("X", "WeightX", 1, None, True, "Hidden", ("WeightH",)),
    "conv3d": QuantizableOp("Input", "Filter", 0, is_weight_only=True),
    "conv3d_transpose": QuantizableOp("Input", "Filter", 1, is_weight_only=True),
    "depthwise_conv2d_transpose": QuantizableOp("Input", "Filter", 0, is_weight_only=True),
    "deformable_conv": QuantizableOp("Input", "Filter", 0, is_weight_only=True),
}

CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
"""The op types whose filter is [outputs, inputs / groups, height, width]."""

OTHER = "other"
"""Stands for all other op types that read a large float parameter."""

WEIGHT_ONLY_OP_TYPES = [*QUANTIZABLE_OPS, OTHER]
ACTIVATION_OP_TYPES = [name for name, op in QUANTIZABLE_OPS.items() if not op.is_weight_only]


@dataclass(frozen=True)
class WeightedOp:
    """An op with a weight that can be quantized; an op with several has one of these for each.

    Attributes:
        position: its index among the ops of ``block``.
        channel_axis: the weight's axis of output channels; -1 if it has none.
        output: the op's output, which names the op in messages.
        reshaped_at: position of the op that reads the weight, if ops reshape it for this one; None
            if this one reads it itself.
    """

    block: int
    position: int
    op_type: str
    activation: str
    weight: str
    channel_axis: int
    output: str
    reshaped_at: int | None = None

    @property
    def read_at(self) -> int:
        """Position of the op that reads the weight from the parameters."""
        return self.position if self.reshaped_at is None else self.reshaped_at

    def desc(self, model: Model) -> Op:
        """Return the op in its program."""
        return Op(model.program.blocks[self.block].ops[self.position])


def readers_by_activation(ops: Iterable[WeightedOp]) -> dict[str, list[WeightedOp]]:
    """Return the ops that read each activation, by its name."""
    readers: dict[str, list[WeightedOp]] = {}
    for op in ops:
        readers.setdefault(op.activation, []).append(op)
    return readers


@dataclass(frozen=True)
class FloatOp:
    """An op that stays in float.

    Attributes:
        op_type: as ``"matmul_v2"``.
        name: its output's name; for a parameter that no op reads, of the type ``"parameter"``, the
            parameter's own.
        reason: why it stays in float.
        parameter: the float parameter that it reads, if known.
        bytes: the size of that parameter; 0 if it is not known.
        error: what its integers do to the outputs, as relative rms, if that is the reason.
    """

    op_type: str
    name: str
    reason: str
    parameter: str | None = None
    bytes: int = 0
    error: float | None = None


def declared_size(dims: Sequence[int], samples: float, length: float) -> float:
    """Return how many values a tensor has, by its declared dims.

    ``samples`` stands for an open first axis, and ``length`` for every other open one.
    """
    return math.prod(
        dim if dim >= 0 else (length if axis else samples) for axis, dim in enumerate(dims)
    )


def multiplications_for(outputs: float, weight: Array, channel_axis: int) -> float:
    """Return how many multiplications by its weight an op does for this many output values."""
    return float(outputs * weight.size / weight.shape[channel_axis])


def find_weighted_ops(
    model: Model,
    op_types: Collection[str],
    skip_tensors: Collection[str] = (),
    takes_reshaped: bool = False,
) -> tuple[list[WeightedOp], list[FloatOp]]:
    """Return the ops of ``op_types`` with a float weight, and those that must stay in float.

    An op that reads or writes one of ``skip_tensors`` stays in float. With ``takes_reshaped``, ops
    may reshape the weight first, as for conv1d; its channel axis is then that of the parameter.
    """
    weighted: list[WeightedOp] = []
    kept: list[FloatOp] = []
    reshaped = reshaped_parameters(model)
    for block_index, position, op in model.numbered_ops():
        if op.type not in op_types:
            continue
        for found in _weights_of(model, block_index, position, op, skip_tensors, reshaped):
            if isinstance(found, FloatOp):
                kept.append(found)
            elif found.reshaped_at is not None and not takes_reshaped:
                reason = "ops reshape its weight first; 'pyquant fold' does so once for all"
                kept.append(stays_float(model, found, reason))
            else:
                weighted.append(found)
    return weighted, kept


def find_other_readers(
    model: Model,
    ops: Sequence[WeightedOp],
    kept: Sequence[FloatOp],
    skip_tensors: Collection[str] = (),
) -> list[WeightedOp]:
    """Return every other op that reads a large float parameter, once for each parameter.

    ``ops`` and ``kept`` are from `find_weighted_ops`. What ``kept`` or ``skip_tensors`` keep in
    float is left out, and so are parameters that an op writes.
    """
    known = {(op.block, op.read_at, op.weight) for op in ops}
    in_float = {op.parameter for op in kept} | model.writes().keys() | set(skip_tensors)
    large = {
        name: array.shape
        for name, array in model.parameters.items()
        if _is_large(array) and name not in in_float
    }
    found = []
    for block, position, op in model.numbered_ops():
        names = [name for name in dict.fromkeys(op.reads()) if name in large]
        is_skipped = any(name in skip_tensors for name in (*op.reads(), *op.writes()))
        if not names or op.type == "fetch" or op.has_block() or is_skipped:
            continue
        kind = QUANTIZABLE_OPS.get(op.type)
        weights = () if kind is None else kind.weights(op)
        for name in names:
            if name not in weights and (block, position, name) not in known:
                axis = _axis_of_rows(large[name])
                output = output_name(op)
                found.append(WeightedOp(block, position, op.type, "", name, axis, output))
    return found


_VALUES_OF_A_ROW = 32  # or more: fewer are not worth a scale of their own


def _axis_of_rows(shape: Sequence[int]) -> int:
    """Return the first axis whose places are worth a scale each, -1 if there is none."""
    size = math.prod(shape)
    found = (a for a, n in enumerate(shape) if n > 1 and size // n >= _VALUES_OF_A_ROW)
    return next(found, -1)


def refuse_nothing(
    model: Model,
    op_types: Collection[str],
    weighted: Collection[WeightedOp],
    kept: Sequence[FloatOp],
) -> None:
    """Raise NothingQuantizedError if no op of ``op_types`` has a weight left to quantize."""
    if weighted:
        return
    why = f" The first of {len(kept)}: {kept[0].reason}." if kept else ""
    raise NothingQuantizedError(
        f"{model.model_path}: no op of type {', '.join(op_types)} has a weight that can be "
        f"quantized.{why} Look at the model by 'pyquant inspect'."
    )


def stays_float(model: Model, op: WeightedOp, reason: str) -> FloatOp:
    return FloatOp(op.op_type, op.output, reason, op.weight, model.parameters[op.weight].nbytes)


def output_name(op: Op) -> str:
    """Return the name of the output that names an op in messages."""
    kind = QUANTIZABLE_OPS.get(op.type)
    outputs = op.outputs(kind.output) if kind and kind.output else ()
    return next(iter(outputs or op.writes()), "?")


def check_quantizable(model: Model, skip_tensors: Collection[str]) -> None:
    """Raise UnsupportedError if a model is quantized, SettingError if it lacks a tensor."""
    refuse_quantized(model)
    _check_names(model, skip_tensors)


def refuse_quantized(model: Model) -> None:
    names = stems(model.parameters, SCALE)
    scaled = names.union(f"{name}{QUANTIZED}" for name in names)
    for op in model.ops():
        is_of_integers = op.type in _READ_INTEGERS and not scaled.isdisjoint(op.reads())
        if is_of_integers or op.type in INT8_OP_TYPES or op.type.startswith("fake_"):
            raise UnsupportedError(
                f"{model.model_path}: it has '{op.type}' ops"
                f"{' of integer weights' if is_of_integers else ''}, so it is quantized already. "
                "Give the float model."
            )


_READ_INTEGERS = ("cast", "bitwise_and")
"""The op types by which dynamic mode begins to dequantize weights."""

INT8_OP_TYPES = ("quantize_linear", "dequantize_linear", "quantize", "dequantize")
"""The op types by which a model with int8 activations is known."""


def _check_names(model: Model, names: Collection[str]) -> None:
    check_list("skip_tensor_list", names)
    known = {var.name for block in model.program.blocks for var in block.vars}
    for name in names:
        if name not in known:
            raise SettingError(
                f"skip_tensor_list: {model.model_path} has no tensor '{name}'. "
                "'pyquant inspect' lists the names."
            )


def _weights_of(
    model: Model,
    block: int,
    position: int,
    op: Op,
    skip_tensors: Collection[str],
    reshaped: Mapping[tuple[int, str], ReshapedParameter],
) -> Iterator[WeightedOp | FloatOp]:
    """Yield each weight of an op, or why it stays in float."""
    kind = QUANTIZABLE_OPS[op.type]
    output = output_name(op)
    names = kind.weights(op) or [""]
    sources = {name: reshaped.get((block, name)) for name in names}
    parameters = [name if source is None else source.name for name, source in sources.items()]
    for name in (*op.reads(), *op.writes(), *parameters):
        if name in skip_tensors:
            whole = model.parameters.get(parameters[0]) if len(names) == 1 else None
            of = (parameters[0], whole.nbytes) if whole is not None else (None, 0)
            yield FloatOp(op.type, output, f"'{name}' is in skip_tensor_list", *of)
            return
    activation = op.input(kind.activation)
    for source, weight in zip(sources.values(), parameters):
        array: Any = model.parameters.get(weight)
        if array is None:
            yield FloatOp(
                op.type, output, f"its input {kind.weight} is computed, it is not a weight"
            )
            continue
        if array.ndim < _MATRIX_RANK and len(names) > 1:
            continue  # a bias
        reason = _why_not(weight, array)
        if reason is None:
            axis = _channel_axis(op, range(array.ndim) if source is None else source.axes)
            if axis is None:  # the channels are not along one axis before the weight is reshaped
                axis = _axis_of_rows(array.shape)
            at = None if source is None else source.position
            yield WeightedOp(block, position, op.type, activation, weight, axis, output, at)
        else:
            yield FloatOp(op.type, output, reason, weight, array.nbytes)


_MATRIX_RANK = 2


def _channel_axis(op: Op, axes: Axes) -> int | None:
    """Return the parameter's axis of channels; ``axes`` maps the weight's axes to its own."""
    kind = QUANTIZABLE_OPS[op.type]
    transposed = kind.transpose is not None and op.attr(kind.transpose, False)
    return axes[(kind.channel_axis - int(transposed)) % len(axes)] if axes else None


def _why_not(weight: str, array: Any) -> str | None:
    """Return why a parameter cannot be quantized, None if it can."""
    if array.dtype.kind not in "fu" or array.dtype.itemsize not in (2, 4):
        return f"weight '{weight}' is {array.dtype}, not fp32/fp16/bf16"
    if array.ndim < _MATRIX_RANK:
        return f"weight '{weight}' has {array.ndim} dimension(s)"
    if not array.size:
        return f"weight '{weight}' is empty"
    return None


LARGE = 1 << 16
"""The least bytes of a float parameter to report; biases and normalizations take fewer."""


def _is_large(array: Any) -> bool:
    is_float = array.dtype.kind == "f" or array.dtype == np.uint16
    return bool(is_float and array.nbytes >= LARGE)


def with_large_parameters(
    model: Model, ops: Sequence[WeightedOp], kept: Sequence[FloatOp]
) -> list[FloatOp]:
    """Return ``kept`` and every float parameter of `LARGE` bytes or more that stays float.

    The weights of ``ops`` become integers. ``kept`` are the known ops that stay in float.
    """
    told = list(kept)
    known = {op.parameter for op in kept}
    for name, op_type, output in _large(model, ops):
        size = model.parameters[name].nbytes
        same = [index for index, op in enumerate(told) if op.name == output]
        if name in known:
            continue
        if not same:
            told.append(FloatOp(op_type, output, _REASONS.get(op_type, _NO_WEIGHT), name, size))
        elif told[same[0]].parameter is None:
            told[same[0]] = replace(told[same[0]], parameter=name, bytes=size)
        else:
            told.append(FloatOp(op_type, output, told[same[0]].reason, name, size))
    return told


def _large(model: Model, ops: Sequence[WeightedOp]) -> Iterator[tuple[str, str, str]]:
    """Yield each large float parameter with the type and the output of an op that reads it.

    A parameter that is also read other than as a weight is stored beside its integers.
    """
    weights = {(op.block, op.read_at, op.weight) for op in ops}
    readers: dict[str, tuple[str, str]] = {}
    for block, position, op in model.numbered_ops():
        for name in op.reads():
            if (block, position, name) not in weights:
                readers.setdefault(name, (op.type, output_name(op)))
    quantized = {op.weight for op in ops}
    for name, array in model.parameters.items():
        if _is_large(array) and (name in readers or name not in quantized):
            yield (name, *readers.get(name, ("parameter", name)))


_NO_WEIGHT = "no op of quantizable_op_type reads it as its weight"
_REASONS = {"parameter": "no op reads it"}
