"""Second moments of what linear ops read: by them a weight's rounding is judged.

The error of a rounded weight in an op's output, E |(W - W')x|^2, depends on the op's inputs by
E x x^T alone (AdaRound, arXiv 2004.10568). Of an image it is taken over some of its patches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy

import numpy as np

from .. import kernels
from ..program.model import Model
from ..program.op import Op
from ..program.parameters import Array
from ..program.products import PRODUCTS
from ..program.quantizable import WeightedOp
from ..program.weights import QuantizedWeight
from .positions import spread
from .windows import Window

# Of the mean moment: chance correlations of few samples are not to decide (as in GPTQ, arXiv
# 2210.17323).
_DAMPING = 1e-2

_TRANSPOSED_INPUT = ("trans_x", "transpose_X")  # of matmul_v2 and matmul


class InputMoments:
    """The second moments of one op's inputs, over a few positions of each sample.

    Attributes:
        op: the op.
        sums: float64[groups, inputs, inputs]; an input is a channel, or a tap of one.
    """

    def __init__(self, op: WeightedOp, desc: Op, weight: Array) -> None:
        """Take how the op reads its inputs: from ``desc``, it in its program, and its weight."""
        self.op = op
        self._is_product = op.op_type in PRODUCTS
        self._groups = desc.geometry().groups
        size = weight.shape[1 - op.channel_axis] if self._is_product else weight[0].size
        self.sums = np.zeros((self._groups, size, size))
        self._samples = 0
        is_mul = op.op_type == "mul"
        self._columns = desc.attr("x_num_col_dims", 1) if is_mul else None
        self._transposed = any(desc.attr(name, False) for name in _TRANSPOSED_INPUT)
        self._channels_last = desc.is_channels_last
        if not self._is_product:
            self._window = Window.of(desc, weight.shape[2:])

    def observe(self, array: Array) -> None:
        """Add what the op reads in one batch, [samples, ...] float32, its values in order."""
        inputs = self._rows(array) if self._is_product else self._patches(array)
        self._samples += len(inputs)
        for group, part in enumerate(np.split(inputs, self._groups, axis=1)):
            kernels.add_moments(np.ascontiguousarray(part), self.sums[group])

    def divided(self, factors: Array) -> InputMoments:
        """Return the moments of the inputs divided by factors, one per channel."""
        divided = copy(self)
        size = self.sums.shape[1]
        by_group = factors.astype(np.float64).reshape(self._groups, -1)
        inputs = np.repeat(by_group, size // by_group.shape[1], axis=1)
        divided.sums = self.sums / (inputs[:, :, None] * inputs[:, None, :])
        return divided

    def round(self, weight: QuantizedWeight) -> Array:
        """Return the integers of ``weight``, of its shape, that lose least on these inputs."""
        matrix, shape = self._matrix(weight.source)
        steps = np.broadcast_to(weight.step, len(matrix)).astype(np.float32)
        parts = []
        for rows, sums in zip(np.split(np.arange(len(matrix)), self._groups), self.sums):
            damped = sums.copy()
            damped[np.diag_indices(len(damped))] += _DAMPING * np.trace(damped) / len(damped)
            parts.append(kernels.round_by_moments(matrix[rows], steps[rows], damped, weight.bits))
        integers = np.concatenate(parts).reshape(shape)
        return np.ascontiguousarray(np.moveaxis(integers, 0, self.op.channel_axis))

    def errors(self, weight: QuantizedWeight, noise: float) -> tuple[Array, Array]:
        """Return what int8 adds to each output's power, and that power: float64[outputs] each.

        Args:
            weight: as integers.
            noise: the mean square of what the activation errs by, taken to be the same everywhere.
        """
        matrix, _ = self._matrix(weight.source)
        integers, _ = self._matrix(weight.integers)
        floats = matrix.astype(np.float64)
        wrong = integers * weight.step.reshape(-1, 1).astype(np.float64) - floats
        moments = self.sums / max(1, self._samples)
        groups = list(zip(np.split(floats, self._groups), np.split(wrong, self._groups), moments))
        power = np.concatenate([((w @ m) * w).sum(axis=1) for w, _, m in groups])
        error = np.concatenate([((d @ m) * d).sum(axis=1) for _, d, m in groups])
        return error + noise * (floats**2).sum(axis=1), power

    def _matrix(self, weight: Array) -> tuple[Array, tuple[int, ...]]:
        """Return a weight as [outputs, inputs], and its shape with the outputs first."""
        rows = np.moveaxis(weight, self.op.channel_axis, 0)
        return np.ascontiguousarray(rows.reshape(len(rows), -1)), rows.shape

    def _rows(self, array: Array) -> Array:
        if self._columns is not None:  # the axes behind them are one
            array = array.reshape(*array.shape[: self._columns], -1)
        if self._transposed:
            array = array.swapaxes(-1, -2)
        rows = array.reshape(len(array), -1, array.shape[-1])
        chosen = rows[:, spread(rows.shape[1])]
        inputs: Array = chosen.reshape(-1, array.shape[-1])
        return inputs

    def _patches(self, array: Array) -> Array:
        windows = self._window.over(np.moveaxis(array, -1, 1) if self._channels_last else array)
        ys, xs = np.divmod(spread(windows.shape[2] * windows.shape[3]), windows.shape[3])
        chosen = windows[:, :, ys, xs].swapaxes(1, 2)  # [samples, positions, channels, taps...]
        patches: Array = chosen.reshape(len(chosen) * len(ys), -1)
        return patches


Moments = Mapping[str, list[InputMoments]]
"""By the name of the activation, of each op that reads it."""


def moments_of(model: Model, ops: Iterable[WeightedOp]) -> dict[str, list[InputMoments]]:
    """Return the moments to collect for ``ops``, but for transposed convolutions."""
    found: dict[str, list[InputMoments]] = {}
    for op in ops:
        desc = op.desc(model)
        if op.op_type != "conv2d_transpose":
            moments = InputMoments(op, desc, model.parameters[op.weight])
            found.setdefault(op.activation, []).append(moments)
    return found


def first_readers(moments: Moments) -> dict[str, InputMoments]:
    """Return the moments by which each weight is rounded, those of its first op, by its name."""
    first: dict[str, InputMoments] = {}
    for several in moments.values():
        for one in several:
            first.setdefault(one.op.weight, one)
    return first
