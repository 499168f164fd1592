"""Each PIR op's counterpart in a ProgramDesc: one line per op.

A line reads ``op_type OPERANDS -> RESULTS | ATTRIBUTES``, in PIR's order. Paddle states the same in
``paddle/phi/ops/yaml/op_compat.yaml``, and the order of arguments in ``ops.yaml`` beside it.
Attributes with the same name in both are not mentioned.

Operands:
    ``X``: the slot of a tensor, or of a list of tensors.
    ``axis=``: a constant that becomes an attribute.
    ``axis=AxisTensor``: the same, or a tensor in that slot if the model computes it.
    ``shape=Shape/ShapeTensor``: the same, or if the model computes some elements of a list, a list
    of tensors in the second slot; the attribute has -1 in their places. A ``shape`` that one tensor
    holds has -1 everywhere: Paddle's passes take a shape with at most one -1 for a constant.
    ``_``: not read.

Results:
    ``Out``: the slot. ``MeanOut=Mean``: written in place, into the variable in the input slot
    ``Mean``. ``_``: none. ``+XShape``: a further output of the legacy op.

Attributes:
    ``transpose_x:trans_x``: PIR's name and the legacy one.
    ``axis=-1``: only the legacy op has it; ``@dtype`` is the dtype of the first operand, ``@ones``
    a one for each of ``axes``.
    ``?name``: only the legacy op has it, and its default is right.
    ``-name``: only PIR has it, and it has no effect here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class OperandSpec:
    """Where an operand goes: see the module's docstring."""

    slot: str | None = None
    attribute: str | None = None
    list_slot: str | None = None
    ignored: bool = False


@dataclass(frozen=True)
class ResultSpec:
    """Where a result goes: a slot, or the variable of the input slot ``alias``."""

    slot: str | None
    alias: str | None = None


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    op_type: str
    operands: tuple[OperandSpec, ...]
    results: tuple[ResultSpec, ...]
    has_xshape: bool
    renamed: Mapping[str, str]
    constants: Mapping[str, str]
    dropped: frozenset[str]
    optional: frozenset[str]

    @property
    def keeps_input(self) -> bool:
        """Whether only running statistics are written in place, as by ``batch_norm_``."""
        return any(result.alias for result in self.results)


def _operand(text: str) -> OperandSpec:
    if text == "_":
        return OperandSpec(ignored=True)
    name, is_attribute, slots = text.partition("=")
    if not is_attribute:
        return OperandSpec(slot=text)
    slot, _, list_slot = slots.partition("/")
    return OperandSpec(slot or None, name, list_slot or None)


def _result(text: str) -> ResultSpec:
    slot, _, alias = text.partition("=")
    return ResultSpec(None if slot == "_" else slot, alias or None)


def _parse(text: str) -> Line:
    signature, _, attributes = text.partition("|")
    left, _, right = signature.partition("->")
    op_type, *operands = left.split()
    results = right.split()
    words = attributes.split()
    return Line(
        op_type=op_type,
        operands=tuple(_operand(operand) for operand in operands),
        results=tuple(_result(result) for result in results if result != "+XShape"),
        has_xshape="+XShape" in results,
        renamed=dict(word.split(":", 1) for word in words if ":" in word),
        constants=dict(word.split("=", 1) for word in words if "=" in word),
        dropped=frozenset(word[1:] for word in words if word.startswith("-")),
        optional=frozenset(word[1:] for word in words if word.startswith("?")),
    )


_UNARY = "{op} X -> Out"
_BINARY = "elementwise_{op} X Y -> Out | axis=-1"
_COMPARE = "{op} X Y -> Out | axis=-1"
_REDUCE = "reduce_{op} X dim= -> Out | keepdim:keep_dim"
_REDUCE_BY_ATTRIBUTE = "reduce_{op} X -> Out | axis:dim keepdim:keep_dim"
_INTERPOLATE = "{op}_interp_v2 X OutSize SizeTensor Scale -> Out | data_format:data_layout"

