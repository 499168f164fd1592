"""What runs as int8 where: one profile per inference target.

A profile says in which form a model is written, and which ops stay in float but for their weight,
with the reason that the user is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...settings import check_choice
from ..graph import Graph
from ..matrix_products import PRODUCTS, is_fc
from ..model import Model
from ..onnx_model.export import check_writable
from ..op import Op
from ..op_facts import Fact, has
from ..quantizable import (
    ACTIVATION_OP_TYPES,
    CONVOLUTIONS,
    WeightedOp,
    declared_size,
    multiplications_for,
)
from ..weights import WEIGHT_QUANTIZE_TYPES
from . import openvino
from .saturation import ANY


class Candidate(NamedTuple):
    """An op that might become int8, and what is around it.

    Attributes:
        producers: the op that writes each variable of the program.
        readers: the types of the ops that read each variable.
        dims: the declared dims of its activation.
        int8: the outputs of the ops before it that can be int8.
    """

    op: WeightedOp
    model: Model
    desc: Op
    producers: Mapping[str, Op]
    readers: Mapping[str, Sequence[str]]
    dims: list[int]
    int8: AbstractSet[str]


class Rule(NamedTuple):
    """Why some ops keep a float activation."""

    holds: Callable[[Candidate], bool]
    reason: str  # as the user is told
    is_choice: bool = False  # int8 is possible, but would lose accuracy or time


@dataclass(frozen=True)
class Target:
    """An inference target.

    Attributes:
        form: of the program: ``"qdq"``, ``"onednn"`` or ``"onnx"``.
        takes_zero_points: whether the integers of an activation may have a zero point.
        rules: which ops stay in float but for their weight.
        saturating: which others do, unless the processors have VNNI.
        runs_here: whether Paddle's Predictor on this CPU runs the int8 program.
        unit_columns: whether the columns of matrix products need one magnitude (see `QdqPlan`).
        least_multiplications: an op that does fewer for a sample saves less time as int8 than it
            takes to quantize its activation. It stays in float, if others do more.
        element_in_multiplications: how many multiplications int8 saves in the time that it takes to
            turn an element of an activation from integer to float, or back.
        stores_integers: whether the weights of ops that run in float may be stored as integers.
        fused: op types without a weight that are fused into an int8 op in front of them. If there
            are any, the outputs of int8 ops are quantized, too.
        int8_types: op types without a weight that the runtime has in int8.
        weightless: of these, the ones whose inputs are quantized.
        adds_maps: whether sums of feature maps are int8 where convolutions compute them.
        suits_pairs: the op types whose integers are chosen so that no sum of two products saturates
            (see `saturation`).
        check_readable: raises an error if the runtime cannot read a float model, or it cannot be
            written for it.
        substitute: writes other ops for those that the runtime lacks.
    """

    form: str
    takes_zero_points: bool
    rules: tuple[Rule, ...]
    saturating: tuple[Rule, ...] = ()
    runs_here: bool = True
    unit_columns: bool = False
    least_multiplications: float = 0.0
    element_in_multiplications: float = 1000  # with 200, PP-OCR's detectors were slower in Paddle
    stores_integers: bool = True
    fused: tuple[str, ...] = ()
    int8_types: tuple[str, ...] = ()
    weightless: tuple[str, ...] = ()
    adds_maps: bool = False
    suits_pairs: tuple[str, ...] = ()
    check_readable: Callable[[Model], None] | None = None
    substitute: Callable[[Graph], None] | None = None
    weight_quantize_types: tuple[str, ...] = WEIGHT_QUANTIZE_TYPES

    def in_full(self) -> Target:
        """Return the same target, with everything in int8 that it can run in int8."""
        rules = tuple(rule for rule in self.rules if not rule.is_choice)
        return replace(self, rules=rules, weightless=self.int8_types, least_multiplications=0.0)


def target_of(deploy_backend: str | None, is_full: bool = False, processors: str = ANY) -> Target:
    """Return the profile of a ``deploy_backend``, whatever the case of its letters.

    With ``is_full``, all that can be is int8. ``processors`` is one of `saturation.PROCESSORS`.
    Raises SettingError if there is no such profile.
    """
    target = DEPLOY_BACKENDS[canonical_backend(deploy_backend)]
    if processors == ANY:
        target = replace(target, rules=(*target.rules, *target.saturating))
    return target.in_full() if is_full else target


def canonical_backend(deploy_backend: str | None) -> str:
    """Return the name of a ``deploy_backend``, as ``"OneDNN"`` for None.

    Raises SettingError if there is none of that name.
    """
    names = {str(name).lower(): name or "OneDNN" for name in DEPLOY_BACKENDS}
    found = names.get(str(deploy_backend).lower())
    check_choice("deploy_backend", found or deploy_backend, DEPLOY_BACKENDS)
    return str(found)


def why_float(
    model: Model, ops: Sequence[WeightedOp], target: Target
) -> dict[WeightedOp, str | None]:
    """Return why each op cannot be int8 throughout for ``target``, None if it can."""
    reasons = _reasons(model, ops, target.rules)
    small = _small(model, [op for op in ops if reasons[op] is None], target)
    if small:
        reasons = _reasons(model, ops, (*target.rules, _saves_no_time(small, target)))
    int8_weights = {op.weight for op, reason in reasons.items() if reason is None}
    for op, reason in reasons.items():
        if reason is not None:
            is_int16 = target.stores_integers and op.weight not in int8_weights
            stored = "its weight is int16, it" if is_int16 else "it"
            reasons[op] = f"{stored} runs in float: {reason}"
    return reasons


def _reasons(
    model: Model, ops: Sequence[WeightedOp], rules: Sequence[Rule]
) -> dict[WeightedOp, str | None]:
    """Return the reason of the first rule that holds for each op, None if none does."""
    producers, dims = model.producers(), model.dims()
    readers: dict[str, list[str]] = {}
    for reader in model.ops():
        for name in reader.reads():
            readers.setdefault(name, []).append(reader.type)
    reasons: dict[WeightedOp, str | None] = {}
    int8: set[str] = set()
    for op in ops:
        desc = op.desc(model)
        around = producers, readers, dims.get(op.activation, []), int8
        candidate = Candidate(op, model, desc, *around)
        reason = next((rule.reason for rule in rules if rule.holds(candidate)), None)
        reasons[op] = reason
        if reason is None:
            int8.add(op.output)
    return reasons


_UNKNOWN = (-1, -1)  # the dims of a tensor that is not declared: of any size


def _small(model: Model, ops: Sequence[WeightedOp], target: Target) -> set[WeightedOp]:
    """Return the ops that do too little for int8 to save time; none if all of them do.

    A sample counts as declared: an op whose output has an open size, but for the batch, is large.
    One that reads an input of the model is not small: it shows whether the data were prepared as
    for training (see `static_mode.input_check`).
    """
    dims, feeds = model.dims(), {var.name for var in model.feeds}

    def multiplications(op: WeightedOp) -> float:
        outputs = declared_size(dims.get(op.output) or _UNKNOWN, 1, math.inf)
        return multiplications_for(outputs, model.parameters[op.weight], op.channel_axis)

    small = {op for op in ops if multiplications(op) < target.least_multiplications}
    if len(small) == len(ops):
        return set()
    return {op for op in small if op.activation not in feeds}


def _saves_no_time(small: AbstractSet[WeightedOp], target: Target) -> Rule:
    return Rule(
        lambda candidate: candidate.op in small,
        f"it does fewer than {target.least_multiplications:,.0f} multiplications for a sample, and "
        "quantizing its activation takes longer than int8 saves",
        is_choice=True,
    )


def _is_of(*op_types: str) -> Callable[[Candidate], bool]:
    return lambda candidate: candidate.op.op_type in op_types


def _is_behind_average_pooling(candidate: Candidate) -> bool:
    """Return whether it reads an average pooling, directly or through scale-preserving ops."""
    return any(
        op.type == "pool2d" and op.attr("pooling_type", "max") == "avg"
        for op in _carriers_in_front(candidate)
    )


def _is_behind_mixed_concat(candidate: Candidate) -> bool:
    """Return whether it reads a concatenation whose inputs the passes would make uint8 and int8."""
    return any(
        op.type == "concat" and _is_mixed(candidate, _all_carried(op))
        for op in _carriers_in_front(candidate)
    )


def _is_behind_blocks(candidate: Candidate) -> bool:
    """Return whether it reads channels in blocks, directly or through ops without a weight.

    oneDNN writes blocks in a transposed convolution, unless that is one of brgemm_deconv.cpp.
    """
    pending, seen = [candidate.op.activation], set()
    while pending:
        name = pending.pop()
        producer = candidate.producers.get(name)
        if name in seen or producer is None:
            continue
        if producer.type == "conv2d_transpose" and not _is_of_brgemm(candidate.model, producer):
            return True
        seen.add(name)
        if producer.type not in ACTIVATION_OP_TYPES:
            pending += producer.reads()
    return False


def _is_of_brgemm(model: Model, op: Op) -> bool:
    """Return whether oneDNN computes a transposed convolution by brgemm, in Paddle 2.6 as well.

    For 2.6, it has to write whole strides.
    """
    filters = model.parameters.get(op.input("Filter"))
    geometry = op.geometry()
    strides, paddings = geometry.strides, geometry.paddings
    if filters is None or paddings is None or max(strides) == 1:
        return False
    added = op.ints("output_padding") or (0, 0)
    beyond = [
        (taps - 1) * dilation + 1 - sum(padding) + more
        for taps, dilation, padding, more in zip(
            filters.shape[2:], geometry.dilations, paddings, added
        )
    ]
    sizes = list(op.ints("output_size")) or beyond
    is_whole = all(size % stride == 0 for size, stride in zip(sizes, strides))
    return is_whole and geometry.groups == 1


def _is_mixed(candidate: Candidate, names: Sequence[str]) -> bool:
    """Return whether some inputs of a concatenation may become uint8, and some may not.

    A relu may, if it is carried or has other readers; one of an int8 op with no other reader does.
    """
    may = any(_is_carried_from_relu(candidate, name) for name in names)
    return may and not all(_is_relu_of_int8(candidate, name) for name in names)


def _is_carried_from_relu(candidate: Candidate, name: str) -> bool:
    written = [name, *(n for op in _carriers_to(candidate, name) for n in _all_carried(op))]
    producers = [candidate.producers.get(one) for one in written]
    return any(op is not None and op.type in ("relu", "relu6") for op in producers)


def _is_relu_of_int8(candidate: Candidate, name: str) -> bool:
    """Return whether it is a relu of an int8 op, and is read once."""
    producer = candidate.producers.get(name)
    if producer is None or producer.type not in ("relu", "relu6"):
        return False
    if len(candidate.readers.get(name, ())) != 1:
        return False
    weighted = _weighted_before_relu(candidate, _carried(producer))
    return weighted is not None and not candidate.int8.isdisjoint(weighted.writes())


def _weighted_before_relu(candidate: Candidate, name: str) -> Op | None:
    """Return the op with a weight that computes it, up to a bias or normalization, or None."""
    producer = candidate.producers.get(name)
    while producer is not None and has(producer.type, Fact.MAY_PRECEDE_RELU):
        producer = candidate.producers.get(_carried(producer))
    return producer if producer is not None and producer.type in ACTIVATION_OP_TYPES else None


def _carriers_in_front(candidate: Candidate) -> Iterator[Op]:
    """Yield the ops that carry a scale to the op's activation."""
    return _carriers_to(candidate, candidate.op.activation)


