"""Per-token quantization: each position of an activation has its own scale (arXiv 2206.01861).

oneDNN's products take one scale for all positions. So each position is divided by its largest
magnitude before it becomes integers, and the product at that position is multiplied by it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import Graph
from .names import PER_TOKEN
from .op import Op, make_elementwise, make_op
from .parameters import Array
from .ranges import Grid

# The least maximum that divides a position: one of zeros stays zeros.
_LEAST = float(np.finfo(np.float32).tiny)


def token_maxima(values: Array) -> Array:
    """Return the largest magnitude of each position of [..., channels]: float32[..., 1]."""
    maxima: Array = np.maximum(np.abs(values).max(axis=-1, keepdims=True), np.float32(_LEAST))
    return maxima


def rounded_per_token(grid: Grid, values: Array) -> Array:
    """Return what the integers of [..., channels] stand for if each position has its own scale."""
    maxima = token_maxima(values)
    rounded: Array = grid.rounded(values / maxima) * maxima
    return rounded


def divide_tokens(graph: Graph, name: str) -> tuple[list[Op], str, str]:
    """Return ops that divide each position of an activation by its largest magnitude.

    Also the names of these maxima and of the quotients.
    """
    dims = [*(graph.dims(name) or ())[:-1], 1]
    magnitudes = graph.add_variable(f"{name}.magnitudes", name)
    largest = graph.add_tensor(f"{name}.largest", dims)
    maxima = graph.add_tensor(f"{name}.maxima", dims)
    quotients = graph.add_variable(f"{name}{PER_TOKEN}", name)
    of_channels: dict[str, Any] = {"dim": [-1], "keep_dim": True, "reduce_all": False}
    limits = {"min": _LEAST, "max": float(np.finfo(np.float32).max)}
    ops = [
        make_op("abs", {"X": [name]}, {"Out": [magnitudes]}, {}),
        make_op("reduce_max", {"X": [magnitudes]}, {"Out": [largest]}, of_channels),
        make_op("clip", {"X": [largest]}, {"Out": [maxima]}, limits),
        make_elementwise("elementwise_div", name, maxima, quotients),
    ]
    return ops, maxima, quotients


def multiply_tokens(graph: Graph, maxima: str, output: str) -> tuple[str, Op]:
    """Return the name of the product of quotients, and the op that makes ``output`` of it."""
    product = graph.add_variable(f"{output}{PER_TOKEN}", output)
    return product, make_elementwise("elementwise_mul", product, maxima, output)
