"""Convolutions, poolings and resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..parameters import Array
from .builder import Attribute, Rows, Step, rows_of
from .shapes import channels_first, channels_last

ROWS: Rows = {}
_rows = rows_of(ROWS)


def _is_last(step: Step) -> bool:
    layout = step.op.attr("data_format", "") or step.op.attr("data_layout", "")
    return layout.endswith("C")


def _input(step: Step, slot: str) -> str:
    """Return a feature map with its channels behind the samples."""
    value, rank = step.input(slot), step.rank(step.op.input(slot))
    return channels_first(step, value, rank) if _is_last(step) else value


def _give(step: Step, slot: str, value: str) -> None:
    """Let an output hold a feature map that has its channels behind the samples."""
    rank = step.rank(step.op.output(slot))
    step.give(slot, channels_last(step, value, rank) if _is_last(step) else value)


def _spatial(step: Step, slot: str) -> list[int]:
    dims = step.dims(step.op.input(slot))
    return dims[1:-1] if _is_last(step) else dims[2:]


def _pads(step: Step, count: int) -> list[int]:
    """Return the paddings in ONNX's order: all starts, then all ends."""
    if step.op.attr("padding_algorithm", "EXPLICIT") == "VALID":
        return [0] * 2 * count
    given = list(step.op.ints("paddings")) or [0]
    if len(given) == 1:
        given = given * count
    if len(given) == count:
        return given * 2
    pairs = np.reshape(given[-2 * count :], (-1, 2))
    return [*map(int, pairs[:, 0]), *map(int, pairs[:, 1])]


def _moves(step: Step, count: int) -> dict[str, Attribute]:
    """Return how a window of a convolution moves."""
    strides = list(step.op.ints("strides", [1] * count))
    moves: dict[str, Attribute] = {"strides": strides}
    if step.op.attr("padding_algorithm", "EXPLICIT") == "SAME":
        # Paddle dilates nothing then (UpdatePaddingAndDilation in conv_util.h).
        return {**moves, "auto_pad": "SAME_UPPER"}
    dilations = list(step.op.ints("dilations", [1] * count))
    return {**moves, "dilations": dilations, "pads": _pads(step, count)}


@_rows("conv2d", "depthwise_conv2d", "conv3d")
def _conv(step: Step) -> None:
    count = step.rank(step.op.input("Input")) - 2
    filters = step.dims(step.op.input("Filter"))
    inputs = [_input(step, "Input"), step.input("Filter"), step.optional("Bias")]
    groups = max(1, step.op.attr("groups", 1))
    moves = _moves(step, count)
    _give(step, "Output", step("Conv", *inputs, group=groups, kernel_shape=filters[2:], **moves))


@_rows("conv2d_transpose", "depthwise_conv2d_transpose", "conv3d_transpose")
def _conv_transpose(step: Step) -> None:
    count = step.rank(step.op.input("Input")) - 2
    filters = step.dims(step.op.input("Filter"))[2:]
    moves, groups = _moves(step, count), max(1, step.op.attr("groups", 1))
    if "auto_pad" in moves:
        raise step.refused("its padding is 'SAME'")
    added = list(step.op.ints("output_padding"))
    sizes = list(step.op.ints("output_size"))
    if sizes:
        added = _added(step, moves, filters, sizes)
    if any(added):
        moves["output_padding"] = added
    inputs = [_input(step, "Input"), step.input("Filter"), step.optional("Bias")]
    found = step("ConvTranspose", *inputs, group=groups, kernel_shape=filters, **moves)
    _give(step, "Output", found)


def _added(
    step: Step, moves: dict[str, Attribute], filters: Sequence[int], sizes: Sequence[int]
) -> list[int]:
    """Return what an asked output size adds at the end of each axis."""
    dims, count = _spatial(step, "Input"), len(filters)
    if min(dims) < 0:
        raise step.refused("its output has a fixed size, its input has not")
    strides, dilations, pads = (np.array(moves[name]) for name in ("strides", "dilations", "pads"))
    least = (np.array(dims) - 1) * strides + dilations * (np.array(filters) - 1) + 1
    least -= pads[:count] + pads[count:]
    return [int(one) for one in np.array(sizes) - least]


@_rows("deformable_conv")
def _deformable(step: Step) -> None:
    step.needs_opset(19)
    filters = step.dims(step.op.input("Filter"))
    offset = step.input("Offset")
    inputs = [step.input("Input"), step.input("Filter"), offset, "", step.optional("Mask")]
    found = step(
        "DeformConv",
        *inputs,
        group=max(1, step.op.attr("groups", 1)),
        offset_group=step.op.attr("deformable_groups", 1),
        kernel_shape=filters[2:],
        **_moves(step, 2),
    )
    step.give("Output", found)


