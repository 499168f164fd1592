"""Ops with a weight as linear maps, which take in affine maps before and behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..model import Model, Pending
from ..op import Op
from ..parameters import Array
from ..quantizable import QUANTIZABLE_OPS, WeightedOp
from .affine import Affine, Vector


class LinearOp:
    """A linear op whose weight and bias may change: y = W (x) + bias.

    It has ``channel_axis``, ``inputs``, ``outputs`` and ``takes_shift`` of its `WeightLayout`.
    """

    def __init__(self, op: Op, weight: Pending, size: int, layout: WeightLayout) -> None:
        kind = QUANTIZABLE_OPS[op.type]
        self.source = op.input(kind.activation)
        self.output = op.output()
        self.weight = op.input(kind.weight)
        self.channel_axis = layout.channel_axis
        self.inputs = layout.inputs
        self.outputs = layout.outputs
        self.takes_shift = layout.takes_shift
        self.layout = layout
        self._stored, self._size = weight, size
        self._input_scale: Vector = np.ones(1)
        self._output_scale: Vector = np.ones(1)
        self.bias: Vector = np.zeros(1)

    @property
    def values(self) -> Array:
        """The weight as it is now, float32."""
        values = self._stored.compute()
        for scale, channels, along in (
            (self._output_scale, self.outputs, self.layout.along_outputs),
            (self._input_scale, self.inputs, self.layout.along_inputs),
        ):
            if (scale != 1).any():
                out = None if values is self._stored.stored else values
                with np.errstate(over="ignore", invalid="ignore"):  # why_float says so of a weight
                    factors: Any = np.broadcast_to(scale, channels).astype(np.float32)
                    values = np.multiply(values, along(factors), out=out)
        return values

    @property
    def is_rescaled(self) -> bool:
        """Whether the weight differs from the stored one."""
        return bool((self._output_scale != 1).any() or (self._input_scale != 1).any())

    def take_following(self, affine: Affine) -> None:
        """Apply ``affine`` to the output of this op."""
        self._output_scale = self._output_scale * affine.scale
        self.bias = self.bias * affine.scale + affine.shift

    def take_preceding(self, affine: Affine) -> None:
        """Apply ``affine`` to the input of this op."""
        if affine.shift.any():
            shift = np.broadcast_to(self._input_scale * affine.shift, self.inputs)
            weighted = self._stored.compute().astype(np.float64) * self.layout.along_inputs(shift)
            self.bias = self.bias + self._output_scale * self.layout.total(weighted)
        self._input_scale = self._input_scale * affine.scale

    def composed_with(self, first: LinearOp) -> tuple[Array, bool] | None:
        """Return the weight of one op that computes ``first`` and then this op.

        Also whether it moves over its input as ``first`` does, and not as this op. None if there is
        no such op, or if it would not take fewer multiplications.
        """
        if first.channel_axis != self.channel_axis or (first.bias.any() and not self.takes_shift):
            return None
        sizes = first._size, self._size
        if sizes[0] * sizes[1] >= sum(sizes) * self.inputs**2:
            return None
        composed = self.layout.composed(self.values, first.layout, first.values)
        return None if composed is None else (composed[0].astype(np.float32), composed[1])


class WeightLayout:
    """How the channels of a linear op lie in its activations and its weight.

    Attributes:
        channel_axis: the axis of the channels of its input and output, from the end if negative.
        inputs: how many channels it reads.
        outputs: how many channels it writes.
        groups: of channels; an output reads the inputs of its group.
        outputs_first: whether axis 0 of the weight is that of the outputs, not of the inputs.
        takes_shift: whether a constant added to its input adds a constant to its output. False if
            the op pads, since padding follows the addition.
    """

    channel_axis: int
    inputs: int
    outputs: int
    groups: int
    outputs_first: bool
    takes_shift: bool

    def along_inputs(self, vector: Vector) -> Any:
        """Shape one value per input channel to multiply the weight."""
        raise NotImplementedError

    def along_outputs(self, vector: Vector) -> Any:
        """Shape one value per output channel to multiply the weight."""
        raise NotImplementedError

    def total(self, weighted: Any) -> Vector:
        """Sum the weight over everything but the output channels."""
        raise NotImplementedError

    def grouped(self, weight: Array) -> Array:
        """Shape a weight as [groups, outputs, inputs, taps], outputs and inputs of a group."""
        raise NotImplementedError

    def composed(
        self, values: Array, first: WeightLayout, before: Array
    ) -> tuple[Any, bool] | None:
        """As `LinearOp.composed_with`, in float64; ``before`` is the weight of layout ``first``."""
        return None


class _Convolution(WeightLayout):
    """Filter [outputs, inputs / groups, height, width]."""

    outputs_first = True

    def __init__(self, op: Op, shape: tuple[int, ...]) -> None:
        geometry = op.geometry()
        self.groups = geometry.groups
        self.outputs, self.inputs = shape[0], shape[1] * self.groups
        self.channel_axis = 3 if geometry.is_channels_last else 1
        self.takes_shift = not geometry.pads
        moves_by_one = set(geometry.strides) == {1}
        self._is_pointwise = shape[2:] == (1, 1) and moves_by_one and self.takes_shift

    def along_inputs(self, vector: Vector) -> Any:
        per_group = vector.reshape(self.groups, -1)
        return np.repeat(per_group, self.outputs // self.groups, axis=0)[:, :, None, None]

    def along_outputs(self, vector: Vector) -> Any:
        return vector[:, None, None, None]

    def total(self, weighted: Any) -> Vector:
        total: Vector = weighted.sum(axis=(1, 2, 3))
        return total

    def grouped(self, weight: Array) -> Array:
        taps = math.prod(weight.shape[2:])
        return weight.reshape(self.groups, -1, weight.shape[1], taps)

    def composed(
        self, values: Array, first: WeightLayout, before: Array
    ) -> tuple[Any, bool] | None:
        if not isinstance(first, _Convolution) or {self.groups, first.groups} != {1}:
            return None
        last, before = values.astype(np.float64), before.astype(np.float64)
        if first._is_pointwise:
            return np.einsum("omhw,mi->oihw", last, before[:, :, 0, 0], optimize=True), False
        if self._is_pointwise:
            return np.einsum("om,mihw->oihw", last[:, :, 0, 0], before, optimize=True), True
        return None


class _TransposedConvolution(WeightLayout):
    """Filter [inputs, outputs / groups, height, width].

    It takes no shift, since the number of taps that reach an output depends on its position.
    """

    outputs_first = False
    takes_shift = False

    def __init__(self, op: Op, shape: tuple[int, ...]) -> None:
        geometry = op.geometry()
        self.groups = geometry.groups
        self.inputs, self.outputs = shape[0], shape[1] * self.groups
        self.channel_axis = 3 if geometry.is_channels_last else 1

    def along_inputs(self, vector: Vector) -> Any:
        return vector[:, None, None, None]

    def along_outputs(self, vector: Vector) -> Any:
        per_group = vector.reshape(self.groups, -1)
        return np.repeat(per_group, self.inputs // self.groups, axis=0)[:, :, None, None]

    def grouped(self, weight: Array) -> Array:
        taps = math.prod(weight.shape[2:])
        by_group: Array = weight.reshape(self.groups, -1, weight.shape[1], taps).swapaxes(1, 2)
        return by_group


class _Product(WeightLayout):
    """Weight [inputs, outputs], or the other way round if it is read transposed."""

    channel_axis = -1
    groups = 1
    takes_shift = True

    def __init__(self, op: Op, shape: tuple[int, ...]) -> None:
        transpose = QUANTIZABLE_OPS[op.type].transpose
        self.outputs_first = transpose is not None and op.attr(transpose, False)
        self._alpha = op.attr("alpha", 1.0)
        self.inputs, self.outputs = reversed(shape) if self.outputs_first else shape

    def along_inputs(self, vector: Vector) -> Any:
        return vector[None, :] if self.outputs_first else vector[:, None]

    def along_outputs(self, vector: Vector) -> Any:
        return vector[:, None] if self.outputs_first else vector[None, :]

    def total(self, weighted: Any) -> Vector:
        total: Vector = self._alpha * weighted.sum(axis=1 if self.outputs_first else 0)
        return total

    def grouped(self, weight: Array) -> Array:
        matrix: Array = weight if self.outputs_first else weight.T
        return matrix[None, :, :, None]

    def composed(
        self, values: Array, first: WeightLayout, before: Array
    ) -> tuple[Any, bool] | None:
        if not isinstance(first, _Product):
            return None
        product = first._alpha * first._matrix(before) @ self._matrix(values)
        return self._matrix(product), False

    def _matrix(self, values: Array) -> Any:
        """Convert a weight of this op to [inputs, outputs], or back."""
        return (values.T if self.outputs_first else values).astype(np.float64)


def linear_op(op: Op, rank: int, model: Model) -> LinearOp | None:
    """Read ``op`` as a linear map by a float32 parameter; ``rank`` is that of its activation."""
    layout = _LAYOUTS.get(op.type)
    if layout is None:
        return None
    kind = QUANTIZABLE_OPS[op.type]
    name = op.input(kind.weight)
    array = model.parameters.get(name)
    if array is None or array.dtype != np.float32 or not _is_plain(op, rank):
        return None
    if not array.size or array.ndim != (2 if layout is _Product else 4):
        return None
    return LinearOp(op, model.yet_to_be_made(name), array.size, layout(op, array.shape))


_LAYOUTS: dict[str, Callable[[Op, tuple[int, ...]], WeightLayout]] = {
    "conv2d": _Convolution,
    "depthwise_conv2d": _Convolution,
    "conv2d_transpose": _TransposedConvolution,
    "mul": _Product,
    "matmul": _Product,
    "matmul_v2": _Product,
}

LINEAR_OP_TYPES = frozenset(_LAYOUTS)


def weight_layout(op: Op, shape: tuple[int, ...]) -> WeightLayout:
    return _LAYOUTS[op.type](op, shape)


def _is_plain(op: Op, rank: int) -> bool:
    """Return whether the op only applies a weight to the channels of its input."""
    if any(op.inputs(slot) for slot in ("Bias", "ResidualData")):
        return False
    if op.attr("trans_x", False) or op.attr("transpose_X", False):
        return False
    # Paddle 3.3 fuses no bias into these (conv_bias_onednn_fuse_pass.cc), and adds it along another
    # axis if it is not fused.
    if op.type == "depthwise_conv2d" and op.is_channels_last:
        return False
    return op.type != "mul" or op.attr("x_num_col_dims", 1) == rank - 1


def channel_axes(model: Model, ops: Iterable[WeightedOp]) -> dict[str, int]:
    """Return the channel axis of each activation of ``ops``, if all its readers use the same one.

    It counts from the end if negative. Tensors with a single axis are left out.
    """
    dims = model.dims()
    axes: dict[str, set[int | None]] = {}
    for op in ops:
        desc = op.desc(model)
        rank = len(dims.get(op.activation, ()))
        linear = linear_op(desc, rank, model) if rank > 1 else None
        axis = None if linear is None else linear.channel_axis
        axes.setdefault(op.activation, set()).add(axis)
    return {
        name: axis
        for name, found in axes.items()
        if len(found) == 1 and (axis := next(iter(found))) is not None
    }
