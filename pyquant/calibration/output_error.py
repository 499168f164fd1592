"""The error that rounding an activation causes in the outputs of the ops that read it.

A channel's error reaches an output through that channel's weights. Errors of different channels
and taps are taken to be independent, as rounding errors nearly are, so their squares add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .. import kernels
from ..program.folding.linear import weight_layout
from ..program.mapped_files import forget_pages
from ..program.matrix_products import PRODUCTS
from ..program.model import Model
from ..program.op import Op
from ..program.parameters import Array
from ..program.quantizable import WeightedOp
from ..program.ranges import Grid

_ROWS = 64  # whose squares are in memory at once
_NOTHING = 1e-60  # the power of a position of zeros: greater values become 1 as float32


class Reader:
    """How strongly an op with a float32 weight reads each channel of its activation."""

    def __init__(self, desc: Op, weight: Array) -> None:
        by_output = weight_layout(desc, weight.shape).grouped(weight)
        groups, outputs, _, self.taps = by_output.shape  # an output has taps for each input channel
        rows = by_output.transpose(0, 2, 3, 1).reshape(groups, -1, outputs)
        self._rows = np.ascontiguousarray(rows)  # those of an input's taps come one after another
        self.is_product = desc.type in PRODUCTS

    def gathered(self, channels: Array) -> Array:
        """Sum one value per input channel, times the squared weights, per output.

        Takes float64[inputs], returns float64[groups, outputs].
        """
        return kernels.scaled_square_sums(self._rows, self._by_row(channels))

    def largest(self, factors: Array) -> Array:
        """Return the largest magnitude of each output's weights times factors.

        There is one factor per input channel, float32[inputs]. Returns float32[groups, outputs].
        """
        return kernels.scaled_maxima(self._rows, self._by_row(factors))

    @property
    def powers(self) -> Array:
        """The mean square of the weights of each input channel: float64[inputs]."""
        rows = self._rows.reshape(-1, self._rows.shape[-1])
        parts = (rows[first : first + _ROWS] for first in range(0, len(rows), _ROWS))
        by_row = np.concatenate([np.square(part, dtype=np.float64).mean(axis=-1) for part in parts])
        powers: Array = by_row.reshape(-1, self.taps).mean(axis=-1)
        return powers

    def by_group(self, channels: Array) -> Array:
        """Shape one value per input channel as [groups, 1, inputs]."""
        return channels.reshape(len(self._rows), 1, -1)

    def _by_row(self, channels: Array) -> Array:
        return np.repeat(channels, self.taps).reshape(len(self._rows), -1)


def readers_of(
    model: Model, ops: Sequence[WeightedOp], factors: Mapping[str, Array] | None = None
) -> list[Reader]:
    """Return the readers of an activation; ``factors`` multiply weights, by the weights' names."""
    readers = []
    for op in ops:
        weight = model.made(op.weight)
        if factors and op.weight in factors:
            weight = weight * factors[op.weight]
        readers.append(Reader(op.desc(model), weight))
    return readers


def forget_weights(model: Model, ops: Sequence[WeightedOp]) -> None:
    """Free the pages of the file that the weights of ops are mapped from."""
    for op in ops:
        forget_pages(model.parameters[op.weight])


class OutputCost:
    """The cost of quantization in the outputs of the ops that read an activation.

    A cost is the error's share of an output's power: the mean over outputs, summed over the ops.
    """

    def __init__(self, rows: Array, readers: Sequence[Reader], alike: bool = False) -> None:
        """Take a sample of the activation, float32[positions, channels], and its readers.

        With ``alike``, all positions count alike, however large their values are.
        """
        self._rows = rows
        self._shares = positions_alike(rows) if alike else np.ones((len(rows), 1), np.float32)
        self.power = self._mean_square(rows)
        self._outputs = [(reader, reader.gathered(self.power)) for reader in readers]

    @property
    def weight_power(self) -> Array:
        """The mean squares of the weights that read each channel: float64[channels]."""
        powers: Array = np.mean([reader.powers for reader, _ in self._outputs], axis=0)
        return powers

    def of_activation(self, grid: Grid, factors: Array | None = None) -> float:
        """Return the cost of rounding the activation to ``grid``.

        The factors, float32[channels], first divide the activation and multiply the weights.
        """
        if factors is None:
            return self.of_errors(grid.rounded(self._rows) - self._rows)
        scaled = self._rows / factors
        return self.of_errors((grid.rounded(scaled) - scaled) * factors)

    def of_errors(self, errors: Array) -> float:
        """Return the cost of errors of the activation: float32[positions, channels]."""
        error = self._mean_square(errors)
        return sum(mean_share(reader.gathered(error), power) for reader, power in self._outputs)

    def of_weights(self, factors: Array, levels: int) -> float:
        """Return the cost of rounding weights to nearest, with one scale per output channel."""
        read = self.power / factors.astype(np.float64) ** 2
        total = 0.0
        for reader, power in self._outputs:
            largest = reader.largest(factors)
            noise = (largest.astype(np.float64) / levels) ** 2 / 12
            total += mean_share(noise * reader.taps * reader.by_group(read).sum(axis=-1), power)
        return total

    def _mean_square(self, values: Array) -> Array:
        return mean_square(values * self._shares)


def positions_alike(rows: Array) -> Array:
    """Return what to multiply each position by for its power to be 1: float32[positions, 1]."""
    power = np.square(rows, dtype=np.float64).mean(axis=-1, keepdims=True)
    shares: Array = 1 / np.sqrt(np.where(power > _NOTHING, power, 1))
    return shares.astype(np.float32)


def mean_square(values: Array) -> Array:
    """Return the mean square of each channel of [positions, channels]: float64[channels]."""
    mean: Array = np.square(values, dtype=np.float64).mean(axis=0)
    return mean


def mean_share(error: Array, power: Array) -> float:
    """Return an error's share of the power of outputs that are not always zero, on average."""
    seen = power > 0
    return float((error[seen] / power[seen]).mean()) if seen.any() else 0.0