@_rows("pool2d", "pool3d")
def _pool(step: Step) -> None:
    is_max = step.op.attr("pooling_type", "max") == "max"
    value, dims = _input(step, "X"), _spatial(step, "X")
    count = len(dims)
    size = list(step.op.ints("ksize")) or [1] * count
    size = size * count if len(size) == 1 else size
    is_adaptive = step.op.attr("adaptive", False)
    if step.op.attr("global_pooling", False) or (is_adaptive and set(size) == {1}):
        _give(step, "Out", step("GlobalMaxPool" if is_max else "GlobalAveragePool", value))
    elif is_adaptive:
        _give(step, "Out", _adaptive(step, value, dims, size, is_max))
    else:
        moves = _moves(step, count)
        moves.pop("dilations", None)
        moves["ceil_mode"] = int(step.op.attr("ceil_mode", False))
        if not is_max:
            moves["count_include_pad"] = int(not step.op.attr("exclusive", True))
        kind = "MaxPool" if is_max else "AveragePool"
        _give(step, "Out", step(kind, value, kernel_shape=size, **moves))


def _adaptive(
    step: Step, value: str, dims: Sequence[int], sizes: Sequence[int], is_max: bool
) -> str:
    """Pool to a fixed size; the parts of a length that is no multiple overlap."""
    if min(dims) < 0:
        raise step.refused(
            f"it pools to {list(sizes)}, and the size of its input is not fixed in the model"
        )
    if all(length % size == 0 for length, size in zip(dims, sizes)):
        shape = [length // size for length, size in zip(dims, sizes)]
        kind = "MaxPool" if is_max else "AveragePool"
        return step(kind, value, kernel_shape=shape, strides=shape)
    for axis, (length, size) in enumerate(zip(dims, sizes), 2):
        parts = []
        for at in range(size):
            start, end = at * length // size, math.ceil((at + 1) * length / size)
            part = step.slice(value, [start], [end], [axis])
            parts.append(step.reduce("Max" if is_max else "Mean", part, [axis], keepdims=True))
        value = step.concat(parts, axis)
    return value


@_rows("max_pool2d_with_index", "max_pool3d_with_index")
def _max_pool_with_index(step: Step) -> None:
    dims, count = step.dims(), step.rank() - 2
    size = list(step.op.ints("ksize"))
    if step.op.attr("global_pooling", False):
        size = dims[2:]
    moves: dict[str, Attribute] = {"strides": list(step.op.ints("strides", [1] * count))}
    moves["pads"] = _pads(step, count)
    moves["ceil_mode"] = int(step.op.attr("ceil_mode", False))
    if step.op.attr("adaptive", False):
        if set(size) == {1} and not step.builder.reads[step.op.output("Mask")]:
            step.give("Out", step("GlobalMaxPool", step.x))
            return
        if min(dims[2:]) < 0 or any(length % part for length, part in zip(dims[2:], size)):
            raise step.refused("it pools to a size that does not divide that of its input")
        size = [length // part for length, part in zip(dims[2:], size)]
        moves = {"strides": size}
    if not step.builder.reads[step.op.output("Mask")]:
        step.give("Out", step("MaxPool", step.x, kernel_shape=size, **moves))
        return
    found, places = step.many("MaxPool", [step.x], 2, kernel_shape=size, **moves)
    # ONNX counts places over all samples and channels, Paddle within each map.
    area = step("ReduceProd", step.slice(step.shape(step.x), [2], [2 + count], [0]), keepdims=0)
    step.hold(step.op.output("Out"), found)
    step.give_as_declared("Mask", step("Mod", places, area))


@_rows("lp_pool2d")
def _lp_pool(step: Step) -> None:
    moves = _moves(step, 2)
    moves.pop("dilations", None)
    power = step.op.attr("norm_type", 2.0)
    if not power.is_integer():
        raise step.refused("its power is no whole number")
    size = list(step.op.ints("kernel_size") or step.op.ints("ksize"))
    found = step("LpPool", step.x, p=int(power), kernel_shape=size, **moves)
    _give(step, "out" if step.op.outputs("out") else "Out", found)


@_rows("unpool")
def _unpool(step: Step) -> None:
    """Put values to their places in zeros; ``Indices`` count within each map."""
    dims = step.dims(step.op.output("Out"))[2:]
    if min(dims) < 0:
        raise step.refused("the size of its output is not fixed")
    x, shape = step.input("X"), step.shape(step.input("X"))
    front = step.slice(shape, [0], [2], [0])
    flat = step.concat([front, step.ints([-1])], 0)
    area = step.concat([front, step.ints([math.prod(dims)])], 0)
    zeros = step("Expand", step.number(0), area)
    places = step("Reshape", step.as_int64(step.input("Indices")), flat)
    put = step("ScatterElements", zeros, places, step("Reshape", x, flat), axis=2)
    step.give("Out", step("Reshape", put, step.concat([front, step.ints(dims)], 0)))


@_rows("unfold")
def _unfold(step: Step) -> None:
    """Put the values of each window behind one another: a convolution by the unit matrix."""
    size, channels = step.op.ints("kernel_sizes"), step.dims()[1]
    if channels < 0:
        raise step.refused("the number of its channels is not known")
    area = math.prod(size)
    filters = np.tile(np.eye(area).reshape(area, 1, *size), (channels, 1, 1, 1))
    weight = step.constant(filters.astype(step.dtype()))
    windows = step("Conv", step.x, weight, group=channels, **_moves(step, 2))
    step.give("Y", step("Reshape", windows, step.ints([0, channels * area, -1])))


@_rows("fold")
def _fold(step: Step) -> None:
    step.needs_opset(18)
    count = 2
    found = step(
        "Col2Im",
        step.x,
        step.ints(step.op.ints("output_sizes")),
        step.ints(step.op.ints("kernel_sizes")),
        strides=list(step.op.ints("strides")),
        dilations=list(step.op.ints("dilations")),
        pads=_pads(step, count),
    )
    step.give("Y", found)


_MODES = {"bilinear": "linear", "linear": "linear", "trilinear": "linear"}
_MODES |= {"nearest": "nearest", "bicubic": "cubic"}


@_rows(
    *(f"{kind}_interp_v2" for kind in _MODES),
    *(f"{kind}_interp" for kind in ("bilinear", "nearest")),
)
def _interpolate(step: Step) -> None:
    kind = step.op.type.split("_")[0]
    attributes: dict[str, Attribute] = {"mode": _MODES[kind]}
    half_pixel = "half_pixel"
    if step.op.attr("align_corners", False):
        attributes["coordinate_transformation_mode"] = "align_corners"
        attributes["nearest_mode"] = "round_prefer_ceil"
    elif kind == "nearest" or (kind != "bicubic" and step.op.attr("align_mode", 1) == 1):
        attributes["coordinate_transformation_mode"] = "asymmetric"
        attributes["nearest_mode"] = "floor"
    else:
        attributes["coordinate_transformation_mode"] = half_pixel
    if kind == "bicubic":
        attributes["cubic_coeff_a"] = -0.75
    value, count = _input(step, "X"), len(_spatial(step, "X"))
    scales, sizes = _scales(step, count), ""
    if not scales:
        front = step.slice(step.shape(value), [0], [2], [0])
        sizes = step.concat([front, _sizes(step, count)], 0)
    _give(step, "Out", step("Resize", value, "", scales, sizes, **attributes))


def _scales(step: Step, count: int) -> str:
    """Return the factors of all axes; the empty name if sizes are given instead."""
    if step.op.inputs("OutSize") or step.op.inputs("SizeTensor"):
        return ""
    if step.op.inputs("Scale"):
        given = step("Cast", step.flat(step.input("Scale")), to=1)
        given = step("Expand", given, step.ints([count]))
        return step.concat([step.constant(np.ones(2, np.float32)), given], 0)
    found = step.op.value("scale")
    factors = [found] if isinstance(found, float) else list(found or ())
    if not any(factor > 0 for factor in factors):
        return ""
    factors = factors * count if len(factors) == 1 else factors
    return step.constant(np.array([1, 1, *factors], np.float32))


def _sizes(step: Step, count: int) -> str:
    if step.op.inputs("OutSize") or step.op.inputs("SizeTensor"):
        # A list of sizes outweighs a tensor of them (interpolate_kernel.cc).
        slot = "" if step.op.inputs("SizeTensor") else "OutSize"
        return step.numbers("", slot, "SizeTensor")
    names = {1: ("out_w",), 2: ("out_h", "out_w"), 3: ("out_d", "out_h", "out_w")}[count]
    return step.ints([step.op.attr(name, 0) for name in names])


@_rows("grid_sampler")
def _grid_sample(step: Step) -> None:
    mode = step.op.attr("mode", "bilinear")
    if step.opset >= 20 and mode == "bilinear":
        mode = "linear"
    found = step(
        "GridSample",
        step.input("X"),
        step.input("Grid"),
        mode=mode,
        padding_mode=step.op.attr("padding_mode", "zeros"),
        align_corners=int(step.op.attr("align_corners", True)),
    )
    step.give("Output", found)


@_rows("affine_grid")
def _affine_grid(step: Step) -> None:
    shape = step.op.ints("output_shape")
    if step.op.inputs("OutputShape") or len(shape) != 4:
        raise step.refused("its output has no fixed size of two axes")
    height, width = shape[2:]

    def places(count: int) -> Array:
        ends = np.linspace(-1, 1, count)
        return ends if step.op.attr("align_corners", True) else ends * (count - 1) / count

    ys, xs = np.meshgrid(places(height), places(width), indexing="ij")
    points = np.stack([xs, ys, np.ones_like(xs)], -1).reshape(1, -1, 3).astype(step.dtype())
    theta = step.transpose(step.input("Theta"), [0, 2, 1])
    grid = step("MatMul", step.constant(points), theta)
    step.give("Output", step("Reshape", grid, step.ints([0, height, width, 2])))


# Normalization.


@_rows("batch_norm")
def _batch_norm(step: Step) -> None:
    rank = step.rank(step.op.input("X"))
    is_last = _is_last(step) and rank > 2
    value = channels_first(step, step.input("X"), rank) if is_last else step.input("X")
    slots = ("Scale", "Bias", "Mean", "Variance")
    epsilon = step.op.attr("epsilon", 1e-5)
    found = step("BatchNormalization", value, *map(step.input, slots), epsilon=epsilon)
    step.give("Y", channels_last(step, found, rank) if is_last else found)
    for slot, source in (("MeanOut", "Mean"), ("VarianceOut", "Variance")):
        step.give(slot, step.input(source))


@_rows("layer_norm")
def _layer_norm(step: Step) -> None:
    axis, dims = step.op.attr("begin_norm_axis", 1), step.dims(step.op.input("X"))
    over = dims[axis:]
    if min(over) < 0:
        raise step.refused("the length of a normalized axis is not known")
    affine = []
    for slot, neutral in (("Scale", 1.0), ("Bias", 0.0)):
        if step.op.inputs(slot):
            value = step.input(slot)
            affine.append(value if len(over) == 1 else step("Reshape", value, step.ints(over)))
        else:
            dtype = step.dtype(step.op.input("X"))
            affine.append(step.constant(np.full(over, neutral, dtype)))
    epsilon = step.op.attr("epsilon", 1e-5)
    found = step("LayerNormalization", step.input("X"), *affine, axis=axis, epsilon=epsilon)
    step.give("Y", found)


@_rows("instance_norm")
def _instance_norm(step: Step) -> None:
    x = step.op.input("X")
    affine = _affine(step, step.dims(x)[1])
    epsilon = step.op.attr("epsilon", 1e-5)
    step.give("Y", step("InstanceNormalization", step.value(x), *affine, epsilon=epsilon))


@_rows("group_norm")
def _group_norm(step: Step) -> None:
    """Normalize groups as the channels of another map."""
    x, groups = step.op.input("X"), step.op.attr("groups", 1)
    channels = step.dims(x)[-1 if _is_last(step) else 1]
    value, dtype = _input(step, "X"), step.dtype(x)
    plain = [step.constant(np.full(groups, neutral, dtype)) for neutral in (1.0, 0.0)]
    grouped = step("Reshape", value, step.ints([0, groups, -1]))
    epsilon = step.op.attr("epsilon", 1e-5)
    normal = step("InstanceNormalization", grouped, *plain, epsilon=epsilon)
    normal = step("Reshape", normal, step.shape(value))
    around = step.ints([channels, *[1] * (step.rank(x) - 2)])
    scale, bias = (step("Reshape", one, around) for one in _affine(step, channels))
    _give(step, "Y", step("Add", step("Mul", normal, scale), bias))


def _affine(step: Step, channels: int) -> list[str]:
    dtype = step.dtype(step.op.input("X"))
    return [
        step.input(slot) if step.op.inputs(slot) else step.constant(np.full(channels, one, dtype))
        for slot, one in (("Scale", 1.0), ("Bias", 0.0))
    ]
