"""Tensors that hold the values of others, sample by sample: one statistic serves them all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from . import proto
from .model import Model

Dims = list[int]


def first_of_same_values(model: Model, names: Collection[str]) -> dict[str, str]:
    """Return for each of ``names`` the first of them, in the program's order, of the same values.

    Two tensors are of the same values if each sample (entry along axis 0) of the one holds the
    values of that sample of the other, in any order.
    """
    writes = Counter(name for op in model.ops() for name in proto.names(op.outputs))
    dims = model.dims()
    origin: dict[str, str] = {}
    first: dict[str, str] = {}
    for op in model.ops():
        source, output = _source(op), next(proto.names(op.outputs), "")
        if source is None or writes[source] > 1 or writes[output] > 1:
            continue
        if _KEEPS_SAMPLES[op.type](op, dims.get(source, []), dims.get(output, [])):
            origin[output] = origin.get(source, source)
    ordered = [var.name for var in model.feeds]
    ordered += [name for op in model.ops() for name in proto.names(op.outputs)]
    for name in ordered:
        if name in names:
            first.setdefault(origin.get(name, name), name)
    return {name: first.get(origin.get(name, name), name) for name in names}


def _source(op: Any) -> str | None:
    if op.type not in _KEEPS_SAMPLES:
        return None
    return next(iter(proto.arguments(op.inputs, "X")), None)


def _reshapes_samples(op: Any, source: Dims, output: Dims) -> bool:
    sizes = source[1:] + output[1:]
    return (
        bool(source and output)
        and all(size > 0 for size in sizes)
        and math.prod(source[1:]) == math.prod(output[1:])
    )


def _transposes_samples(op: Any, source: Dims, output: Dims) -> bool:
    axes = proto.attribute(op, "axis", ())
    return len(axes) > 0 and axes[0] == 0


def _does_nothing(op: Any, source: Dims, output: Dims) -> bool:
    """Whether a dropout, in inference, scales nothing."""
    return str(proto.attribute(op, "dropout_implementation", "")) == "upscale_in_train"


_KEEPS_SAMPLES: dict[str, Callable[[Any, Dims, Dims], bool]] = {
    "reshape2": _reshapes_samples,
    "flatten2": _reshapes_samples,
    "flatten_contiguous_range": _reshapes_samples,
    "squeeze2": _reshapes_samples,
    "unsqueeze2": _reshapes_samples,
    "transpose2": _transposes_samples,
    "assign": lambda op, source, output: True,
    "dropout": _does_nothing,
}
