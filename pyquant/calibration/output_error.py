"""What rounding an activation costs in the outputs of the ops that read it.

A channel's error reaches an output by the weight of that channel there. Errors of different
channels and taps are taken to be independent, as those of rounding nearly are: squares add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..program.folding.linear import weight_layout
from ..program.model import Model
from ..program.parameters import Array
from ..program.quantizable import WeightedOp
from ..program.ranges import Grid


class Reader:
    """How strongly an op reads each channel of its activation.

    Attributes:
        energy: float64[groups, outputs, inputs], of each output, the sum of its squared weights of
            an input channel, over the taps.
        magnitude: float32 likewise, the largest of these weights.
        taps: how many weights there are of each.
    """

    def __init__(self, desc: Any, weight: Array) -> None:
        """Take them from a float32 weight, and the groups from the op's ``OpDesc``."""
        taps = weight_layout(desc, weight.shape).grouped(weight)
        self.energy = (taps.astype(np.float64) ** 2).sum(axis=-1)
        self.magnitude = np.abs(taps).max(axis=-1)
        self.taps = taps.shape[-1]

    def gathered(self, channels: Array) -> Array:
        """Return of one value per input channel what the outputs get: [groups, outputs]."""
        # Not by a BLAS, whose sums depend on its threads.
        total: Array = np.einsum("goi,gi->go", self.energy, channels.reshape(len(self.energy), -1))
        return total

    def by_group(self, channels: Array) -> Array:
        """Shape one value per input channel as [groups, 1, inputs]."""
        return channels.reshape(len(self.energy), 1, -1)


def readers_of(
    model: Model, ops: Sequence[WeightedOp], factors: Mapping[str, Array] | None = None
) -> list[Reader]:
    """Return how strongly ``ops`` read their activation.

    Args:
        model: of the ops.
        ops: that read the activation.
        factors: what weights are multiplied by, by their names.
    """
    readers = []
    for op in ops:
        weight = model.made(op.weight)
        if factors and op.weight in factors:
            weight = weight * factors[op.weight]
        readers.append(Reader(op.desc(model), weight))
    return readers


def activation_error(rows: Array, grid: Grid, readers: Sequence[Reader], factors: Array) -> float:
    """Return the mean share of the outputs' power that rounding an activation adds as error.

    Args:
        rows: float32[positions, channels], a sample of the activation.
        grid: of the integers of rows / factors.
        readers: the ops.
        factors: float32[channels]; the activation is divided by them, and the weights multiplied.
    """
    scaled = rows / factors
    wrong = (grid.rounded(scaled) - scaled) * factors
    error, power = (_mean_square(values) for values in (wrong, rows))
    return sum(_share(reader.gathered(error), reader.gathered(power)) for reader in readers)


def weight_error(rows: Array, readers: Sequence[Reader], factors: Array, levels: int) -> float:
    """Return the same for rounding the weights, per output channel, to the nearest integers."""
    power = _mean_square(rows)
    total = 0.0
    for reader in readers:
        largest = (reader.magnitude * reader.by_group(factors)).max(axis=-1)
        noise = (largest.astype(np.float64) / levels) ** 2 / 12
        read = reader.by_group(power / factors.astype(np.float64) ** 2).sum(axis=-1)
        total += _share(noise * reader.taps * read, reader.gathered(power))
    return total


def _mean_square(values: Array) -> Array:
    mean: Array = np.square(values, dtype=np.float64).mean(axis=0)
    return mean


def _share(error: Array, power: Array) -> float:
    seen = power > 0
    return float((error[seen] / power[seen]).mean()) if seen.any() else 0.0
