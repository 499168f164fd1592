"""The error that rounding an activation causes in the outputs of the ops that read it.

A channel's error reaches an output through that channel's weights. Errors of different channels
and taps are taken to be independent, as rounding errors nearly are, so their squares add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from ..program.folding.linear import weight_layout
from ..program.mapped_files import forget_pages
from ..program.model import Model
from ..program.op import Op
from ..program.parameters import Array
from ..program.quantizable import WeightedOp
from ..program.ranges import Grid

_BLOCK_BYTES = 1 << 25
_MOST_KEPT_BYTES = 1 << 27


class Reader:
    """How strongly an op with a float32 weight reads each channel of its activation."""

    def __init__(self, desc: Op, weight: Array) -> None:
        self._weights = weight_layout(desc, weight.shape).grouped(weight)
        self.taps = self._weights.shape[-1]  # how many weights an output has per input channel

    @cached_property
    def _kept(self) -> Array | None:
        """The energy of all outputs, unless it takes much memory."""
        is_small = self._weights.nbytes <= _MOST_KEPT_BYTES
        return self._energy(slice(None)) if is_small else None

    def _energy(self, outputs: slice) -> Array:
        """Return the sum of the squared weights over the taps: float64[groups, outputs, inputs]."""
        if self.taps == 1:  # numpy is slow to reduce an axis of length one
            return np.square(self._weights[:, outputs, :, 0], dtype=np.float64)
        weights = self._weights[:, outputs].astype(np.float64)
        energy: Array = np.einsum("goit,goit->goi", weights, weights)
        return energy

    def gathered(self, channels: Array) -> Array:
        """Sum one value per input channel, weighted by `_energy`, per output: [groups, outputs]."""
        by_group = channels.reshape(len(self._weights), -1)
        parts = [self._kept] if self._kept is not None else map(self._energy, self._blocks())
        # Not by BLAS: its sums depend on the number of threads.
        return np.concatenate([np.einsum("goi,gi->go", part, by_group) for part in parts], axis=1)

    def largest(self, factors: Array) -> Array:
        """Return the largest magnitude of each output's weights times factors: [groups, outputs].

        There is one factor per input channel.
        """
        by_group = self.by_group(factors)[..., None]
        found = []
        for outputs in self._blocks():
            scaled = self._weights[:, outputs] * by_group
            found.append(np.abs(scaled, out=scaled).max(axis=(2, 3)))
        return np.concatenate(found, axis=1)

    def by_group(self, channels: Array) -> Array:
        """Shape one value per input channel as [groups, 1, inputs]."""
        return channels.reshape(len(self._weights), 1, -1)

    def _blocks(self) -> Iterator[slice]:
        """Yield slices of the outputs whose weights take little memory."""
        outputs = self._weights.shape[1]
        step = max(1, _BLOCK_BYTES * outputs // max(1, self._weights.nbytes))
        for start in range(0, outputs, step):
            yield slice(start, start + step)


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

    def __init__(self, rows: Array, readers: Sequence[Reader]) -> None:
        """Take a sample of the activation, float32[positions, channels], and its readers."""
        self._rows = rows
        self._power = mean_square(rows)
        self._outputs = [(reader, reader.gathered(self._power)) for reader in readers]

    def of_activation(self, grid: Grid, factors: Array | None = None) -> float:
        """Return the cost of rounding the activation to ``grid``.

        The factors, float32[channels], first divide the activation and multiply the weights.
        """
        if factors is None:
            error = mean_square(grid.rounded(self._rows) - self._rows)
        else:
            scaled = self._rows / factors
            error = mean_square((grid.rounded(scaled) - scaled) * factors)
        return sum(mean_share(reader.gathered(error), power) for reader, power in self._outputs)

    def of_weights(self, factors: Array, levels: int) -> float:
        """Return the cost of rounding weights to nearest, with one scale per output channel."""
        read = self._power / factors.astype(np.float64) ** 2
        total = 0.0
        for reader, power in self._outputs:
            largest = reader.largest(factors)
            noise = (largest.astype(np.float64) / levels) ** 2 / 12
            total += mean_share(noise * reader.taps * reader.by_group(read).sum(axis=-1), power)
        return total


def mean_square(values: Array) -> Array:
    """Return the mean square of each channel of [positions, channels]: float64[channels]."""
    mean: Array = np.square(values, dtype=np.float64).mean(axis=0)
    return mean


def mean_share(error: Array, power: Array) -> float:
    """Return an error's share of the power of outputs that are not always zero, on average."""
    seen = power > 0
    return float((error[seen] / power[seen]).mean()) if seen.any() else 0.0
