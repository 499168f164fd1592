"""Whether the data are like those that a model was trained on, judged by its batch_norms.

The mean of a linear op's output follows from the means of the channels that it reads, which
calibration sums up. batch_norm has kept that mean, and the variance, from training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np

from ..calibration.bias_correction import mean_outputs
from ..calibration.statistic import Statistics, channels_of
from ..program.folding.affine import affine_op
from ..program.folding.linear import LinearOp, linear_op
from ..program.model import Model
from ..program.op import Op, ops_of
from ..program.parameters import Array
from ..program.quantizable import QUANTIZABLE_OPS

# The upper quartile of the channels' distances from their means, in standard deviations. For
# MobileNetV1, V2 and V3-small and ResNet18 on Fashion-MNIST and for three networks of PP-OCRv4, it
# is 0.1 to 1.8 with the right data, up to 4.1 with only black or white images or noise, 72 to 430
# with images of 0 to 255, and 18 with a single dark one. (Images of 0 to 1 are not detected: 1.6.)
_FAR = 10.0

# If only the mean of the pixels was subtracted, the first batch_norm does not show it.
_LOOKED_AT = 3


class _Normalized(NamedTuple):
    """A linear op whose outputs a batch_norm reads."""

    linear: LinearOp
    desc: Op
    dims: list[int]  # of its input, as declared
    bias: Array  # float64, added in between, of one value or of one per channel
    norm: Op


def notes_on_data(model: Model, statistics: Statistics) -> list[str]:
    """Return a warning if the data are far from those that the model was trained on.

    The model may be folded. Statistics without channels tell nothing.
    """
    means = {name: one.sums.means for name, one in channels_of(statistics).items()}
    unfolded = model
    if model.folded is not None:
        unfolded = model.folded.original
        means = {name: mean for name, mean in means.items() if name not in model.folded.rescaled}
    for one in islice(_normalized(unfolded, means), _LOOKED_AT):
        far = float(np.quantile(_distances(unfolded, one, means[one.linear.source]), 0.75))
        if far >= _FAR:
            name = one.norm.input("X")
            return [
                f"calibration data: a quarter of the channels of '{name}' are on average {far:.0f} "
                "or more standard deviations away from where they were in training, by the "
                "batch_norm behind it. Prepare the data as for training: images of 0 to 255 look "
                "like this where normalised ones are expected."
            ]
    return []


def _normalized(model: Model, means: Mapping[str, Array]) -> Iterator[_Normalized]:
    """Yield the linear ops with a batch_norm behind them whose inputs have known means."""
    norms = [op for op in ops_of(model.program.blocks[0]) if op.type == "batch_norm"]
    producers = model.producers() if norms else {}
    dims = model.dims() if norms else {}
    for norm in norms:
        bias = np.zeros(1)
        desc = producers.get(norm.input("X"))
        if desc is not None and desc.type == "elementwise_add":
            rank = len(dims[desc.output()])
            axis = rank - 1 if norm.is_channels_last else 1
            found = affine_op(desc, rank, axis, model.parameters)
            desc = None if found is None else producers.get(found.source)
            bias = bias if found is None else found.affine.shift
        if desc is None or desc.type not in QUANTIZABLE_OPS:
            continue
        (source,) = desc.inputs(QUANTIZABLE_OPS[desc.type].activation)
        linear = linear_op(desc, len(dims[source]), model) if source in means else None
        if linear is not None:
            yield _Normalized(linear, desc, dims[source], bias, norm)


def _distances(model: Model, one: _Normalized, means: Array) -> Array:
    """Return how far the mean of each output is from the one in training, in standard deviations.

    ``means`` are float64[inputs], of what the op reads.
    """
    mean, variance = (
        model.parameters[one.norm.input(slot)].astype(np.float64) for slot in ("Mean", "Variance")
    )
    weight = model.made(one.linear.weight)
    here = mean_outputs(one.desc, weight, means, one.dims) + one.bias
    with np.errstate(all="ignore"):  # a damaged variance, whose distance is NaN
        deviation = np.sqrt(variance + one.norm.attr("epsilon", 1e-5))
        distances: Array = np.abs(here - mean) / deviation
    return distances