def _carriers_to(candidate: Candidate, name: str) -> Iterator[Op]:
    """Yield the ops that carry a scale to a tensor."""
    names, seen = [name], set()
    while names:
        name = names.pop()
        producer = candidate.producers.get(name)
        if name in seen or producer is None or not has(producer.type, Fact.CARRIES_SCALE):
            continue
        yield producer
        seen.add(name)
        names += _all_carried(producer)


def _is_depthwise_on_others(candidate: Candidate) -> bool:
    """Return whether it is a depthwise convolution that reads no relu of an op with a weight."""
    if candidate.op.op_type != "depthwise_conv2d":
        return False
    producer = candidate.producers.get(candidate.op.activation)
    if producer is None or producer.type not in ("relu", "relu6"):
        return True
    return _weighted_before_relu(candidate, _carried(producer)) is None


def _carried(op: Op) -> str:
    return _all_carried(op)[0]


def _all_carried(op: Op) -> list[str]:
    return op.inputs("X") or op.inputs("Input")


def _is_no_fc(candidate: Candidate) -> bool:
    op, weight_rank = candidate.op, candidate.model.parameters[candidate.op.weight].ndim
    rank = len(candidate.dims)
    return op.op_type in PRODUCTS and not is_fc(op, candidate.desc, rank, weight_rank)


