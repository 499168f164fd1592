"""Second moments of the inputs of linear ops, by which the rounding of weights is judged.

The error that a rounded weight causes in an op's output, E |(W - W')x|^2, depends on the inputs
only through E x x^T (AdaRound, arXiv 2004.10568). Images contribute some of their patches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy

import numpy as np

from .. import kernels
from ..program.matrix_products import PRODUCTS
from ..program.model import Model
from ..program.op import Op
from ..program.parameters import Array
from ..program.quantizable import WeightedOp
from ..program.weights import QuantizedWeight
from .layouts import spread
from .windows import Window

# The share of the mean moment that is added to the diagonal, so that chance correlations of few
# samples do not decide (as in GPTQ, arXiv 2210.17323).
_DAMPING = 1e-2

_TRANSPOSED_INPUT = ("trans_x", "transpose_X")  # attributes of matmul_v2 and matmul


class InputMoments:
    """The second moments of one op's inputs, over a few positions of each sample.

    ``sums`` is float64[groups, inputs, inputs]; an input is a channel, or a tap of one.
    """

    def __init__(self, op: WeightedOp, desc: Op, weight: Array) -> None:
        self.op = op
        self._is_product = op.op_type in PRODUCTS
        self._groups = desc.geometry().groups
        size = weight.shape[1 - op.channel_axis] if self._is_product else weight[0].size
        self.sums = np.zeros((self._groups, size, size))
        is_mul = op.op_type == "mul"
        self._columns = desc.attr("x_num_col_dims", 1) if is_mul else None
        self._transposed = any(desc.attr(name, False) for name in _TRANSPOSED_INPUT)
        self._channels_last = desc.is_channels_last
        if not self._is_product:
            self._window = Window.of(desc, weight.shape[2:])

    def observe(self, array: Array) -> None:
        """Add the op's activation in one batch, float32[samples, ...], with its values in order."""
        inputs = self._rows(array) if self._is_product else self._patches(array)
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
        """Return ``weight`` rounded, in its shape, so that the outputs change least."""
        matrix, shape = self._matrix(weight.source)
        steps = np.broadcast_to(weight.step, len(matrix)).astype(np.float32)
        parts = []
        for rows, sums in zip(np.split(np.arange(len(matrix)), self._groups), self.sums):
            damped = sums.copy()
            damped[np.diag_indices(len(damped))] += _DAMPING * np.trace(damped) / len(damped)
            parts.append(kernels.round_by_moments(matrix[rows], steps[rows], damped, weight.bits))
        integers = np.concatenate(parts).reshape(shape)
        return np.ascontiguousarray(np.moveaxis(integers, 0, self.op.channel_axis))

    def _matrix(self, weight: Array) -> tuple[Array, tuple[int, ...]]:
        """Return a weight as [outputs, inputs], and its shape with the outputs first."""
        rows = np.moveaxis(weight, self.op.channel_axis, 0)
        return np.ascontiguousarray(rows.reshape(len(rows), -1)), rows.shape

    def _rows(self, array: Array) -> Array:
        if self._columns is not None:  # the remaining axes act as one
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
"""The moments for each op that reads an activation, by the activation's name."""


def moments_of(model: Model, ops: Iterable[WeightedOp]) -> dict[str, list[InputMoments]]:
    """Return the moments to collect for ``ops``, except transposed convolutions."""
    found: dict[str, list[InputMoments]] = {}
    for op in ops:
        desc = op.desc(model)
        if op.op_type != "conv2d_transpose":
            moments = InputMoments(op, desc, model.parameters[op.weight])
            found.setdefault(op.activation, []).append(moments)
    return found


def first_readers(moments: Moments) -> dict[str, InputMoments]:
    """Map each weight's name to the moments for rounding it, which are those of its first op."""
    first: dict[str, InputMoments] = {}
    for several in moments.values():
        for one in several:
            first.setdefault(one.op.weight, one)
    return first


def notes_on_moments(ops: Iterable[WeightedOp], moments: Moments) -> tuple[str, ...]:
    """Return a note on the weights of ``ops`` that have no moments, if there are any."""
    known = first_readers(moments)
    names = list(dict.fromkeys(op.weight for op in ops if op.weight not in known))
    if not names:
        return ()
    more = f" and {len(names) - 1} more of" if len(names) > 1 else " of a"
    return (
        f"round_type='adaround': weight '{names[0]}'{more} transposed convolution has its nearest "
        "integers, as no moments are kept of what it reads",
    )