_LINES = {
    # One tensor in, one out, and the same names of attributes.
    **{
        op: _UNARY.format(op=op)
        for op in [
            "abs",
            "acos",
            "acosh",
            "asin",
            "asinh",
            "atan",
            "atanh",
            "ceil",
            "celu",
            "cos",
            "cosh",
            "digamma",
            "elu",
            "erf",
            "erfinv",
            "exp",
            "expm1",
            "floor",
            "gelu",
            "lgamma",
            "log",
            "log10",
            "log1p",
            "log2",
            "log_softmax",
            "logit",
            "logsigmoid",
            "relu",
            "relu6",
            "round",
            "rsqrt",
            "selu",
            "sigmoid",
            "sign",
            "silu",
            "sin",
            "sinh",
            "softmax",
            "softplus",
            "softsign",
            "sqrt",
            "square",
            "stanh",
            "swish",
            "tan",
            "tanh",
            "tanh_shrink",
            "thresholded_relu",
            "reciprocal",
            "cumprod",
            "flip",
            "pixel_shuffle",
            "pixel_unshuffle",
            "maxout",
            "logcumsumexp",
            "channel_shuffle",
            "angle",
            "conj",
            "fft_r2c",
            "frame",
            "shard_index",
            "shuffle_channel",
            "renorm",
            "bitwise_not",
            "logical_not",
            "real",
            "imag",
            "is_empty",
        ]
    },
    # Ops that are newer than the legacy names.
    **{op: f"{op} x -> out" for op in ("i0", "i0e", "i1", "i1e", "gammaln", "polygamma")},
    **{
        op: f"{op} x y -> out"
        for op in ("copysign", "nextafter", "swiglu", "bitwise_left_shift", "bitwise_right_shift")
    },
    **{
        pir: _BINARY.format(op=op)
        for pir, op in {
            "add": "add",
            "subtract": "sub",
            "multiply": "mul",
            "divide": "div",
            "maximum": "max",
            "minimum": "min",
            "floor_divide": "floordiv",
            "remainder": "mod",
            "elementwise_pow": "pow",
        }.items()
    },
    **{op: f"elementwise_{op} X Y -> Out" for op in ("fmax", "fmin", "heaviside")},
    **{
        op: _COMPARE.format(op=op)
        for op in ("equal", "not_equal", "less_than", "less_equal", "greater_than", "greater_equal")
    },
    **{
        op: f"{op} X Y -> Out"
        for op in [
            "logical_and",
            "logical_or",
            "logical_xor",
            "bitwise_and",
            "bitwise_or",
            "bitwise_xor",
            "bmm",
            "dot",
            "kron",
            "equal_all",
            "solve",
            "dist",
        ]
    },
    **{op: _REDUCE.format(op=op) for op in ("max", "mean", "min")},
    **{op: _REDUCE_BY_ATTRIBUTE.format(op=op) for op in ("all", "any", "amax", "amin")},
    "sum": "reduce_sum X dim= -> Out | keepdim:keep_dim dtype:out_dtype",
    "prod": "reduce_prod X dim= -> Out | keepdim:keep_dim reduce_all:reduce_all",
    "mean_all": "mean X -> Out",
    "logsumexp": "logsumexp X -> Out",
    "frobenius_norm": "frobenius_norm X dim= -> Out | keepdim:keep_dim",
    "p_norm": "p_norm X -> Out",
    "cumsum": "cumsum X axis= -> Out",
    "trace": "trace Input -> Out",
    "det": "determinant Input -> Out",
    "inverse": "inverse Input -> Output",
    # Activations whose names differ.
    "hardshrink": "hard_shrink X -> Out",
    "hardsigmoid": "hard_sigmoid X -> Out",
    "hardswish": "hard_swish X -> Out | threshold=6 scale=6 offset=3",
    "hardtanh": "brelu X -> Out",
    "leaky_relu": "leaky_relu X -> Out | negative_slope:alpha",
    "mish": "mish X -> Out | lambda:threshold",
    "prelu": "prelu X Alpha -> Out",
    "softshrink": "softshrink X -> Out | threshold:lambda",
    "pow": "pow X -> Out | y:factor",
    "clip": "clip X min=Min max=Max -> Out",
    "scale": "scale X scale=ScaleTensor -> Out",
    "rrelu": "rrelu X -> Out Noise",
    "dropout": "dropout X Seed dropout_prob= -> Out Mask"
    " | mode:dropout_implementation -seed -fix_seed",
    # Convolution and pooling.
    **{op: f"{op} Input Filter -> Output" for op in ("conv2d", "conv3d", "depthwise_conv2d")},
    "conv2d_transpose": "conv2d_transpose Input Filter output_size= -> Output",
    "depthwise_conv2d_transpose": "depthwise_conv2d_transpose Input Filter output_size= -> Output",
    "conv3d_transpose": "conv3d_transpose Input Filter -> Output",
    "deformable_conv": "deformable_conv Input Offset Filter Mask -> Output",
    "pool2d": "pool2d X ksize= -> Out",
    "pool3d": "pool3d X -> Out | kernel_size:ksize",
    "max_pool2d_with_index": "max_pool2d_with_index X -> Out Mask | kernel_size:ksize",
    "max_pool3d_with_index": "max_pool3d_with_index X -> Out Mask | kernel_size:ksize",
    "lp_pool2d": "lp_pool2d x -> out",
    "fractional_max_pool2d": "fractional_max_pool2d x -> out mask",
    "unfold": "unfold X -> Y",
    "fold": "fold X -> Y",
    **{op + "_interp": _INTERPOLATE.format(op=op) for op in ("bilinear", "nearest", "bicubic")},
    **{op + "_interp": _INTERPOLATE.format(op=op) for op in ("linear", "trilinear")},
    "grid_sample": "grid_sampler X Grid -> Output",
    "affine_grid": "affine_grid Theta output_shape=OutputShape -> Output",
    "roi_pool": "roi_pool X ROIs RoisNum -> Out Argmax",
    "psroi_pool": "psroi_pool X ROIs RoisNum -> Out",
    "roi_align": "roi_align X ROIs RoisNum -> Out",
    "pad": "pad X pad_value= -> Out",
    "pad3d": "pad3d X paddings=Paddings -> Out | pad_value:value",
    # Normalization.
    "batch_norm_": "batch_norm X Mean Variance Scale Bias -> Y MeanOut=Mean VarianceOut=Variance"
    " SavedMean SavedVariance ReserveSpace | data_format:data_layout",
    "layer_norm": "layer_norm X Scale Bias -> Y Mean Variance",
    "group_norm": "group_norm X Scale Bias -> Y Mean Variance | data_format:data_layout",
    "instance_norm": "instance_norm X Scale Bias -> Y SavedMean SavedVariance",
    # Matrix products and recurrent networks.
    "matmul": "matmul_v2 X Y -> Out | transpose_x:trans_x transpose_y:trans_y",
    "matmul_with_flatten": "mul X Y -> Out",
    "addmm": "addmm Input X Y -> Out | alpha:Alpha beta:Beta",
    "mv": "mv X Vec -> Out",
    "einsum": "einsum Operands -> Out InnerCache XShape",
    "rnn": "rnn Input PreState WeightList SequenceLength _ -> Out DropoutState State Reserve",
    "embedding": "lookup_table_v2 Ids W -> Out | -sparse",
    "baddbmm": "baddbmm Input X Y -> Out | alpha:Alpha beta:Beta",
    "bilinear": "bilinear_tensor_product X Y Weight Bias -> Out",
    # Shape.
    "reshape": "reshape2 X shape=Shape/ShapeTensor -> Out +XShape",
    "transpose": "transpose2 X -> Out +XShape | perm:axis",
    "squeeze": "squeeze2 X axes= -> Out +XShape",
    "unsqueeze": "unsqueeze2 X axes=AxesTensor/AxesTensorList -> Out +XShape",
    "flatten": "flatten_contiguous_range X -> Out +XShape",
    "shape": "shape Input -> Out",
    "numel": "size Input -> Out",
    "concat": "concat X axis=AxisTensor -> Out",
    "stack": "stack X -> Y",
    "split": "split X sections=/SectionsTensorList axis=AxisTensor -> Out | num=0",
    "split_with_num": "split X axis=AxisTensor -> Out | ?sections",
    "unbind": "unbind X -> Out",
    "unstack": "unstack X -> Y",
    "slice": "slice Input starts=StartsTensor/StartsTensorList ends=EndsTensor/EndsTensorList"
    " -> Out",
    "strided_slice": "strided_slice Input starts=StartsTensor/StartsTensorList"
    " ends=EndsTensor/EndsTensorList strides=StridesTensor/StridesTensorList -> Out"
    " | infer_flags=@ones ?decrease_axis",
    "crop": "crop_tensor X shape=Shape/ShapeTensor offsets=Offsets/OffsetsTensor -> Out",
    "expand": "expand_v2 X shape=Shape/expand_shapes_tensor -> Out",
    "expand_as": "expand_as_v2 X Y -> Out",
    "tile": "tile X repeat_times=RepeatTimes/repeat_times_tensor -> Out",
    "broadcast_tensors": "broadcast_tensors X -> Out",
    "meshgrid": "meshgrid X -> Out",
    "tril": "tril_triu X -> Out | lower=true",
    "triu": "tril_triu X -> Out | lower=false",
    "diag": "diag_v2 X -> Out",
    "diag_embed": "diag_embed Input -> Out",
    "roll": "roll X shifts=ShiftsTensor -> Out",
    "diagonal": "diagonal Input -> Out",
    "repeat_interleave": "repeat_interleave X -> Out | repeats:Repeats axis:dim",
    "add_n": "sum X -> Out",
    "multiplex": "multiplex X Ids -> Out",
    # Looking up, searching, sorting.
    "gather": "gather X Index axis=Axis -> Out",
    "gather_nd": "gather_nd X Index -> Out",
    "index_select": "index_select X Index -> Out | axis:dim",
    "index_sample": "index_sample X Index -> Out",
    "take_along_axis": "take_along_axis Input Index -> Result | axis:Axis",
    "put_along_axis": "put_along_axis Input Index Value -> Result"
    " | axis:Axis reduce:Reduce include_self:Include_self",
    "scatter": "scatter X Ids Updates -> Out",
    "scatter_nd_add": "scatter_nd_add X Index Updates -> Out",
    "index_add": "index_add X Index AddValue -> Out",
    "index_put": "index_put x indices value -> out",
    "masked_fill": "masked_fill x mask value -> out",
    "masked_select": "masked_select X Mask -> Y",
    "where": "where Condition X Y -> Out",
    "nonzero": "where_index Condition -> Out",
    "set_value_with_tensor": "set_value Input ValueTensor starts=/StartsTensorList"
    " ends=/EndsTensorList steps=/StepsTensorList -> Out | dtype=@dtype ?values ?shape",
    "unique": "unique X -> Out Indices Index Counts",
    "unique_consecutive": "unique_consecutive X -> Out Index Counts",
    "median": "median x -> out medians",
    "nanmedian": "nanmedian X -> Out MedianIndex",
    "cummax": "cummax x -> out indices",
    "cummin": "cummin x -> out indices",
    "argmax": "arg_max X axis= -> Out",
    "argmin": "arg_min X axis= -> Out",
    "argsort": "argsort X -> Out Indices",
    "topk": "top_k_v2 X k=K -> Out Indices",
    "kthvalue": "kthvalue X -> Out Indices",
    "mode": "mode X -> Out Indices",
    "searchsorted": "searchsorted SortedSequence Values -> Out",
    "one_hot": "one_hot_v2 X depth=depth_tensor -> Out | dtype=float32 allow_out_of_range=false",
    "isfinite": "isfinite_v2 X -> Out",
    "isinf": "isinf_v2 X -> Out",
    "isnan": "isnan_v2 X -> Out",
    "isclose": "isclose Input Other Rtol Atol -> Out | ?rtol ?atol",
    "allclose": "allclose Input Other Rtol Atol -> Out | ?rtol ?atol",
    "trunc": "trunc X -> Out",
    "atan2": "atan2 X1 X2 -> Out",
    "lerp": "lerp X Y Weight -> Out",
    "cross": "cross X Y -> Out | axis:dim",
    # Making tensors.
    "cast": "cast X -> Out | dtype:out_dtype in_dtype=@dtype",
    "assign": "assign X -> Out",
    "full_like": "fill_any_like X value= -> Out",
    "full_with_tensor": "fill_constant ValueTensor shape=ShapeTensor/ShapeTensorList -> Out"
    " | ?value",
    "full_batch_size_like": "fill_constant_batch_size_like Input -> Out",
    "linspace": "linspace Start Stop Num -> Out",
    "logspace": "logspace Start Stop Num Base -> Out",
    "tril_indices": "tril_indices -> out",
    "triu_indices": "triu_indices -> out",
    "eye": "eye num_rows= num_columns= -> Out",
    # Detection, losses, linear algebra and the like.
    "box_coder": "box_coder PriorBox PriorBoxVar TargetBox -> OutputBox",
    "prior_box": "prior_box Input Image -> Boxes Variances",
    "yolo_box": "yolo_box X ImgSize -> Boxes Scores",
    "multiclass_nms3": "multiclass_nms3 BBoxes Scores RoisNum -> Out Index NmsRoisNum",
    "label_smooth": "label_smooth X PriorDist -> Out",
    "sequence_mask": "sequence_mask X maxlen=MaxLenTensor -> Y",
    "viterbi_decode": "viterbi_decode Input Transition Length -> Scores Path",
    "affine_channel": "affine_channel X Scale Bias -> Out",
    "temporal_shift": "temporal_shift X -> Out",
    "nms": "nms Boxes -> KeepBoxesIdxs | threshold:iou_threshold",
    "unpool": "unpool X Indices output_size= -> Out | padding:paddings unpooling_type=max",
    "huber_loss": "huber_loss X Y -> Out Residual",
    "kldiv_loss": "kldiv_loss X Target -> Loss",
    "log_loss": "log_loss Predicted Labels -> Loss",
    "bce_loss": "bce_loss X Label -> Out",
    "cross_entropy_with_softmax": "softmax_with_cross_entropy Logits Label -> Softmax Loss",
    "nll_loss": "nll_loss X Label Weight -> Out Total_weight",
    "eigh": "eigh X -> Eigenvalues Eigenvectors",
    "lu": "lu X -> Out Pivots Infos | pivot:pivots",
    "qr": "qr X -> Q R",
    "slogdet": "slogdeterminant Input -> Out",
    "svd": "svd X -> U S VH",
    "sigmoid_cross_entropy_with_logits": "sigmoid_cross_entropy_with_logits X Label pos_weight"
    " -> Out",
    "cholesky": "cholesky X -> Out",
    "as_complex": "as_complex X -> Out",
    "as_real": "as_real X -> Out",
    "complex": "complex X Y -> Out",
    "bincount": "bincount X Weights minlength= -> Out",
    "histogram": "histogram X Weight -> Out",
    "matrix_power": "matrix_power X -> Out",
    "triangular_solve": "triangular_solve X Y -> Out",
    "multi_dot": "multi_dot X -> Out",
}

TABLE = {name: _parse(text) for name, text in _LINES.items()}
"""The line of each op of the dialect ``pd_op``, by its name there."""