def _is_no_matrix(candidate: Candidate) -> bool:
    op = candidate.op
    return op.op_type in PRODUCTS and candidate.model.parameters[op.weight].ndim != 2


def _has_rows_of_channels(candidate: Candidate) -> bool:
    return candidate.op.op_type in PRODUCTS and candidate.op.channel_axis == 0


def _is_grouped_transpose(candidate: Candidate) -> bool:
    groups = candidate.desc.geometry().groups
    return candidate.op.op_type == "conv2d_transpose" and groups > 1


def _has_a_bias_of_its_own(candidate: Candidate) -> bool:
    others = set(candidate.desc.reads()) - {candidate.op.weight}
    return any(name in candidate.model.parameters for name in others)


def _is_read_as_int8_alone(candidate: Candidate) -> bool:
    """Return whether it is a product that only ops with a weight read."""
    readers = candidate.readers.get(candidate.op.output, ())
    is_product = candidate.op.op_type in PRODUCTS and bool(readers)
    return is_product and all(op_type in ACTIVATION_OP_TYPES for op_type in readers)


def _has_one_position(candidate: Candidate) -> bool:
    return candidate.op.op_type in CONVOLUTIONS and candidate.dims[2:] == [1, 1]


_DEPTHWISE_ON_OTHERS = Rule(
    _is_depthwise_on_others,
    "a depthwise convolution averages no errors over its inputs, and saves time only if these are "
    "int8 already, as behind a relu",
    is_choice=True,
)

