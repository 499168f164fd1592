"""The ops that OpenVINO's frontend for Paddle reads, and what is written for some that it lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ...errors import UnsupportedError
from ..graph import Graph
from ..model import Model
from ..op import Op, make_op
from ..proto import AttributeValue

# get_supported_ops in src/frontends/paddle/src/op_table.cpp, of OpenVINO 2025 and 2026.
_READ_NAMES = """
    abs arg_max arg_min assign assign_value atan2 batch_norm bicubic_interp_v2 bilinear_interp
    bilinear_interp_v2 bmm box_coder cast ceil clip concat conditional_block conv2d
    conv2d_transpose cos cumsum deformable_conv deformable_conv_v1 depthwise_conv2d
    depthwise_conv2d_transpose dequantize_linear dropout elementwise_add elementwise_div
    elementwise_floordiv elementwise_max elementwise_min elementwise_mod elementwise_mul
    elementwise_pow elementwise_sub elu equal exp expand_as_v2 expand_v2 eye feed fetch
    fill_any_like fill_constant fill_constant_batch_size_like flip floor gather gather_nd gelu
    generate_proposals_v2 greater_equal greater_than grid_sampler group_norm hard_sigmoid
    hard_swish index_select layer_norm leaky_relu less_equal less_than linear_interp_v2
    linspace lod_array_length log logical_and logical_not logical_or logical_xor
    lookup_table_v2 matmul matmul_v2 matrix_nms max_pool2d_with_index max_pool3d_with_index
    memcpy meshgrid multiclass_nms3 nearest_interp nearest_interp_v2 not_equal one_hot_v2
    p_norm pad3d partial_concat partial_sum pool2d pool3d pow prior_box quantize_linear range
    reduce_all reduce_any reduce_max reduce_mean reduce_min reduce_prod reduce_sum relu relu6
    reshape2 reverse roi_align roll round rsqrt scale scatter scatter_nd_add select_input
    set_value shape share_data sigmoid silu sin slice softmax softplus softshrink split sqrt
    squeeze2 stack strided_slice sum swish sync_batch_norm take_along_axis tanh tanh_shrink
    tensor_array_to_tensor tile top_k_v2 transpose2 tril_triu trilinear_interp_v2 unique
    unsqueeze2 unstack where where_index while write_to_array yolo_box
"""
_READ = frozenset(_READ_NAMES.split())


class _Substitute(NamedTuple):
    """What is written for an op that the frontend lacks.

    Attributes:
        suits: whether an op can be written so.
        ops: makes the ops that compute the same.
    """

    suits: Callable[[Graph, Op], bool]
    ops: Callable[[Graph, Op], list[Op]]


def check_readable(model: Model) -> None:
    """Raise UnsupportedError if the frontend lacks an op that nothing can be written for."""
    graph = Graph(model)
    for op in model.ops():
        substitute = _SUBSTITUTES.get(op.type)
        if op.type in _READ if substitute is None else substitute.suits(graph, op):
            continue
        output = next(iter(op.writes()), "")
        raise UnsupportedError(
            f"deploy_backend='OpenVINO': its frontend for Paddle cannot read the op '{op.type}' "
            f"that writes '{output}' (op_table.cpp). Choose another deploy_backend, or leave this "
            "op out of the model."
        )


def substitute(graph: Graph) -> None:
    """Write other ops for those that the frontend lacks."""
    for number, op in list(graph.ops.items()):
        if op.type in _SUBSTITUTES:
            graph.replace(number, *_SUBSTITUTES[op.type].ops(graph, op))


def rewrite(model: Model) -> None:
    """Write other ops for those of a model that the frontend lacks."""
    graph = Graph(model)
    substitute(graph)
    graph.write_back()


def _is_plain_shuffle(graph: Graph, op: Op) -> bool:
    dims = graph.dims(op.input("X"))
    return op.attr("data_format", "NCHW") == "NCHW" and dims is not None and dims[1] > 0


def _shuffle_by_convolution(graph: Graph, op: Op) -> list[Op]:
    """Return a transposed convolution that does what a ``pixel_shuffle`` does.

    Each input channel is one pixel of a block: its filter is 1 there, and 0 elsewhere. Unlike
    reshape and transpose, it needs no sizes that are not known before the model runs.
    """
    dims, side = graph.dims(op.input("X")), op.attr("upscale_factor", 1)
    assert dims is not None
    outputs = dims[1] // side**2
    places = np.tile(np.eye(side**2, dtype=np.float32), (outputs, 1))
    filters = graph.add_parameter(f"{op.output()}.places", places.reshape(-1, 1, side, side))
    inputs = {"Input": [op.input("X")], "Filter": [filters]}
    attributes = {**_OF_BLOCKS, "strides": [side, side], "groups": outputs}
    return [make_op("conv2d_transpose", inputs, {"Output": [op.output()]}, attributes)]


_OF_BLOCKS: Mapping[str, AttributeValue] = {
    "paddings": [0, 0],
    "dilations": [1, 1],
    "data_format": "NCHW",
    "padding_algorithm": "EXPLICIT",
}


def _is_plain_mul(graph: Graph, op: Op) -> bool:
    rank = len(graph.dims(op.input("X")) or ())
    return op.attr("y_num_col_dims", 1) == 1 and op.attr("x_num_col_dims", 1) in (1, rank - 1)


def _mul_by_matmul(graph: Graph, op: Op) -> list[Op]:
    """Return a ``matmul_v2`` that does what a ``mul`` does, of rows if that flattens its input."""
    source, made = op.input("X"), list[Op]()
    rank = len(graph.dims(source) or ())
    if op.attr("x_num_col_dims", 1) != rank - 1:
        source = graph.add_variable(f"{op.output()}.rows", op.input("X"))
        inputs, shape = {"X": [op.input("X")]}, {"shape": [0, -1]}
        made.append(make_op("reshape2", inputs, {"Out": [source]}, shape))
    product = {"trans_x": False, "trans_y": False}
    inputs = {"X": [source], "Y": [op.input("Y")]}
    return [*made, make_op("matmul_v2", inputs, {"Out": [op.output()]}, product)]


def _is_of_known_rank(graph: Graph, op: Op) -> bool:
    return graph.dims(op.input("X")) is not None


def _flatten_from_the_front(graph: Graph, op: Op) -> list[Op]:
    """Return the same op with its axes counted from the front: the frontend knows no others."""
    rank, counted = len(graph.dims(op.input("X")) or ()), op.copy()
    for name in ("start_axis", "stop_axis"):
        counted.set_attr(name, op.attr(name, 1) % rank)
    return [counted]


_SUBSTITUTES: Mapping[str, _Substitute] = {
    "flatten_contiguous_range": _Substitute(_is_of_known_rank, _flatten_from_the_front),
    "pixel_shuffle": _Substitute(_is_plain_shuffle, _shuffle_by_convolution),
    "rnn": _Substitute(lambda _, op: op.attr("mode", "") == "LSTM", lambda _, op: [op.copy()]),
    "mul": _Substitute(_is_plain_mul, _mul_by_matmul),
}
