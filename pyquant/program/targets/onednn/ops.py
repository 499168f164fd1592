"""Paddle's int8 ops of oneDNN: their slots and attributes, and what its versions require."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ... import proto
from ...matrix_products import PRODUCTS
from ...op import Op, make_op
from ...quantizable import CONVOLUTIONS
from ...ranges import Grid
from .fusion import FusedOp

CONVOLUTION_ATTRIBUTES = (
    *("strides", "paddings", "padding_algorithm", "dilations", "groups", "data_format"),
)
"""The attributes that a fused convolution takes from the convolution that it replaces."""

# Paddle 3.x is about to call them onednn; a version ignores the names that it does not know.
ENABLED: Mapping[str, proto.AttributeValue] = {"use_mkldnn": True, "use_onednn": True}
"""Attributes that let oneDNN run an op, if it can."""

_INT8: Mapping[str, proto.AttributeValue] = {
    **ENABLED,
    **{"mkldnn_data_type": "int8", "onednn_data_type": "int8", "is_test": True},
}
_POINTWISE: Mapping[str, proto.AttributeValue] = {
    **{"strides": [1, 1], "paddings": [0, 0], "dilations": [1, 1], "groups": 1},
    **{"data_format": "NCHW", "padding_algorithm": "EXPLICIT", "fuse_activation": ""},
}

# The int8 passes drop a requantize whose input or output is read once, and with it the shift to the
# integers for which kernels are quick (OpRequantSquash, RequantOpSquash in
# cpu_quantize_squash_pass.cc). A slot that an op does not have counts as a read, and does no more.
_READ_TWICE = "ReadTwice"


def data_type(grid: Grid) -> int:
    return proto.UINT8 if grid.unsigned else proto.INT8


def make_quantize(source: str, output: str, grid: Grid) -> Op:
    attributes: dict[str, Any] = {
        **ENABLED,
        "Scale": grid.factor,
        "Shift": float(grid.zero_point),
        "is_negative_input": not grid.unsigned,
        "output_format": "NHWC",
        "bfloat16": False,
    }
    return make_op("quantize", {"Input": [source]}, {"Output": [output]}, attributes)


def make_requantize(source: str, output: str, grid: Grid) -> Op:
    """Return an op that adds the zero point of ``grid`` to integers of its step without one."""
    attributes: dict[str, Any] = {
        **ENABLED,
        "Scale_in": grid.factor,
        "Scale_out": grid.factor,
        "Shift_in": 0.0,
        "Shift_out": float(grid.zero_point),
    }
    inputs = {"Input": [source], _READ_TWICE: [source]}
    return make_op("requantize", inputs, {"Output": [output]}, attributes)


def make_dequantize(source: str, output: str, grid: Grid) -> Op:
    attributes = {**ENABLED, "Scale": grid.factor, "Shift": 0.0}
    return make_op("dequantize", {"Input": [source]}, {"Output": [output]}, attributes)


def make_binary(op_type: str, names: Sequence[str], grids: Sequence[Grid]) -> Op:
    """Return an op that computes with integers; names and grids are of x, y and the output."""
    x, y, output = names
    attributes: dict[str, Any] = {**ENABLED, "axis": -1, "mkldnn_data_type": "int8"}
    for scale, grid in zip(("scale_x", "scale_y", "scale_out"), grids):
        attributes[scale] = grid.factor
    return make_op(op_type, {"X": [x], "Y": [y]}, {"Out": [output]}, attributes)


def make_concat(sources: Sequence[str], output: str) -> Op:
    """Return an op that concatenates channels of feature maps."""
    return make_op("concat", {"X": list(sources)}, {"Out": [output]}, {**ENABLED, "axis": 1})


def make_zeros(source: str, weight: str, output: str, channels: int) -> Op:
    """Return an op that makes channels of float zeros by a pointwise weight of zeros.

    ``source`` are integers of as many positions.
    """
    attributes: dict[str, Any] = {
        **_INT8,
        "Scale_in": 1.0,
        "Scale_weights": [1.0] * channels,
        "Scale_out": 1.0,
        "force_fp32_output": True,
        **_POINTWISE,
    }
    inputs = {"Input": [source], "Filter": [weight]}
    return make_op("fused_conv2d", inputs, {"Output": [output]}, attributes)


def make_fused(
    desc: Op,
    one: FusedOp,
    weight: str,
    inputs: Mapping[str, list[str]],
    attributes: Mapping[str, Any],
    rank: int,
    is_read_twice: bool,
) -> Op:
    """Return the op that computes a fused op with integers.

    ``desc`` is the op with the weight, which ``inputs`` leave out; ``attributes`` are scales and
    what is fused; ``rank`` is the output's. With ``is_read_twice``, the input counts as read twice
    for the int8 passes.
    """
    slots = dict(inputs)
    if is_read_twice:
        slots[_READ_TWICE] = slots["Input"]
    slots["Filter" if one.op.op_type in CONVOLUTIONS else "W"] = [weight]
    all_attributes = {**_INT8, **attributes}
    all_attributes["fuse_activation"] = one.activation.name
    all_attributes["fuse_alpha"] = one.activation.alpha
    all_attributes["fuse_beta"] = one.activation.beta
    return _MAKERS[one.op.op_type](desc, one, slots, all_attributes, rank)


def _make_convolution(
    desc: Op, one: FusedOp, inputs: dict[str, list[str]], attributes: dict[str, Any], rank: int
) -> Op:
    made = make_op("fused_conv2d", inputs, {"Output": [one.output]}, attributes)
    made.take_attrs(desc, CONVOLUTION_ATTRIBUTES)
    return made


def _make_fc(
    desc: Op, one: FusedOp, inputs: dict[str, list[str]], attributes: dict[str, Any], rank: int
) -> Op:
    attributes["in_num_col_dims"] = rank - 1
    # In fc, relu has an attribute of its own, the one that makes the result unsigned.
    is_relu = one.activation.name == "relu"
    attributes["activation_type"] = "relu" if is_relu else ""
    attributes["fuse_activation"] = "" if is_relu else one.activation.name
    return make_op("fc", inputs, {"Out": [one.output]}, attributes)


_MAKERS = {
    **dict.fromkeys(CONVOLUTIONS, _make_convolution),
    **dict.fromkeys(PRODUCTS, _make_fc),
}