_BEHIND_BLOCKS = Rule(
    _is_behind_blocks,
    "its activation comes from a transposed convolution whose output may lie in blocks of "
    "channels, which Paddle cannot quantize (quantize_kernel.cc)",
)

# With 0, MobileNets on one image of 32 or 96 pixels were 0.9 to 1.1 times as fast as float; with
# this, 1.1 to 1.7 times, as AVX2 and with VNNI. On 8 or 32 images, it changed their time by -15 to
# +15 %.
_LEAST_OF_ONEDNN = 500_000

# Paddle's Predictor on the CPU with enable_onednn_int8(), whose passes turn QDQ into int8. QDQ in
# front of elementwise_add, relu and pool2d as well was measured on a residual block: it saved no
# time, took more reorders, and raised the error of the output from 0.0145 to 0.0178. The passes
# also leave such an op in float if the range of its output is not known.
QDQ = Target(
    "qdq",
    takes_zero_points=False,
    unit_columns=True,
    least_multiplications=_LEAST_OF_ONEDNN,
    suits_pairs=PRODUCTS,
    rules=(
        Rule(_is_no_fc, "Paddle's passes do not fuse it into an fc (fc_fuse_pass.cc)"),
        Rule(
            _is_of("conv2d_transpose"),
            "Paddle's int8 passes do not know conv2d_transpose (quant_dequant_onednn_pass.cc)",
        ),
        Rule(
            _is_behind_average_pooling,
            "its activation is an average pooling, whose input Paddle's int8 passes would clip to "
            "the range of its output (UpdateScales in compute_propagate_scales_onednn_pass.cc)",
        ),
        Rule(
            _is_behind_mixed_concat,
            "its activation is a concatenation of relus and others, which Paddle's int8 passes "
            "turn into uint8 and int8, and oneDNN cannot concatenate the two",
        ),
        _BEHIND_BLOCKS,
        _DEPTHWISE_ON_OTHERS,
    ),
    saturating=(
        Rule(
            _is_of(*CONVOLUTIONS),
            "Paddle's int8 passes choose the scales of its filters (ComputeVarScales in "
            "compute_propagate_scales_onednn_pass.cc), and processors without VNNI saturate on "
            "such integers. deploy_backend='OneDNN' makes it int8 for all processors, "
            "processors='vnni' for those with VNNI",
        ),
    ),
)

