"""Second moments of the inputs of linear ops, by which the rounding of weights is judged.

The error that a rounded weight causes in an op's output, E |(W - W')x|^2, depends on the inputs
only through E x x^T (AdaRound, arXiv 2004.10568). Images contribute some of their patches. The
positions that a product reads count alike, as in `OutputCost`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import kernels
from ..program.mapped_files import forget_pages, moved_to_file
from ..program.matrix_products import PRODUCTS
from ..program.model import Model
from ..program.op import Op
from ..program.parameters import Array
from ..program.quantizable import WeightedOp
from ..program.weights import QuantizedWeight
from .layouts import spread
from .output_error import positions_alike
from .windows import Window

# The share of the mean moment that is added to the diagonal, so that chance correlations of few
# samples do not decide (as in GPTQ, arXiv 2210.17323).
_DAMPING = 1e-2

_MOST_ROWS = 256  # of each sample that a product reads

_TRANSPOSED_INPUT = ("trans_x", "transpose_X")  # attributes of matmul_v2 and matmul


@dataclass
class _Sums:
    """Sums of products of inputs: float64[groups, inputs, inputs]."""

    array: Array


class InputMoments:
    """The second moments of one op's inputs, over a few positions of each sample.

    An input is a channel, or a tap of one. Products that read an activation in the same way share
    its moments.
    """

    def __init__(self, op: WeightedOp, desc: Op, weight: Array) -> None:
        self.op = op
        self._is_product = op.op_type in PRODUCTS
        self._groups = desc.geometry().groups
        size = weight.shape[1 - op.channel_axis] if self._is_product else weight[0].size
        self._sums = _Sums(np.zeros((self._groups, size, size)))
        self._is_first = True  # of those that share the sums
        self._factors: tuple[Array, ...] = ()
        is_mul = op.op_type == "mul"
        self._columns = desc.attr("x_num_col_dims", 1) if is_mul else None
        self._transposed = any(desc.attr(name, False) for name in _TRANSPOSED_INPUT)
        self._channels_last = desc.is_channels_last
        if not self._is_product:
            self._window = Window.of(desc, weight.shape[2:])

    def observe(self, array: Array) -> None:
        """Add the op's activation in one batch, float32[samples, ...], with its values in order."""
        if not self._is_first:
            return
        if not self._sums.array.flags.writeable:  # it lies in a file
            self._sums.array = self._sums.array.copy()
        inputs = self._rows(array) if self._is_product else self._patches(array)
        for group, part in enumerate(np.split(inputs, self._groups, axis=1)):
            kernels.add_moments(np.ascontiguousarray(part), self._sums.array[group])

    def share(self, other: InputMoments) -> bool:
        """Take the sums of ``other``, of the same activation, if they are the same."""
        same = self._is_product and self._reading == other._reading
        if same:
            self._sums, self._is_first = other._sums, False
        return same

    @property
    def sums(self) -> Array:
        """The sums of products of inputs: float64[groups, inputs, inputs]."""
        return self._sums.array

    def take(self, sums: Array) -> None:
        """Take sums of an earlier run; raise ValueError if they are those of other inputs."""
        mine = self._sums.array
        if sums.dtype != mine.dtype or sums.shape != mine.shape or not sums.flags.c_contiguous:
            raise ValueError(f"it holds {sums.dtype}{list(sums.shape)}, not {list(mine.shape)}")
        self._sums.array = sums

    @property
    def nbytes(self) -> int:
        """What the sums take, unless another op's are the same."""
        return self._sums.array.nbytes if self._is_first else 0

    @property
    def rounding_bytes(self) -> int:
        """What `round` takes beside the weight."""
        return int(self._sums.array[0].nbytes)

    def move_to_file(self) -> None:
        """Free the memory of the sums, once all batches are observed; see `moved_to_file`."""
        if self._is_first:
            self._sums.array = moved_to_file(self._sums.array)

    def divided(self, factors: Array) -> InputMoments:
        """Return the moments of the inputs divided by factors, one per channel."""
        divided = copy(self)
        divided._factors = (*self._factors, factors)
        return divided

    def round(self, weight: QuantizedWeight) -> Array:
        """Return ``weight`` rounded, in its shape, so that the outputs change least."""
        matrix, shape = self._matrix(weight.source)
        steps = np.broadcast_to(weight.step, len(matrix)).astype(np.float32)
        parts = []
        for group, rows in enumerate(np.split(np.arange(len(matrix)), self._groups)):
            damped = self._damped(group)
            parts.append(kernels.round_by_moments(matrix[rows], steps[rows], damped, weight.bits))
        integers = np.concatenate(parts).reshape(shape)
        return np.ascontiguousarray(np.moveaxis(integers, 0, self.op.channel_axis))

    def _damped(self, group: int) -> Array:
        """Return the moments of a group: float64[inputs, inputs]."""
        sums: Array = self._sums.array[group].copy()
        forget_pages(self._sums.array)
        for factors in self._factors:
            of_group = factors.astype(np.float64).reshape(self._groups, -1)[group]
            inputs = np.repeat(of_group, len(sums) // len(of_group))
            for row, factor in zip(sums, inputs):
                row /= factor * inputs
        sums[np.diag_indices(len(sums))] += _DAMPING * np.trace(sums) / len(sums)
        return sums

    @property
    def _reading(self) -> tuple[Any, ...]:
        return self._is_product, self._columns, self._transposed, self._sums.array.shape

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
        chosen = rows[:, spread(rows.shape[1], _MOST_ROWS)].reshape(-1, array.shape[-1])
        return chosen * positions_alike(chosen)

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
            known = found.setdefault(op.activation, [])
            for one in known:
                if moments.share(one):
                    break
            known.append(moments)
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
