"""Which tensors of a program of oneDNN's int8 ops hold integers, and on which grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from ...model import Model
from ...op import Op, ops_of
from ...ranges import Grid
from .accumulation import BINARY_OPS
from .scale_preserving import CARRIER_OP_TYPES

CARRIERS = (*CARRIER_OP_TYPES, "reshape2", "transpose2")
"""The op types that may move integers: those that pyquant writes so, and others that could."""


def read_grids(model: Model) -> dict[str, Grid]:
    """Return the grid of each tensor that holds integers."""
    grids: dict[str, Grid] = {}
    for op in ops_of(model.program.blocks[0]):
        read = _READERS.get(op.type)
        grid = None if read is None else read(op, grids)
        if grid is not None:
            grids[op.output()] = grid
    return grids


def _quantize(op: Op, grids: Mapping[str, Grid]) -> Grid:
    """As ``quantize_kernel.cc`` chooses the type."""
    zero_point = int(op.attr("Shift", 0.0))
    signed = op.attr("is_negative_input", False) and not zero_point
    return Grid(op.attr("Scale", 1.0), zero_point, not signed)


def _linear(
    op: Op, grids: Mapping[str, Grid], activation: str, unsigned: tuple[str, ...]
) -> Grid | None:
    """As GetDstType in ``conv_function.h`` and ``fc_kernel.cc`` choose the type."""
    reads_integers = op.input("Input") in grids
    if not reads_integers or op.attr("force_fp32_output", False):
        return None
    is_unsigned = op.attr(activation, "") in unsigned
    for residual in op.inputs("ResidualData"):
        if residual not in grids:
            return None
        is_unsigned = grids[residual].unsigned
    return Grid(op.attr("Scale_out", 1.0), 0, is_unsigned)


def _requantize(op: Op, grids: Mapping[str, Grid]) -> Grid:
    """As ``requantize_kernel.cc`` chooses the type: with a zero point it is unsigned."""
    zero_point = int(op.attr("Shift_out", 0.0))
    (source,) = op.inputs("Input")
    unsigned = zero_point != 0 or (source in grids and grids[source].unsigned)
    return Grid(op.attr("Scale_out", 1.0), zero_point, unsigned)


def _combine(op: Op, grids: Mapping[str, Grid]) -> Grid | None:
    """As ``fused_elementwise_kernel.cc`` computes: all have the type of the first input."""
    x, y = op.operands()
    if x not in grids or y not in grids:
        return None
    return Grid(op.attr("scale_out", 1.0), 0, grids[x].unsigned)


def _carry(op: Op, grids: Mapping[str, Grid]) -> Grid | None:
    is_average = op.attr("pooling_type", "max") != "max"
    found = {grids.get(name) for name in op.inputs("X")}
    return found.pop() if len(found) == 1 and not is_average else None


_READERS: Mapping[str, Callable[[Op, Mapping[str, Grid]], Grid | None]] = {
    "quantize": _quantize,
    "requantize": _requantize,
    **dict.fromkeys(BINARY_OPS, _combine),
    "fused_conv2d": partial(_linear, activation="fuse_activation", unsigned=("relu", "relu6")),
    "fc": partial(_linear, activation="activation_type", unsigned=("relu",)),
    **dict.fromkeys(CARRIERS, _carry),
}
