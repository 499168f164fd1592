"""Feature maps multiplied by a factor per channel and added to others, as integers throughout.

A feature pyramid with squeeze-and-excitation is made of these: each level is multiplied by its
factors and added to the upsampled level above. oneDNN's binary ops read and write int8 with a scale
for each tensor (``fused_elementwise_kernel.cc``), a quarter of the memory of floats.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import permutations
from typing import NamedTuple

from ...graph import Graph


class Accumulation(NamedTuple):
    """Computes scaled = feature_map * factor, one per channel, and output = scaled + base.

    ``product`` and ``sum`` are the positions of the ops. Only the sum reads ``scaled``.
    """

    product: int
    sum: int
    feature_map: str
    factor: str
    scaled: str
    base: str
    output: str


def find_accumulations(graph: Graph, taken: Collection[int]) -> list[Accumulation]:
    """Return the accumulations of a program, except those whose sums are at ``taken``."""
    positions = [p for p, op in sorted(graph.ops.items()) if op.type == "elementwise_add"]
    found = (_accumulation(graph, position) for position in positions if position not in taken)
    return [one for one in found if one is not None]


def _accumulation(graph: Graph, position: int) -> Accumulation | None:
    output = graph.ops[position].output()
    for scaled, base in permutations(graph.ops[position].operands()):
        product = graph.producer(scaled)
        if product is None or graph.only_reader(scaled) != position:
            continue
        if not _is_computed_feature_map(graph, base) or graph.dims(base) != graph.dims(scaled):
            continue
        factors = _factors(graph, product)
        if factors is not None and not graph.is_kept(output):
            return Accumulation(product, position, *factors, scaled, base, output)
    return None


def _factors(graph: Graph, position: int) -> tuple[str, str] | None:
    """Return the feature map that the op at a position multiplies, and its factors per channel."""
    op = graph.ops[position]
    if op.type != "elementwise_mul":
        return None
    for feature_map, factor in permutations(op.operands()):
        dims = graph.dims(feature_map)
        if (
            dims is None
            or not _is_computed_feature_map(graph, feature_map)
            or graph.producer(factor) is None
        ):
            continue
        if dims[1] > 0 and graph.dims(factor) == [*dims[:2], 1, 1] != dims:
            return feature_map, factor
    return None


def _is_computed_feature_map(graph: Graph, name: str) -> bool:
    return graph.producer(name) is not None and len(graph.dims(name) or ()) == _RANK


_RANK = 4

BINARY_OPS = {
    "fused_elementwise_mul": "elementwise_mul",
    "fused_elementwise_add": "elementwise_add",
}
"""The ops that compute with integers, and what they compute. Their unfused counterparts take no
scales, since Paddle 3 drops the attributes."""
