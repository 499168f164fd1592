"""Bias correction: the mean error that quantized weights cause in the outputs of ops.

Adding this error to the biases compensates it (arXiv 1810.05723, section 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .. import kernels
from ..program.folding.linear import weight_layout
from ..program.op import Op
from ..program.parameters import Array
from ..program.weights import QuantizedWeight
from .windows import Window


def mean_error(desc: Op, weight: QuantizedWeight, means: Array, dims: Sequence[int]) -> Array:
    """Return the mean of an op's float outputs minus its quantized ones, float64[outputs].

    The weight is quantized to up to 8 bits, per channel or per tensor. ``means`` has the mean of
    each channel of the activation, float64[channels]. ``dims`` are the activation's declared dims;
    unknown ones are below 1. If they are known, padding adds no error.
    """
    source = weight.source
    layout = weight_layout(desc, source.shape)
    inputs = means
    if layout.outputs_first:
        inputs = np.outer(means, _taps_inside(desc, source.shape, dims)).reshape(-1)
    matrix = len(source), -1
    lack = kernels.mean_errors(
        source.reshape(matrix),
        weight.integers.reshape(matrix),
        _steps(weight),
        inputs,
        0 if layout.outputs_first else 1,
        layout.groups,
    )
    by_output: Array = lack.reshape(layout.outputs, -1).sum(axis=1)
    return by_output * _share_of_taps(desc)


def mean_outputs(desc: Op, weight: Array, means: Array, dims: Sequence[int]) -> Array:
    """Return an op's mean outputs, float64[outputs], given a float32 weight; see `mean_error`."""
    layout = weight_layout(desc, weight.shape)
    weights, by_group = layout.grouped(weight), means.reshape(layout.groups, -1)
    taps = np.ones(weights.shape[-1])
    if layout.outputs_first:
        taps = _taps_inside(desc, weight.shape, dims)
    outputs: Array = np.einsum("goit,gi,t->go", weights, by_group, taps).reshape(-1)
    return outputs * _share_of_taps(desc)


def _taps_inside(desc: Op, shape: tuple[int, ...], dims: Sequence[int]) -> Array:
    """Return, for each tap, the share of positions at which it reads no padding: [taps]."""
    if len(shape) == 2:
        return np.ones(1)
    sizes = tuple(dims[1:3] if desc.is_channels_last else dims[2:4]) or (-1, -1)
    return Window.of(desc, shape[2:]).inside(sizes)


def _steps(weight: QuantizedWeight) -> Array:
    """Return the steps, broadcastable to the weight as a matrix [axis 0, all others]."""
    shape = weight.stored.shape
    if weight.axis <= 0:
        return weight.step.reshape(-1, 1)
    along = [-1 if axis == weight.axis else 1 for axis in range(1, len(shape))]
    steps: Array = np.broadcast_to(weight.step.reshape(along), shape[1:]).reshape(1, -1)
    return steps


def _share_of_taps(desc: Op) -> float:
    """Return the factor by which each weight enters an output, on average."""
    if desc.type == "conv2d_transpose":  # an output meets one tap in prod(strides)
        return 1 / math.prod(desc.geometry().strides)
    return desc.attr("alpha", 1.0)
