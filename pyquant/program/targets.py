"""What runs as int8 where: one profile per inference target.

A profile says which ops the target's int8 kernels compute faithfully. Of the others the weight
alone is quantized, and the reason is told to the user.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from . import proto
from .quantizable import QUANTIZABLE_OPS, WeightedOp

_ONLY_WEIGHT = "its weight is int8, its activation stays float"


@dataclass(frozen=True)
class Target:
    """An inference target.

    Attributes:
        weight_only: op types that stay in float but for their weight, and why.
        scale_carriers: op types through which the target carries a quantization scale unchanged,
            from output to input as well.
        average_pooling: why an op behind an average pooling, itself a carrier, keeps a float input.
        only_from_int8: op types that are worth an int8 input only where another int8 op wrote it,
            and why.
        fused: op types that the int8 ops before them compute as well.
    """

    weight_only: Mapping[str, str]
    scale_carriers: Collection[str]
    average_pooling: str
    only_from_int8: Mapping[str, str]
    fused: Collection[str]


_WRONG_FC_SCALES = (
    "Paddle's int8 passes compute wrong weight scales for fc "
    "(GetScales of axis 0 in compute_propagate_scales_onednn_pass.cc)"
)

# Paddle's Predictor on the CPU with enable_onednn_int8().
ONEDNN = Target(
    weight_only={
        "mul": _WRONG_FC_SCALES,
        "matmul": _WRONG_FC_SCALES,
        "matmul_v2": _WRONG_FC_SCALES,
        "conv2d_transpose": (
            "Paddle's int8 passes do not know conv2d_transpose (quant_dequant_onednn_pass.cc)"
        ),
    },
    # scale_immutable_ops in compute_propagate_scales_onednn_pass.cc
    scale_carriers=(
        "fused_transpose",
        "transpose2",
        "reshape2",
        "pool2d",
        "slice",
        "shape",
        "nearest_interp",
        "nearest_interp_v2",
        "split",
    ),
    average_pooling=(
        "its activation is an average pooling, whose input Paddle's int8 passes would clip to the "
        "range of its output (UpdateScales in compute_propagate_scales_onednn_pass.cc)"
    ),
    only_from_int8={
        "depthwise_conv2d": (
            "its activation comes as float, and quantizing that takes longer than int8 saves on a "
            "depthwise convolution (bench/ocr)"
        )
    },
    # The activations of conv_activation_onednn_fuse_pass.cc, and a bias.
    fused=(
        *("elementwise_add", "abs", "clip", "gelu", "hard_sigmoid", "hard_swish", "leaky_relu"),
        *("mish", "relu", "relu6", "sigmoid", "sqrt", "swish", "tanh"),
    ),
)

DEPLOY_BACKENDS = {None: ONEDNN, "OneDNN": ONEDNN, "MKLDNN": ONEDNN}
"""The profile of each ``deploy_backend``."""


def why_weight_only(op: WeightedOp, producers: Mapping[str, Any], target: Target) -> str | None:
    """Return why only the weight of ``op`` can be quantized for ``target``, or None if all can.

    Args:
        op: the op.
        producers: the op that writes each variable of the program.
        target: where the model is to run.
    """
    if op.op_type in target.weight_only:
        return f"{_ONLY_WEIGHT}: {target.weight_only[op.op_type]}"
    if _averages(op, producers, target.scale_carriers):
        return f"{_ONLY_WEIGHT}: {target.average_pooling}"
    if op.op_type in target.only_from_int8 and not _comes_as_int8(op, producers, target):
        return f"{_ONLY_WEIGHT}: {target.only_from_int8[op.op_type]}"
    return None


def _comes_as_int8(op: WeightedOp, producers: Mapping[str, Any], target: Target) -> bool:
    """Return whether an op with a weight writes the activation of ``op``, fused ops included."""
    producer = producers.get(op.activation)
    while producer is not None and producer.type in (*target.fused, *target.scale_carriers):
        producer = producers.get(_carried(producer))
    return producer is not None and producer.type in QUANTIZABLE_OPS


def _averages(op: WeightedOp, producers: Mapping[str, Any], carriers: Collection[str]) -> bool:
    """Return whether ``op`` reads an average pooling, directly or through ``carriers``."""
    producer = producers.get(op.activation)
    while producer is not None and producer.type in carriers:
        if producer.type == "pool2d" and proto.attribute(producer, "pooling_type", "max") == "avg":
            return True
        producer = producers.get(_carried(producer))
    return False


def _carried(op: Any) -> str:
    slot = next(slot for slot in op.inputs if slot.parameter in ("X", "Input"))
    return str(slot.arguments[0])