# Paddle's Predictor on the CPU with enable_onednn(), which runs the int8 ops that it is given.
ONEDNN = Target(
    "onednn",
    takes_zero_points=True,
    least_multiplications=_LEAST_OF_ONEDNN,
    rules=(
        Rule(_is_of("conv2d_transpose"), "Paddle has no int8 kernel for conv2d_transpose"),
        Rule(lambda candidate: candidate.op.block > 0, "it is in a branch of the program"),
        Rule(
            lambda candidate: candidate.desc.is_channels_last,
            "Paddle's int8 convolutions take only NCHW",
        ),
        Rule(_is_no_fc, "Paddle's int8 fc takes two or three dimensions, no transpose, no factor"),
        _BEHIND_BLOCKS,
        Rule(
            _has_one_position,
            "its activation is one position of a feature map, and quantizing it takes longer than "
            "int8 saves",
            is_choice=True,
        ),
        _DEPTHWISE_ON_OTHERS,
    ),
)

# Paddle's Predictor on a GPU, enable_tensorrt_engine(precision_mode=Int8, use_calib_mode=False).
# Its passes fold dequantize_linear into float weights, and set a dynamic range for each tensor
# behind quantize_linear (add_support_int8_pass.cc, tensorrt/convert/op_converter.h). TensorRT then
# runs a layer as int8 if its inputs and output have a range, so outputs are quantized, too. Not
# known without a GPU: whether a product runs as int8 although its weight, a constant, has no range,
# and whether every version folds cast and scale. So the weights of float ops stay as they are.
TENSORRT = Target(
    "qdq",
    takes_zero_points=False,
    runs_here=False,
    stores_integers=False,
    fused=("elementwise_add", "relu", "relu6", "leaky_relu"),
    # Those of TensorRTQuantizer in paddle/static/quantization/quant_config.py that
    # tensorrt/op_teller.cc takes in int8, and the ops that
    # trt_map_ops_to_matrix_multiply_pass.cc converts in the same way as matmul_v2.
    int8_types=(
        *("mul", "matmul", "matmul_v2", "pool2d", "concat", "split", "softmax", "layer_norm"),
        *("elementwise_add", "elementwise_sub", "elementwise_mul", "elementwise_pow"),
        *("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "swish", "gelu", "clip"),
        *("hard_sigmoid", "hard_swish", "nearest_interp", "nearest_interp_v2"),
        *("reduce_mean", "reduce_sum"),
    ),
    rules=(
        Rule(
            _is_no_matrix,
            "Paddle's TensorRT passes take weights of products only with two dimensions "
            "(trt_delete_weight_dequant_linear_op_pass.cc)",
        ),
        Rule(
            _has_rows_of_channels,
            "Paddle's TensorRT passes take channels along axis 0 only for filters "
            "(trt_delete_weight_dequant_linear_op_pass.cc)",
        ),
    ),
)

# Paddle-Lite on ARM, of 2023 or later: older ones do not match a ZeroPoint that both ops of a QDQ
# share (its pull request 9570). It has int8 kernels only for ops with a weight (kernels/arm). Its
# cast does not know int16, and takes int8 as char, which is unsigned on ARM
# (kernels/host/cast_compute.cc): so the weights of float ops stay as they are. fc reads as many
# scales as its weight has columns (FcCompute in kernels/arm/fc_compute.cc): one is too few.
ARM = Target(
    "qdq",
    takes_zero_points=False,
    runs_here=False,
    stores_integers=False,
    weight_quantize_types=("channel_wise_abs_max",),
    rules=(
        Rule(
            _is_no_matrix,
            "Paddle-Lite's int8 fc takes only weights of two dimensions "
            "(kernels/arm/fc_compute.cc)",
        ),
        Rule(
            _is_grouped_transpose,
            "Paddle-Lite needs a scale for each output of a transposed convolution, of all groups "
            "(kernels/arm/conv_transpose_compute.cc)",
        ),
        Rule(
            _has_a_bias_of_its_own,
            "Paddle-Lite runs an op in float if it reads a float parameter "
            "(QuantDequantLinearOpFuser in quant_dequant_op_fuser.cc)",
        ),
        Rule(
            _is_read_as_int8_alone,
            "only int8 ops read it, and Paddle-Lite has no int8 product that writes int8 "
            "(static_kernel_pick_pass.cc, kernels/arm/matmul_v2_compute.cc)",
        ),
    ),
)

# ONNX Runtime on a CPU, by the QDQ of `onnx_qdq`. It has no int8 kernel for transposed convolutions
# (qdq_selector_action_transformer.cc), and a node between a weight and its op hides the pattern.
ONNX = Target(
    "onnx",
    takes_zero_points=True,
    runs_here=False,
    stores_integers=False,
    check_readable=check_writable,
    # MobileNetV3-small of 32 pixels: 1.1 times as fast as float, and 0.7 times with 0.
    least_multiplications=50_000,
    # With 1000, PP-OCRv4 detection, held to 10 %, was 1.15 times as fast as float, not 1.4 times.
    element_in_multiplications=100,
    rules=(
        Rule(_is_of("conv2d_transpose"), "ONNX Runtime has no int8 kernel for ConvTranspose"),
        Rule(
            lambda candidate: candidate.desc.is_channels_last,
            "ONNX's convolutions take only NCHW, and a transpose would hide the integers",
        ),
        Rule(_is_no_matrix, "ONNX Runtime's int8 products take a weight of two dimensions"),
        Rule(_has_rows_of_channels, "its weight is transposed, which would hide the integers"),
    ),
)

# OpenVINO's frontend for Paddle makes one FakeQuantize of a quantize_linear and a
# dequantize_linear, whose range it computes by the ZeroPoint of the latter
# (transform_fakequantize.cpp): with -128, all 256 levels are positive. Its low-precision passes
# then run what reads it as int8, and fuse it into what computes it. Depthwise convolutions are
# int8, too: between int8 convolutions, each one in float takes two reorders. Sums of feature maps
# are int8, since each would take a reorder, and so would what it reads: on MobileNetV2, that is 4 %
# of the time. Sums of matrix products are not: on MiniLM it saved no time, and the error rose from
# 0.067 to 0.30.
OPENVINO = Target(
    "qdq",
    takes_zero_points=True,
    runs_here=False,
    stores_integers=False,
    adds_maps=True,
    suits_pairs=(*CONVOLUTIONS, *PRODUCTS),
    # OpenVINO fuses what turns the types into its kernels. With 1000, PP-OCRv4 detection, held to
    # 10 %, was 2.0 times as fast as float, not 2.4 times.
    element_in_multiplications=0,
    check_readable=openvino.check_readable,
    substitute=openvino.substitute,
    rules=(
        Rule(lambda candidate: candidate.op.block > 0, "it is in a branch of the program"),
        Rule(
            _is_no_matrix,
            "OpenVINO's frontend takes scales only along axes 0 and 1 (dequantize_linear.cpp)",
        ),
        Rule(
            _is_grouped_transpose,
            "OpenVINO's low-precision passes know no transposed convolutions of groups",
        ),
    ),
    saturating=(
        Rule(
            _is_of("conv2d_transpose"),
            "OpenVINO saturates on integers of transposed convolutions on processors without VNNI. "
            "processors='vnni' makes it int8 for those with VNNI",
        ),
    ),
)

DEPLOY_BACKENDS = {
    None: ONEDNN,
    "OneDNN": ONEDNN,
    "MKLDNN": ONEDNN,
    "QDQ": QDQ,
    "TensorRT": TENSORRT,
    "ARM": ARM,
    "ONNX": ONNX,
    "OpenVINO": OPENVINO,
}
"""The profile of each ``deploy_backend``."""
