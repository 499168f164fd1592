"""Ops that multiply by a constant and add one: y = scale * x + shift, per tensor or per channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..graph import Graph
from ..op import Op, make_op
from ..parameters import Array

Vector = NDArray[np.float64]


class Affine(NamedTuple):
    """y = scale * x + shift, each float64 of one value or of one per channel."""

    scale: Vector
    shift: Vector

    def then(self, after: Affine) -> Affine:
        """Return this map followed by ``after``."""
        return Affine(self.scale * after.scale, self.shift * after.scale + after.shift)

    @property
    def is_scalar(self) -> bool:
        """Whether it is the same for all channels."""
        return self.scale.size == 1 and self.shift.size == 1

    def fits(self, channels: int) -> bool:
        """Return whether it keeps the shape of a tensor of so many channels."""
        return {self.scale.size, self.shift.size} <= {1, channels}


IDENTITY = Affine(np.ones(1), np.zeros(1))


class AffineOp(NamedTuple):
    """An op that computes ``affine`` from the tensor ``source`` to the tensor ``output``."""

    source: str
    output: str
    affine: Affine


@np.errstate(all="ignore")  # what is not finite is no affine map
def affine_op(
    op: Op, rank: int, channel_axis: int, parameters: Mapping[str, Array]
) -> AffineOp | None:
    """Read ``op`` as an affine map, None if it is none.

    ``rank`` is that of its input and output; ``channel_axis`` is not negative.
    """
    read = _READERS.get(op.type)
    found = read(op, rank, channel_axis, parameters) if read is not None else None
    if found is None:
        return None
    source, slot, affine = found
    if not (np.isfinite(affine.scale).all() and np.isfinite(affine.shift).all()):
        return None
    return AffineOp(source, op.output(slot), affine)


def affine_reader(graph: Graph, number: int, source: str, channel_axis: int) -> AffineOp | None:
    """Read an op as an affine map of ``source``; a negative axis counts from the end."""
    dims = graph.dims(source)
    if not dims:
        return None
    axis = channel_axis % len(dims)
    found = affine_op(graph.ops[number], len(dims), axis, graph.model.parameters)
    return found if found is not None and found.source == source else None


def _elementwise(
    op: Op, rank: int, channel_axis: int, parameters: Mapping[str, Array]
) -> tuple[str, str, Affine] | None:
    x, y = op.operands()
    constant_first = x in parameters
    if constant_first == (y in parameters):
        return None
    source, constant = (y, parameters[x]) if constant_first else (x, parameters[y])
    axis = op.attr("axis", -1)
    if constant_first and axis not in (-1, rank - constant.ndim):
        return None
    values = _per_channel(constant, rank - constant.ndim if axis < 0 else axis, rank, channel_axis)
    if values is None:
        return None
    affine = _ARITHMETIC[op.type](values, constant_first)
    return None if affine is None else (source, "Out", affine)


def _per_channel(constant: Array, start: int, rank: int, channel_axis: int) -> Vector | None:
    """Return a constant that lies along the channels as a vector; ``start`` is its first axis."""
    end = start + constant.ndim
    if constant.dtype != np.float32 or start < 0 or end > rank:
        return None
    others = [size for axis, size in enumerate(constant.shape, start) if axis != channel_axis]
    if any(size != 1 for size in others):
        return None
    return constant.reshape(-1).astype(np.float64)


def _sum(values: Vector, constant_first: bool) -> Affine:
    return Affine(np.ones(1), values)


def _difference(values: Vector, constant_first: bool) -> Affine:
    return Affine(-np.ones(1), values) if constant_first else Affine(np.ones(1), -values)


def _product(values: Vector, constant_first: bool) -> Affine:
    return Affine(values, np.zeros(1))


def _quotient(values: Vector, constant_first: bool) -> Affine | None:
    return None if constant_first else Affine(1 / values, np.zeros(1))


_ARITHMETIC: dict[str, Callable[[Vector, bool], Affine | None]] = {
    "elementwise_add": _sum,
    "elementwise_sub": _difference,
    "elementwise_mul": _product,
    "elementwise_div": _quotient,
}


def _scale(
    op: Op, rank: int, channel_axis: int, parameters: Mapping[str, Array]
) -> tuple[str, str, Affine] | None:
    if op.inputs("ScaleTensor"):
        return None
    scale, bias = (op.attr(*given) for given in (("scale", 1.0), ("bias", 0.0)))
    if not op.attr("bias_after_scale", True):
        bias *= scale
    return op.input("X"), "Out", Affine(np.array([scale]), np.array([bias]))


def _batch_norm(
    op: Op, rank: int, channel_axis: int, parameters: Mapping[str, Array]
) -> tuple[str, str, Affine] | None:
    last = op.is_channels_last
    if channel_axis != (rank - 1 if last else 1):
        return None
    names = [op.inputs(slot) for slot in ("Scale", "Bias", "Mean", "Variance")]
    constants = [parameters.get(given[0]) if given else None for given in names]
    if any(constant is None or constant.dtype != np.float32 for constant in constants):
        return None
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in constants)
    scale = gamma / np.sqrt(variance + op.attr("epsilon", 1e-5))
    return op.input("X"), "Y", Affine(scale, beta - mean * scale)


def _dropout(
    op: Op, rank: int, channel_axis: int, parameters: Mapping[str, Array]
) -> tuple[str, str, Affine] | None:
    """At inference a dropout does nothing, or multiplies so as to keep training's expectation."""
    if op.inputs("Seed") and not op.attr("is_test", False):
        return None
    upscaled = op.attr("dropout_implementation", "") == "upscale_in_train"
    kept = 1.0 if upscaled else 1.0 - op.attr("dropout_prob", 0.5)
    return op.input("X"), "Out", Affine(np.array([kept]), np.zeros(1))


_READERS: dict[
    str, Callable[[Op, int, int, Mapping[str, Array]], tuple[str, str, Affine] | None]
] = {
    **dict.fromkeys(_ARITHMETIC, _elementwise),
    "scale": _scale,
    "batch_norm": _batch_norm,
    "dropout": _dropout,
    "assign": lambda op, *_: (op.input("X"), "Out", IDENTITY),
}


def make_scale(source: str, output: str, scale: float, shift: float) -> Op:
    """Return an op that computes scale * x + shift for scalars."""
    attributes = {"scale": scale, "bias": shift, "bias_after_scale": True}
    return make_op("scale", {"X": [source]}, {"Out": [output]}, attributes)


AFFINE_OP_TYPES = frozenset(_READERS)
