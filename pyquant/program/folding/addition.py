"""The op that adds one value per channel."""

from __future__ import annotations

import numpy as np

from ..graph import Graph
from ..op import Op, make_op
from .affine import Vector


def make_addition(
    graph: Graph, source: str, output: str, vector: Vector, channel_axis: int, suffix: str = "bias"
) -> Op:
    """Return an op that adds a vector along an axis, a new parameter ``OUTPUT.SUFFIX``."""
    name = graph.add_parameter(f"{output}.{suffix}", vector.astype(np.float32))
    inputs = {"X": [source], "Y": [name]}
    return make_op("elementwise_add", inputs, {"Out": [output]}, {"axis": channel_axis})
