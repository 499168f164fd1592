"""Ops that move values, and change none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .builder import Row, Rows, Step, rows_of

ROWS: Rows = {}
_rows = rows_of(ROWS)

_FAR = 2**31 - 1


@_rows("reshape2", "reshape")
def _reshape(step: Step) -> None:
    shape = step.numbers("shape", "Shape", "ShapeTensor")
    step.give("Out", step("Reshape", step.input("X"), shape))


@_rows("transpose2", "transpose")
def _transpose(step: Step) -> None:
    step.give("Out", step.transpose(step.x, step.axes(step.op.ints("axis"))))


@_rows("squeeze2")
def _squeeze(step: Step) -> None:
    axes, dims = step.axes(step.op.ints("axes")), step.dims()
    if axes:
        axes = [axis for axis in axes if dims[axis] == 1 or dims[axis] < 0]
    else:
        axes = [axis for axis, size in enumerate(dims) if size == 1]
    step.give("Out", step.squeeze(step.x, axes) if axes else step("Identity", step.x))


@_rows("unsqueeze2")
def _unsqueeze(step: Step) -> None:
    axes = step.numbers("axes", "AxesTensor", "AxesTensorList")
    value = step.input("X")
    given = step.op.ints("axes")
    if len(given) < 2 or step.op.inputs("AxesTensor") or step.op.inputs("AxesTensorList"):
        step.give("Out", step("Unsqueeze", value, axes))
        return
    rank = step.rank(step.op.input("X"))
    for axis in given:  # one after the other, unlike in ONNX
        rank += 1
        value = step.unsqueeze(value, [axis if axis >= 0 else axis + rank])
    step.give("Out", value)


@_rows("flatten_contiguous_range")
def _flatten(step: Step) -> None:
    rank, dims = step.rank(), step.dims()
    start, stop = step.axis("start_axis", 1), step.axis("stop_axis", 1)
    if not rank:
        step.give("Out", step.flat(step.x))
    elif all(size > 0 for size in dims[stop + 1 :]) or stop == rank - 1:
        step.give("Out", step("Reshape", step.x, step.ints([0] * start + [-1, *dims[stop + 1 :]])))
    else:
        shape = step.shape(step.x)
        before, after = (
            step.slice(shape, [first], [end], [0]) for first, end in ((0, start), (stop + 1, rank))
        )
        shape = step.concat([before, step.ints([-1]), after], 0)
        step.give("Out", step("Reshape", step.x, shape))


@_rows("flatten2")
def _flatten2(step: Step) -> None:
    step.give("Out", step("Flatten", step.x, axis=step.op.attr("axis", 1)))


@_rows("shape", "shape64")
def _shape(step: Step) -> None:
    step.give_as_declared("Out", step.shape(step.x))


@_rows("size")
def _size(step: Step) -> None:
    step.give_as_declared("Out", step("Size", step.x))


@_rows("is_empty")
def _is_empty(step: Step) -> None:
    step.give("Out", step("Equal", step("Size", step.x), step.constant(np.array(0, np.int64))))


def _constant_axis(step: Step, slot: str, default: int) -> int:
    if step.op.inputs(slot):
        known = step.known(step.op.input(slot))
        if known is None:
            raise step.refused("its axis is computed")
        return int(known.reshape(-1)[0])
    return step.op.attr("axis", default)


@_rows("concat")
def _concat(step: Step) -> None:
    axis = _constant_axis(step, "AxisTensor", 0)
    step.give("Out", step.concat(step.inputs("X"), axis))


@_rows("stack")
def _stack(step: Step) -> None:
    rank = step.rank() + 1
    axis = step.op.attr("axis", 0) % rank
    parts = [step.unsqueeze(value, [axis]) for value in step.inputs("X")]
    step.give("Y", step.concat(parts, axis))


@_rows("split")
def _split(step: Step) -> None:
    x = step.op.input("X")
    axis = _constant_axis(step, "AxisTensor", 0) % step.rank(x)
    count, sections = len(step.op.outputs("Out")), list(step.op.ints("sections"))
    if step.op.inputs("SectionsTensorList"):
        sizes = step.numbers("sections", "", "SectionsTensorList")
    else:
        size = step.dims(x)[axis]
        if not sections and size > 0:
            sections = [size // count] * count
        if -1 in sections and size > 0:
            sections[sections.index(-1)] = size - sum(one for one in sections if one >= 0)
        sizes = _computed_sizes(step, axis, sections, count)
    names = step.many("Split", [step.input("X"), sizes], count, axis=axis)
    step.give_all("Out", names)


def _computed_sizes(step: Step, axis: int, sections: Sequence[int], count: int) -> str:
    """Return the lengths of parts; -1 is what the others leave."""
    if sections and -1 not in sections:
        return step.ints(sections)
    size = step.size(step.input("X"), axis)
    if not sections:
        part = step("Div", size, step.ints([count]))
        return step("Expand", part, step.ints([count]))
    known = sum(one for one in sections if one >= 0)
    rest = step("Sub", size, step.ints([known]))
    return step.concat([rest if one < 0 else step.ints([one]) for one in sections], 0)


def _parts(slot: str) -> Row:
    def row(step: Step) -> None:
        axis, outputs = step.axis("axis", 0), step.op.outputs(slot)
        sizes = step.ints([1] * len(outputs))
        parts = step.many("Split", [step.x, sizes], len(outputs), axis=axis)
        step.give_all(slot, [step.squeeze(part, [axis]) for part in parts])

    return row


ROWS["unbind"] = _parts("Out")
ROWS["unstack"] = _parts("Y")


@_rows("slice")
def _slice(step: Step) -> None:
    axes, dropped = list(step.op.ints("axes")), set(step.op.ints("decrease_axis"))
    bounds = []
    for name, slot in (("starts", "StartsTensor"), ("ends", "EndsTensor")):
        bounds.append(step.numbers(name, slot, f"{slot}List"))
    slots = ("StartsTensor", "StartsTensorList", "EndsTensor", "EndsTensorList")
    if step.lacks(slots):
        starts, ends = step.op.ints("starts"), list(step.op.ints("ends"))
        for at, (start, axis) in enumerate(zip(starts, axes)):
            if axis in dropped and start == -1:
                ends[at] = _FAR  # the last one: Paddle's 0 is the end behind it
        bounds = [step.ints(starts), step.ints(ends)]
    found = step("Slice", step.input("Input"), *bounds, step.ints(axes))
    step.give("Out", _without_axes(step, found, sorted(dropped)))


def _without_axes(step: Step, value: str, dropped: Sequence[int]) -> str:
    if not dropped:
        return value
    if len(dropped) == step.rank(step.op.input("Input")) and step.rank(step.op.output("Out")):
        return step.flat(value)  # Paddle 2 has no tensors without axes
    return step.squeeze(value, dropped)


@_rows("strided_slice")
def _strided_slice(step: Step) -> None:
    axes = list(step.op.ints("axes"))
    bounds = [
        step.numbers(name, f"{slot}Tensor", f"{slot}TensorList")
        for name, slot in (("starts", "Starts"), ("ends", "Ends"), ("strides", "Strides"))
    ]
    starts, ends, strides = bounds
    found = step("Slice", step.input("Input"), starts, ends, step.ints(axes), strides)
    step.give("Out", _without_axes(step, found, sorted(step.op.ints("decrease_axis"))))


@_rows("crop_tensor")
def _crop(step: Step) -> None:
    offsets = step.numbers("offsets", "Offsets", "OffsetsTensor")
    rank = step.rank(step.op.input("X"))
    shape = step.numbers("shape", "Shape", "ShapeTensor")
    if -1 in step.op.ints("shape") and not step.op.inputs("Shape"):
        whole = step("Sub", step.shape(step.input("X")), offsets)
        shape = step("Where", step("Less", shape, step.ints([0])), whole, shape)
    ends = step("Add", offsets, shape)
    axes = step.ints(range(rank))
    step.give("Out", step("Slice", step.input("X"), offsets, ends, axes))


@_rows("expand_v2")
def _expand(step: Step) -> None:
    shape = step.numbers("shape", "Shape", "expand_shapes_tensor")
    one = step.ints([1])  # -1 keeps a length, as a 1 does in ONNX
    is_known = step.lacks(("Shape", "expand_shapes_tensor"))
    if is_known:
        shape = step.ints([max(size, 1) for size in step.op.ints("shape")])
    else:
        shape = step("Max", shape, one)
    step.give("Out", step("Expand", step.input("X"), shape))


@_rows("expand_as_v2")
def _expand_as(step: Step) -> None:
    if step.op.inputs("Y"):
        shape = step.shape(step.input("Y"))
    else:
        shape = step.ints(step.op.ints("target_shape"))
    step.give("Out", step("Expand", step.input("X"), shape))


@_rows("tile")
def _tile(step: Step) -> None:
    x, repeats = (
        step.op.input("X"),
        step.numbers("repeat_times", "RepeatTimes", "repeat_times_tensor"),
    )
    value, slots = step.value(x), ("RepeatTimes", "repeat_times_tensor")
    if step.lacks(slots):
        given, rank = list(step.op.ints("repeat_times")), step.rank(x)
        given = [1] * (rank - len(given)) + given
        value = step.unsqueeze(value, range(len(given) - rank))
        repeats = step.ints(given)
    step.give("Out", step("Tile", value, repeats))


@_rows("broadcast_tensors")
def _broadcast_tensors(step: Step) -> None:
    values = step.inputs("X")
    shapes = [step.shape(value) for value in values]
    ranks = [step.rank(name) for name in step.op.inputs("X")]
    padded = [
        step.concat([step.ints([1] * (max(ranks) - rank)), shape], 0)
        if rank < max(ranks)
        else shape
        for shape, rank in zip(shapes, ranks)
    ]
    shape = step("Max", *padded)
    step.give_all("Out", [step("Expand", value, shape) for value in values])


@_rows("meshgrid")
def _meshgrid(step: Step) -> None:
    values = [step.flat(value) for value in step.inputs("X")]
    shape, count = step.concat([step.shape(value) for value in values], 0), len(values)
    found = []
    for at, value in enumerate(values):
        others = [axis for axis in range(count) if axis != at]
        found.append(step("Expand", step.unsqueeze(value, others), shape))
    step.give_all("Out", found)


@_rows("tril_triu")
def _tril_triu(step: Step) -> None:
    upper = int(not step.op.attr("lower", True))
    diagonal = step.constant(np.array(step.op.attr("diagonal", 0), np.int64))
    step.give("Out", step("Trilu", step.x, diagonal, upper=upper))


@_rows("flip")
def _flip(step: Step) -> None:
    axes = step.axes(step.op.ints("axis"))
    many = [step.ints([value] * len(axes)) for value in (-1, -(2**31) + 1)]
    steps = step.ints([-1] * len(axes))
    step.give("Out", step("Slice", step.x, *many, step.ints(axes), steps))


@_rows("roll")
def _roll(step: Step) -> None:
    if step.op.inputs("ShiftsTensor"):
        raise step.refused("its shifts are computed")
    value, shifts = step.input("X"), step.op.ints("shifts")
    axes = list(step.op.ints("axis"))
    is_flat = not axes
    if is_flat:
        value, axes = step.flat(value), [0]
    else:
        axes = step.axes(axes, step.op.input("X"))
    for axis, shift in zip(axes, shifts):
        # The shift may be longer than the axis.
        size = step.size(value, axis)
        cut = step("Mod", step.ints([-shift]), size)
        zero, far, where = step.ints([0]), step.ints([_FAR]), step.ints([axis])
        tail = step("Slice", value, cut, far, where)
        value = step.concat([tail, step("Slice", value, zero, cut, where)], axis)
    if is_flat:
        value = step("Reshape", value, step.shape(step.input("X")))
    step.give("Out", value)


@_rows("repeat_interleave")
def _repeat_interleave(step: Step) -> None:
    x, axis = step.input("X"), step.axis("dim", 0)
    rank, count = step.rank(), step.op.attr("Repeats", 1)
    repeated = step(
        "Tile", step.unsqueeze(x, [axis + 1]), step.ints(_all_but(rank + 1, axis + 1, count))
    )
    shape = step.shape(x)
    lengths = step("Mul", shape, step.ints(_all_but(rank, axis, count)))
    step.give("Out", step("Reshape", repeated, lengths))


def _all_but(rank: int, axis: int, value: int) -> list[int]:
    return [value if at == axis else 1 for at in range(rank)]


def channels_first(step: Step, value: str, rank: int) -> str:
    """Return [N, ..., C] as [N, C, ...]."""
    return step.transpose(value, [0, rank - 1, *range(1, rank - 1)])


def channels_last(step: Step, value: str, rank: int) -> str:
    """Return [N, C, ...] as [N, ..., C]."""
    return step.transpose(value, [0, *range(2, rank), 1])


@_rows("pixel_shuffle")
def _pixel_shuffle(step: Step) -> None:
    factor, is_last = step.op.attr("upscale_factor", 1), step.op.is_channels_last
    value = channels_first(step, step.x, 4) if is_last else step.x
    value = step("DepthToSpace", value, blocksize=factor, mode="CRD")
    step.give("Out", channels_last(step, value, 4) if is_last else value)


@_rows("pixel_unshuffle")
def _pixel_unshuffle(step: Step) -> None:
    """Put the places of a block behind one another, channel by channel, unlike SpaceToDepth."""
    factor, is_last = step.op.attr("downscale_factor", 1), step.op.is_channels_last
    value = channels_first(step, step.x, 4) if is_last else step.x
    blocks = step("SpaceToDepth", value, blocksize=factor)  # [N, r*r*C, h, w]
    channels = step.dims()[-1 if is_last else 1]
    if channels < 0:
        raise step.refused("the number of channels is not known")
    order = np.arange(channels * factor * factor).reshape(-1, channels).T.reshape(-1)
    value = step("Gather", blocks, step.ints(order.tolist()), axis=1)
    step.give("Out", channels_last(step, value, 4) if is_last else value)


@_rows("channel_shuffle", "shuffle_channel")
def _channel_shuffle(step: Step) -> None:
    groups = step.op.attr("groups", 0) or step.op.attr("group", 1)
    is_last = step.op.is_channels_last
    channels = step.dims()[-1 if is_last else 1]
    if channels < 0:
        raise step.refused("the number of channels is not known")
    order = np.arange(channels).reshape(groups, -1).T.reshape(-1)
    axis = 3 if is_last else 1
    step.give("Out", step("Gather", step.x, step.ints(order.tolist()), axis=axis))


@_rows("temporal_shift")
def _temporal_shift(step: Step) -> None:
    segments, ratio = step.op.attr("seg_num", 1), step.op.attr("shift_ratio", 0.25)
    dims = step.dims()
    if step.op.is_channels_last or min(dims[1:]) < 0:
        raise step.refused("channels are last, or its sizes are not known")
    channels, height, width = dims[1:]
    first, second = int(channels * ratio), int(channels * 2 * ratio)
    frames = step("Reshape", step.x, step.ints([-1, segments, channels, height, width]))
    back = step.slice(frames, [0, 0], [segments - 1, first], [1, 2])
    ahead = step.slice(frames, [1, first], [segments, second], [1, 2])
    zeros = step.number(0)
    back = step("Pad", back, step.ints([0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), zeros)
    ahead = step("Pad", ahead, step.ints([0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), zeros)
    rest = step.slice(frames, [second], [channels], [2])
    moved = step.concat([back, ahead, rest], 2)
    step.give("Out", step("Reshape", moved, step.ints([-1, channels, height, width])))


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@_rows("pad")
def _pad(step: Step) -> None:
    pairs = np.reshape(step.op.ints("paddings"), (-1, 2))
    value = step.number(step.op.attr("pad_value", 0.0))
    step.give("Out", step("Pad", step.x, step.ints(pairs.T.reshape(-1).tolist()), value))


@_rows("pad3d")
def _pad3d(step: Step) -> None:
    mode, rank = _PAD_MODES[step.op.attr("mode", "constant")], step.rank(step.op.input("X"))
    if mode == "wrap":
        step.needs_opset(19)
    if step.op.inputs("Paddings"):
        known = step.known(step.op.input("Paddings"))
        if known is None:
            raise step.refused("its paddings are computed")
        given = [int(one) for one in known.reshape(-1)]
    else:
        given = list(step.op.ints("paddings"))
    pairs = np.reshape(given, (-1, 2))
    pairs = pairs[::-1]  # they come from the last axis to the first
    layout = step.op.attr("data_format", "NCDHW")
    before = [0] if layout.endswith("C") else [0, 0]
    ends = [before + pairs[:, side].tolist() for side in (0, 1)]
    ends = [one + [0] * (rank - len(one)) for one in ends]
    value = step.number(step.op.attr("value", 0.0), step.op.input("X"))
    padded = step("Pad", step.input("X"), step.ints([*ends[0], *ends[1]]), value, mode=mode)
    step.give("Out", padded)
