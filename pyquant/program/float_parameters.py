"""Large parameters that stay float, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from .model import Model
from .quantizable import FloatOp, WeightedOp, output_name

LARGE = 1 << 16
"""The least bytes of a float parameter to report; biases and normalizations take fewer."""


def with_large_parameters(
    model: Model, ops: Sequence[WeightedOp], kept: Sequence[FloatOp]
) -> list[FloatOp]:
    """Return ``kept`` and every float parameter of `LARGE` bytes or more that stays float.

    The weights of ``ops`` become integers. ``kept`` are the known ops that stay in float.
    """
    told = list(kept)
    known = {op.parameter for op in kept}
    for name, op_type, output in _large(model, ops):
        size = model.parameters[name].nbytes
        same = [index for index, op in enumerate(told) if op.name == output]
        if name in known:
            continue
        if not same:
            told.append(FloatOp(op_type, output, _REASONS.get(op_type, _NO_WEIGHT), name, size))
        elif told[same[0]].parameter is None:
            told[same[0]] = replace(told[same[0]], parameter=name, bytes=size)
        else:
            told.append(FloatOp(op_type, output, told[same[0]].reason, name, size))
    return told


def _large(model: Model, ops: Sequence[WeightedOp]) -> Iterator[tuple[str, str, str]]:
    """Yield each large float parameter with the type and the output of an op that reads it.

    A parameter that is also read other than as a weight is stored beside its integers.
    """
    weights = {(op.block, op.read_at, op.weight) for op in ops}
    readers: dict[str, tuple[str, str]] = {}
    for block, position, op in model.numbered_ops():
        for name in op.reads():
            if (block, position, name) not in weights:
                readers.setdefault(name, (op.type, output_name(op)))
    quantized = {op.weight for op in ops}
    for name, array in model.parameters.items():
        is_float = array.dtype.kind == "f" or array.dtype == np.uint16
        if is_float and array.nbytes >= LARGE and (name in readers or name not in quantized):
            yield (name, *readers.get(name, ("parameter", name)))


_NO_WEIGHT = "no op of quantizable_op_type reads it as its weight"
_REASONS = {"parameter": "no op reads it"}
