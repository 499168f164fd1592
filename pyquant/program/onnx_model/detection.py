"""Boxes of detectors: what they are decoded by, and which of them are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from .builder import Rows, Step, rows_of

ROWS: Rows = {}
_rows = rows_of(ROWS)

_NEVER = -3e38  # a score that no threshold is below


def _range(step: Step, length: str) -> str:
    """Return the whole numbers below a length: int64."""
    zero, one = (step.constant(np.array(value, np.int64)) for value in (0, 1))
    return step("Range", zero, step("Reshape", length, step.ints([])), one)


@_rows("yolo_box")
def _yolo_box(step: Step) -> None:
    """Decode maps [N, anchors x (5 + classes), H, W]: x, y, width, height, confidence, classes."""
    number = partial(step.number, variable=step.op.input("X"))
    attr, classes = step.op.attr, step.op.attr("class_num", 1)
    is_aware, count = attr("iou_aware", False), len(step.op.ints("anchors")) // 2
    maps = _maps_of_anchors(step, count if is_aware else 0, count, 5 + classes)
    confidence = step("Sigmoid", _row(step, maps, 4))
    if is_aware:
        overlap = step("Sigmoid", _row(step, _maps_of_anchors(step, 0, count, 1), 0))
        share = attr("iou_aware_factor", 0.5)
        powers = (confidence, 1 - share), (overlap, share)
        parts = [step("Pow", value, number(power)) for value, power in powers]
        confidence = step("Mul", *parts)
    is_sure = step("Not", step("Less", confidence, number(attr("conf_thresh", 0.0))))
    is_sure = step.unsqueeze(is_sure, [-1])
    ends = _ends(step, maps, 0), _ends(step, maps, 1)
    boxes = step.concat([step.unsqueeze(end, [-1]) for pair in zip(*ends) for end in pair], -1)
    scores = step("Sigmoid", step.slice(maps, [5], [5 + classes], [2]))
    scores = step.transpose(scores, [0, 1, 3, 4, 2])
    scores = step("Mul", scores, step.unsqueeze(confidence, [-1]))
    for slot, value, columns in (("Boxes", boxes, 4), ("Scores", scores, classes)):
        sure = step("Where", is_sure, value, number(0))
        step.give(slot, step("Reshape", sure, _lengths(step, [0], [-1, columns])))


def _lengths(step: Step, axes: Sequence[int], others: Sequence[int]) -> str:
    """Return lengths of the maps, with others behind the first one."""
    first, *rest = (step.size(step.input("X"), axis) for axis in axes)
    return step.concat([first, step.ints(others), *rest], 0)


def _maps_of_anchors(step: Step, first: int, anchors: int, rows: int) -> str:
    """Return some channels of the maps as [N, anchors, rows, H, W]."""
    part = step.slice(step.input("X"), [first], [first + anchors * rows], [1])
    return step("Reshape", part, _lengths(step, [0, 2, 3], [anchors, rows]))


def _row(step: Step, maps: str, at: int) -> str:
    return step.squeeze(step.slice(maps, [at], [at + 1], [2]), [2])


def _ends(step: Step, maps: str, axis: int) -> tuple[str, str]:
    """Return where boxes begin and end, in pixels of the image, from left or from the top."""
    attr, data_type = step.op.attr, step.data_type(step.op.input("X"))
    number = partial(step.number, variable=step.op.input("X"))
    length, scale = step.size(step.input("X"), 3 - axis), attr("scale_x_y", 1.0)
    cells = step.cast(length, data_type)
    places = step.unsqueeze(step.cast(_range(step, length), data_type), [axis] if axis else [])
    image = step.slice(step.input("ImgSize"), [1 - axis], [2 - axis], [1])  # [N, height and width]
    size = step("Reshape", step.cast(image, data_type), step.ints([-1, 1, 1, 1]))
    shift = step("Mul", step("Sigmoid", _row(step, maps, axis)), number(scale))
    shift = step("Add", shift, number(-0.5 * (scale - 1)))
    center = step("Div", step("Mul", step("Add", shift, places), size), cells)
    anchors = np.array(step.op.ints("anchors")[axis::2]).reshape(-1, 1, 1)
    anchor = step.constant(anchors.astype(step.dtype(step.op.input("X"))))
    extent = step("Mul", step("Mul", step("Exp", _row(step, maps, 2 + axis)), anchor), size)
    half = step("Div", extent, step("Mul", cells, number(2 * attr("downsample_ratio", 32))))
    first, last = step("Sub", center, half), step("Add", center, half)
    if attr("clip_bbox", True):
        first = step("Max", first, number(0))
        last = step("Min", last, step("Sub", size, number(1)))
    return first, last


def _columns(step: Step, boxes: str) -> list[str]:
    """Return each of the four numbers of boxes."""
    return [step.slice(boxes, [at], [at + 1], [-1]) for at in range(4)]


def _extents(step: Step, boxes: str, more: str | None) -> list[tuple[str, str]]:
    """Return the centers and the widths of boxes, and the same of their heights."""
    columns, found = _columns(step, boxes), []
    for low, high in zip(columns[:2], columns[2:]):
        extent = step("Sub", high, low)
        if more is not None:
            extent = step("Add", extent, more)
        found.append((step("Add", low, step("Div", extent, step.number(2))), extent))
    return found


@_rows("box_coder")
def _box_coder(step: Step) -> None:
    """Decode offsets [N, M, 4] by prior boxes, or encode boxes [N, 4] as offsets from M of them."""
    prior, target = step.op.input("PriorBox"), step.input("TargetBox")
    decodes = step.op.attr("code_type", "encode_center_size") == "decode_center_size"
    more = None if step.op.attr("box_normalized", True) else step.number(1, prior)
    axis = step.op.attr("axis", 0) if decodes else 0
    priors = _extents(step, step.unsqueeze(step.value(prior), [axis]), more)
    variances = [step.number(one, prior) for one in step.op.floats("variance")] or None
    if step.op.inputs("PriorBoxVar"):
        given = step.unsqueeze(step.input("PriorBoxVar"), [axis])
        variances = _columns(step, given)
    if decodes:
        columns = _decoded(step, _columns(step, target), priors, variances, more)
    else:
        columns = _encoded(step, step.unsqueeze(target, [1]), priors, variances, more)
    step.give("OutputBox", step.concat(columns, -1))


def _decoded(
    step: Step,
    offsets: Sequence[str],
    priors: Sequence[tuple[str, str]],
    variances: Sequence[str] | None,
    more: str | None,
) -> list[str]:
    if variances is not None:
        offsets = [step("Mul", *pair) for pair in zip(offsets, variances)]
    low, high = [], []
    for shift, growth, (center, extent) in zip(offsets[:2], offsets[2:], priors):
        middle = step("Add", step("Mul", shift, extent), center)
        half = step("Div", step("Mul", step("Exp", growth), extent), step.number(2))
        low.append(step("Sub", middle, half))
        last = step("Add", middle, half)
        high.append(last if more is None else step("Sub", last, more))
    return [*low, *high]


def _encoded(
    step: Step,
    boxes: str,
    priors: Sequence[tuple[str, str]],
    variances: Sequence[str] | None,
    more: str | None,
) -> list[str]:
    # The centers of targets, unlike those of priors, leave out what is added to extents.
    centers = [center for center, _ in _extents(step, boxes, None)]
    extents = [extent for _, extent in _extents(step, boxes, more)]
    shifts, growths = [], []
    for center, extent, (origin, unit) in zip(centers, extents, priors):
        shifts.append(step("Div", step("Sub", center, origin), unit))
        growths.append(step("Log", step("Abs", step("Div", extent, unit))))
    columns = [*shifts, *growths]
    if variances is not None:
        columns = [step("Div", *pair) for pair in zip(columns, variances)]
    return columns


@_rows("prior_box")
def _prior_box(step: Step) -> None:
    """Store the boxes of each place of a map, as shares of the image: [H, W, boxes, 4]."""
    rows, columns = step.dims(step.op.input("Input"))[2:]
    height, width = step.dims(step.op.input("Image"))[2:]
    if min(rows, columns, height, width) < 1:
        raise step.refused("its map or its image has no fixed size")
    attr = step.op.attr
    steps = attr("step_w", 0.0), attr("step_h", 0.0)
    if 0 in steps:
        steps = width / columns, height / rows
    offset = attr("offset", 0.5)
    centers = np.meshgrid(
        *(
            (np.arange(count, dtype=np.float32) + np.float32(offset)) * np.float32(size)
            for count, size in zip((columns, rows), steps)
        )
    )
    halves = np.array(_half_sizes(step), np.float32)  # [boxes, 2]
    center = np.stack(centers, -1)[:, :, None]
    boxes = np.concatenate([center - halves, center + halves], -1)
    boxes = (boxes / np.array([width, height] * 2, np.float32)).astype(np.float32)
    if attr("clip", False):
        boxes = boxes.clip(0, 1)
    step.give("Boxes", step.constant(boxes))
    variances = np.array(step.op.floats("variances"), np.float32)
    step.give("Variances", step.constant(np.broadcast_to(variances, boxes.shape).copy()))


def _half_sizes(step: Step) -> list[tuple[float, float]]:
    attr = step.op.attr
    least, most = (step.op.floats(name) for name in ("min_sizes", "max_sizes"))
    ratios = [1.0]
    for ratio in step.op.floats("aspect_ratios"):
        if all(abs(ratio - known) >= _SAME for known in ratios):
            ratios += [ratio, 1 / ratio] if attr("flip", False) else [ratio]
    found = []
    for at, size in enumerate(least):
        of_ratios = [(size * math.sqrt(one) / 2, size / math.sqrt(one) / 2) for one in ratios]
        squares = [(math.sqrt(size * most[at]) / 2,) * 2] if most else []
        if attr("min_max_aspect_ratios_order", False):
            found += [of_ratios[0], *squares, *of_ratios[1:]]
        else:
            found += [*of_ratios, *squares]
    return found


_SAME = 1e-6  # ratios that differ by less are one


def _images(step: Step, boxes: str) -> str:
    """Return in which image each box is: int64."""
    if not step.op.inputs("RoisNum"):
        raise step.refused("its boxes have no RoisNum")
    counts = step.as_int64(step.input("RoisNum"))
    ends = step("CumSum", counts, step.constant(np.array(0, np.int64)))
    places = step.unsqueeze(_range(step, step.size(boxes, 0)), [1])
    is_behind = step("Not", step("Less", places, step.unsqueeze(ends, [0])))
    return step.reduce("Sum", step.as_int64(is_behind), [1])


@_rows("roi_align")
def _roi_align(step: Step) -> None:
    attr, boxes = step.op.attr, step.input("ROIs")
    mode = "half_pixel" if attr("aligned", False) else "output_half_pixel"
    found = step(
        "RoiAlign",
        *(step.input("X"), boxes, _images(step, boxes)),
        output_height=attr("pooled_height", 1),
        output_width=attr("pooled_width", 1),
        spatial_scale=float(attr("spatial_scale", 1.0)),
        sampling_ratio=max(0, attr("sampling_ratio", -1)),
        coordinate_transformation_mode=mode,
    )
    step.give("Out", found)


@_rows("roi_pool")
def _roi_pool(step: Step) -> None:
    attr, boxes = step.op.attr, step.input("ROIs")
    images = step.cast(_images(step, boxes), step.data_type(step.op.input("ROIs")))
    found = step(
        "MaxRoiPool",
        *(step.input("X"), step.concat([step.unsqueeze(images, [1]), boxes], 1)),
        pooled_shape=[attr("pooled_height", 1), attr("pooled_width", 1)],
        spatial_scale=float(attr("spatial_scale", 1.0)),
    )
    step.give("Out", found)


@_rows("nms")
def _nms(step: Step) -> None:
    """Keep boxes [M, 4] that no earlier one overlaps much."""
    boxes = step.input("Boxes")
    length = step.size(boxes, 0)
    order = step("Neg", step.cast(_range(step, length), step.data_type(step.op.input("Boxes"))))
    limit = step.constant(np.array([step.op.attr("iou_threshold", 1.0)], np.float32))
    scores = step.unsqueeze(order, [0, 1])
    kept = step("NonMaxSuppression", step.unsqueeze(boxes, [0]), scores, length, limit)
    step.give("KeepBoxesIdxs", step.squeeze(step.slice(kept, [2], [3], [1]), [1]))


@_rows("multiclass_nms3")
def _multiclass_nms(step: Step) -> None:
    """Keep boxes [N, M, 4] by scores [N, classes, M]: by images, classes and scores."""
    attr, boxes, scores = step.op.attr, step.input("BBoxes"), step.input("Scores")
    for is_so, what in (
        (bool(step.op.inputs("RoisNum")), "it has RoisNum"),
        (not attr("normalized", True), "its boxes are not normalized"),
        (attr("nms_eta", 1.0) < 1, "its threshold adapts"),
        (step.dims(step.op.input("BBoxes"))[-1] != 4, "its boxes have no four numbers"),
    ):
        if is_so:
            raise step.refused(what)
    length = step.size(boxes, 1)
    candidates = scores
    if attr("nms_top_k", -1) > -1:
        candidates = _only_best(step, scores, attr("nms_top_k", -1), 2)
    limits = [
        step.constant(np.array([attr(name, 0.0)], np.float32))
        for name in ("nms_threshold", "score_threshold")
    ]
    kept = step("NonMaxSuppression", boxes, candidates, length, *limits)  # [boxes, 3]
    background = attr("background_label", -1)
    if background > -1:
        label = step.squeeze(step.slice(kept, [1], [2], [1]), [1])
        is_other = step("Not", step("Equal", label, step.constant(np.array(background, np.int64))))
        kept = step("Compress", kept, is_other, axis=0)
    if attr("keep_top_k", -1) > -1:
        kept = _best_of_images(step, scores, kept, attr("keep_top_k", -1))
    columns = [step.slice(kept, [at], [at + 1], [1]) for at in range(3)]
    image, label, place = columns
    data_type = step.data_type(step.op.input("Scores"))
    parts = (
        step.cast(label, data_type),
        step.unsqueeze(step("GatherND", scores, kept), [1]),
        step("GatherND", boxes, step.concat([image, place], 1)),
    )
    step.give("Out", step.concat(parts, 1))
    step.give_as_declared("Index", step("Add", step("Mul", image, length), place))
    images = _range(step, step.size(boxes, 0))
    is_its = step("Equal", step.unsqueeze(images, [0]), image)
    step.give_as_declared("NmsRoisNum", step.reduce("Sum", step.as_int64(is_its), [0]))


def _only_best(step: Step, scores: str, count: int, axis: int) -> str:
    """Return scores of which all but the best along an axis are below any threshold."""
    most = step("Min", step.ints([count]), step.size(scores, axis))
    best = step.many("TopK", [scores, most], 2, axis=axis)
    nothing = step("Expand", step.number(_NEVER, step.op.input("Scores")), step.shape(scores))
    return step("ScatterElements", nothing, best[1], best[0], axis=axis)


def _best_of_images(step: Step, scores: str, kept: str, count: int) -> str:
    """Return the rows of ``kept`` that have the best scores of their image."""
    never = step.number(_NEVER, step.op.input("Scores"))
    nothing = step("Expand", never, step.shape(scores))
    of_kept = step("ScatterND", nothing, kept, step("GatherND", scores, kept))
    flat = step("Reshape", of_kept, step.ints([0, -1]))
    best = step("Reshape", _only_best(step, flat, count, 1), step.shape(scores))
    is_best = step("Greater", step("GatherND", best, kept), never)
    return step("Compress", kept, is_best, axis=0)
