"""What runs as int8 where: one profile per inference target.

A profile says in which form a model is written, and which ops stay in float there but for their
weight, each with the reason that the user is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import proto
from .model import Model
from .products import PRODUCTS, is_fc
from .quantizable import CONVOLUTIONS, QUANTIZABLE_OPS, WeightedOp

_ONLY_WEIGHT = "its weight is int16, it runs in float"


class Candidate(NamedTuple):
    """An op that might become int8, and what is around it.

    Attributes:
        op: the op.
        model: its model.
        desc: its ``OpDesc``.
        producers: the op that writes each variable of the program.
        dims: the declared dims of its activation.
    """

    op: WeightedOp
    model: Model
    desc: Any
    producers: Mapping[str, Any]
    dims: list[int]


class Rule(NamedTuple):
    """Why some ops keep a float activation.

    Attributes:
        holds: whether the rule is about an op.
        reason: as the user is told.
    """

    holds: Callable[[Candidate], bool]
    reason: str


@dataclass(frozen=True)
class Target:
    """An inference target.

    Attributes:
        form: of the program: ``"qdq"`` or ``"onednn"``.
        takes_zero_points: whether the integers of an activation may have a zero point.
        rules: which ops stay in float but for their weight.
    """

    form: str
    takes_zero_points: bool
    rules: tuple[Rule, ...]


def why_weight_only(
    model: Model, ops: Sequence[WeightedOp], target: Target
) -> dict[WeightedOp, str | None]:
    """Return why only the weight of each op can be quantized for ``target``, None if all can."""
    producers, dims = model.producers(), model.dims()
    reasons: dict[WeightedOp, str | None] = {}
    for op in ops:
        desc = model.program.blocks[op.block].ops[op.position]
        candidate = Candidate(op, model, desc, producers, dims.get(op.activation, []))
        found = (rule.reason for rule in target.rules if rule.holds(candidate))
        reason = next(found, None)
        reasons[op] = None if reason is None else f"{_ONLY_WEIGHT}: {reason}"
    return reasons


def _is_of(*op_types: str) -> Callable[[Candidate], bool]:
    return lambda candidate: candidate.op.op_type in op_types


def _is_behind_average_pooling(candidate: Candidate) -> bool:
    """Return whether the op reads an average pooling, directly or through carriers of a scale."""
    producer = candidate.producers.get(candidate.op.activation)
    while producer is not None and producer.type in _SCALE_CARRIERS:
        if producer.type == "pool2d" and proto.attribute(producer, "pooling_type", "max") == "avg":
            return True
        producer = candidate.producers.get(_carried(producer))
    return False


def _is_depthwise_on_others(candidate: Candidate) -> bool:
    """Return whether it is a depthwise convolution, but of a relu of an op with a weight."""
    if candidate.op.op_type != "depthwise_conv2d":
        return False
    producer = candidate.producers.get(candidate.op.activation)
    if producer is None or producer.type not in ("relu", "relu6"):
        return True
    while producer is not None and producer.type in _BEFORE_RELU:
        producer = candidate.producers.get(_carried(producer))
    return producer is None or producer.type not in QUANTIZABLE_OPS


def _carried(op: Any) -> str:
    slot = next(slot for slot in op.inputs if slot.parameter in ("X", "Input"))
    return str(slot.arguments[0])


def _is_no_fc(candidate: Candidate) -> bool:
    op, weight_rank = candidate.op, candidate.model.parameters[candidate.op.weight].ndim
    rank = len(candidate.dims)
    return op.op_type in PRODUCTS and not is_fc(op, candidate.desc, rank, weight_rank)


def _is_channels_last(candidate: Candidate) -> bool:
    return str(proto.attribute(candidate.desc, "data_format", "NCHW")) == "NHWC"


def _has_one_position(candidate: Candidate) -> bool:
    return candidate.op.op_type in CONVOLUTIONS and candidate.dims[2:] == [1, 1]


# scale_immutable_ops in compute_propagate_scales_onednn_pass.cc
_SCALE_CARRIERS = (
    *("fused_transpose", "transpose2", "reshape2", "pool2d", "slice", "shape"),
    *("nearest_interp", "nearest_interp_v2", "split"),
)
_BEFORE_RELU = ("elementwise_add", "batch_norm", "relu", "relu6", "pool2d")
_DEPTHWISE_ON_OTHERS = Rule(
    _is_depthwise_on_others,
    "a depthwise convolution averages no errors over its inputs, and gains time only where these "
    "come as int8: of a relu alone (bench/ocr)",
)

# Paddle's Predictor on the CPU with enable_onednn_int8(), whose passes turn QDQ into int8.
QDQ = Target(
    "qdq",
    False,
    (
        Rule(_is_no_fc, "Paddle's passes make no fc of it (fc_fuse_pass.cc)"),
        Rule(
            _is_of("conv2d_transpose"),
            "Paddle's int8 passes do not know conv2d_transpose (quant_dequant_onednn_pass.cc)",
        ),
        Rule(
            _is_behind_average_pooling,
            "its activation is an average pooling, whose input Paddle's int8 passes would clip to "
            "the range of its output (UpdateScales in compute_propagate_scales_onednn_pass.cc)",
        ),
        _DEPTHWISE_ON_OTHERS,
    ),
)

# Paddle's Predictor on the CPU with enable_onednn(), which runs the int8 ops that it is given.
ONEDNN = Target(
    "onednn",
    True,
    (
        Rule(_is_of("conv2d_transpose"), "Paddle has no int8 kernel for conv2d_transpose"),
        Rule(lambda candidate: candidate.op.block > 0, "it is in a branch of the program"),
        Rule(_is_channels_last, "Paddle's int8 convolutions take NCHW alone"),
        Rule(_is_no_fc, "Paddle's int8 fc takes two or three dimensions, no transpose, no factor"),
        Rule(
            _has_one_position,
            "its activation is one position of an image, and quantizing it takes longer than int8 "
            "saves (bench/ocr)",
        ),
        _DEPTHWISE_ON_OTHERS,
    ),
)

DEPLOY_BACKENDS = {None: QDQ, "OneDNN": ONEDNN, "MKLDNN": ONEDNN}
"""The profile of each ``deploy_backend``."""
