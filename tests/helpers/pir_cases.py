"""One small network for each op that pyquant reads from PIR: a function of tensors and its inputs.

The key is the op's name in PIR, then a space and what is special about the case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F  # noqa: N812

# Ops that older exporters emitted, but no function of the public API does.
_C = paddle._C_ops

Array = np.ndarray[Any, Any]
Case = tuple[Callable[..., Any], list[Array]]


def real(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> Array:
    return np.abs(real(*shape)) + np.float32(0.1)


def unit(*shape: int) -> Array:
    return np.random.default_rng(1).random(shape).astype(np.float32) * np.float32(0.8) + np.float32(
        0.1
    )


def integers(high: int, *shape: int, dtype: str = "int64") -> Array:
    return np.random.default_rng(2).integers(0, high, shape).astype(dtype)


def truths(*shape: int) -> Array:
    return integers(2, *shape).astype(bool)


_WEIGHTS: dict[tuple[Any, ...], Any] = {}


def weight(*shape: int, seed: int = 3) -> Any:
    """Return a parameter. It is made on the first call, which must not be inside an export."""
    key = (seed, *shape)
    if key not in _WEIGHTS:
        assign = paddle.nn.initializer.Assign(real(*shape, seed=seed))
        _WEIGHTS[key] = paddle.create_parameter(list(shape), "float32", default_initializer=assign)
    return _WEIGHTS[key]


def weights_of(function: Callable[..., Any], inputs: list[Array]) -> list[Any]:
    """Return the parameters that ``function`` uses."""
    _WEIGHTS.clear()
    function(*(paddle.to_tensor(array) for array in inputs))
    return list(_WEIGHTS.values())


X = [real(2, 3, 4)]
IMAGE = [real(2, 4, 8, 8)]
VOLUME = [real(2, 2, 4, 6, 6)]
SEQUENCE = [real(2, 4, 9)]
MATRIX = [real(2, 4, 4)]
PAIR = [real(2, 3, 4), real(2, 3, 4, seed=5)]
ROW = [real(2, 3, 4), real(4, seed=5)]
WHOLE = [integers(9, 2, 3, 4), integers(9, 2, 3, 4) + 1]
BOTH_TRUTHS = [truths(2, 3), ~truths(2, 3)]


def assigned(x: Any, place: Any, value: Any) -> Any:
    """Return a copy of ``x`` with another value in ``place``."""
    copied = x + 0
    copied[place] = value
    return copied


def _unary(names: str, inputs: list[Array], module: Any = paddle) -> dict[str, Case]:
    return {name: (getattr(module, name), inputs) for name in names.split()}


def _reduce(name: str) -> dict[str, Case]:
    function = getattr(paddle, name)
    return {
        name: (lambda x: function(x, axis=[1, 2]), X),
        f"{name} of all": (function, X),
        f"{name} keepdim": (lambda x: function(x, axis=-1, keepdim=True), X),
    }


def _interpolate(mode: str, inputs: list[Array], size: list[int]) -> dict[str, Case]:
    scale = [2.0] * len(size)
    name = f"{mode}_interp"
    return {
        name: (
            lambda x: F.interpolate(x, size=size, mode=mode, data_format=LAYOUT[len(size)]),
            inputs,
        ),
        f"{name} scale": (
            lambda x: F.interpolate(
                x, scale_factor=scale, mode=mode, data_format=LAYOUT[len(size)]
            ),
            inputs,
        ),
    }


LAYOUT = {1: "NCW", 2: "NCHW", 3: "NCDHW"}

CASES: dict[str, Case] = {
    **_unary(
        "abs asin acos atan atanh ceil cos cosh digamma erf erfinv exp expm1 floor", [unit(2, 3)]
    ),
    **_unary(
        "lgamma log log10 log1p log2 logit reciprocal round rsqrt sign sin sinh sqrt", [unit(2, 3)]
    ),
    **_unary("acosh", [positive(2, 3) + np.float32(1)]),
    **_unary("asinh square stanh tan tanh trunc isfinite isinf isnan", X),
    **_unary("celu elu gelu leaky_relu log_softmax mish relu relu6 selu", X, F),
    **_unary("hardshrink hardsigmoid hardswish hardtanh sigmoid silu softmax", X, F),
    **_unary("softplus softshrink softsign swish thresholded_relu", X, F),
    "logsigmoid": (F.log_sigmoid, X),
    "tanh_shrink": (F.tanhshrink, X),
    "prelu": (lambda x: F.prelu(x, weight(4)), IMAGE),
    "maxout": (lambda x: F.maxout(x, groups=2), IMAGE),
    "gelu tanh": (lambda x: F.gelu(x, approximate=True), X),
    "softmax of another axis": (lambda x: F.softmax(x, axis=1), X),
    "pow": (lambda x: paddle.pow(x, 2.5), [positive(2, 3)]),
    "clip": (lambda x: paddle.clip(x, -0.5, 0.25), X),
    "clip by a tensor": (lambda x, low: paddle.clip(x, low, 2.0), [real(2, 3), real(1)]),
    "clip to infinity": (lambda x: paddle.clip(x, min=0.1), X),
    "scale": (lambda x: x * 0.3 + 1.7, X),
    "dropout": (lambda x: F.dropout(x, 0.3, training=False), X),
    "dropout downgraded": (
        lambda x: F.dropout(x, 0.3, training=False, mode="downscale_in_infer"),
        X,
    ),
    "rrelu": (lambda x: F.rrelu(x, training=False), X),
    **_unary("i0 i0e i1 i1e gammaln angle conj", [unit(2, 3)]),
    "polygamma": (lambda x: paddle.polygamma(x, 1), [unit(2, 3)]),
    # Two tensors.
    **_unary("copysign nextafter", PAIR),
    "bitwise_left_shift": (paddle.bitwise_left_shift, WHOLE),
    "bitwise_right_shift": (paddle.bitwise_right_shift, WHOLE),
    "swiglu": (lambda x: _C.swiglu(x, None), X),
    **_unary("add subtract multiply divide maximum minimum fmax fmin atan2 heaviside", PAIR),
    **_unary("equal not_equal less_than less_equal greater_than greater_equal", WHOLE),
    **_unary("floor_divide remainder", WHOLE),
    **_unary("logical_and logical_or logical_xor", BOTH_TRUTHS),
    **_unary("bitwise_and bitwise_or bitwise_xor", WHOLE),
    **_unary("bitwise_not", WHOLE[:1]),
    **_unary("logical_not", BOTH_TRUTHS[:1]),
    "add a row": (paddle.add, ROW),
    "multiply by a column": (lambda x, y: x * y.unsqueeze(-1), [real(2, 3, 4), real(3, seed=1)]),
    "elementwise_pow": (paddle.pow, [positive(2, 3), real(2, 3)]),
    "dot": (paddle.dot, [real(2, 5), real(2, 5, seed=1)]),
    "kron": (paddle.kron, [real(2, 3), real(2, 2)]),
    "equal_all": (paddle.equal_all, WHOLE),
    "dist": (lambda x, y: paddle.dist(x, y, 2), PAIR),
    "isclose": (paddle.isclose, PAIR),
    "allclose": (paddle.allclose, PAIR),
    "lerp": (lambda x, y: paddle.lerp(x, y, 0.3), PAIR),
    "cross": (lambda x, y: paddle.cross(x, y, axis=1), [real(2, 3), real(2, 3, seed=1)]),
    # Reductions.
    **_reduce("sum"),
    **_reduce("mean"),
    **_reduce("max"),
    **_reduce("min"),
    **_reduce("amax"),
    **_reduce("amin"),
    **_reduce("prod"),
    **_reduce("logsumexp"),
    "all": (lambda x: paddle.all(x, axis=1), [truths(2, 3)]),
    "any": (paddle.any, [truths(2, 3)]),
    "sum of integers": (lambda x: paddle.sum(x, axis=1), [integers(9, 2, 3, dtype="int32")]),
    "p_norm": (lambda x: paddle.linalg.norm(x, p=3, axis=1), X),
    "frobenius_norm": (lambda x: paddle.linalg.norm(x, p="fro", axis=[1, 2]), X),
    "p_norm of two": (lambda x: F.normalize(x, axis=1), X),
    "cumsum": (lambda x: paddle.cumsum(x, axis=1), X),
    "cumsum flat": (paddle.cumsum, X),
    "cumprod": (lambda x: paddle.cumprod(x, dim=1), X),
    "logcumsumexp": (lambda x: paddle.logcumsumexp(x, axis=1), X),
    "trace": (lambda x: paddle.trace(x, axis1=1, axis2=2), MATRIX),
    "det": (paddle.linalg.det, MATRIX),
    "inverse": (paddle.inverse, MATRIX),
    "cholesky": (
        lambda x: paddle.linalg.cholesky(x @ x.transpose([0, 2, 1]) + paddle.eye(4)),
        MATRIX,
    ),
    "matrix_power": (lambda x: paddle.linalg.matrix_power(x, 3), MATRIX),
    "triangular_solve": (
        lambda x, y: paddle.linalg.triangular_solve(x + 3 * paddle.eye(4), y),
        [real(4, 4), real(4, 2)],
    ),
    "eigh": (lambda x: paddle.linalg.eigh(x + x.transpose([0, 2, 1])), MATRIX),
    "lu": (lambda x: paddle.linalg.lu(x)[0], MATRIX),
    "qr": (paddle.linalg.qr, MATRIX),
    "slogdet": (paddle.linalg.slogdet, MATRIX),
    "solve": (
        lambda x, y: paddle.linalg.solve(x + 3 * paddle.eye(4), y),
        [real(2, 4, 4), real(2, 4, 2)],
    ),
    "svd": (paddle.linalg.svd, MATRIX),
    "median": (lambda x: paddle.median(x, axis=1), X),
    "nanmedian": (lambda x: paddle.nanmedian(x, axis=1), X),
    "median of an odd number": (lambda x: paddle.median(x, axis=0, keepdim=True), [real(5, 3)]),
    "cummax of integers": (lambda x: paddle.cummax(x, axis=1), [integers(3, 2, 6)]),
    "cummax": (lambda x: paddle.cummax(x, axis=1), X),
    "cummin": (lambda x: paddle.cummin(x, axis=1), X),
    "fft_r2c": (lambda x: paddle.abs(paddle.fft.rfft(x)), X),
    "frame of axis 0": (lambda x: paddle.signal.frame(x, 4, 2, axis=0), [real(12, 2)]),
    "frame": (lambda x: paddle.signal.frame(x, 4, 2), [real(2, 12)]),
    # Convolution and pooling.
    "conv2d": (lambda x: F.conv2d(x, weight(6, 2, 3, 3), stride=2, padding=1, groups=2), IMAGE),
    "conv2d with a bias": (lambda x: F.conv2d(x, weight(6, 4, 3, 3), weight(6)), IMAGE),
    "conv2d same": (lambda x: F.conv2d(x, weight(6, 4, 3, 3), padding="SAME", dilation=2), IMAGE),
    "conv2d of one dimension": (lambda x: F.conv1d(x, weight(6, 4, 3), weight(6)), SEQUENCE),
    "depthwise_conv2d": (lambda x: F.conv2d(x, weight(4, 1, 3, 3), padding=1, groups=4), IMAGE),
    "conv3d": (lambda x: F.conv3d(x, weight(3, 2, 2, 3, 3), weight(3), padding=1), VOLUME),
    "conv2d_transpose": (lambda x: F.conv2d_transpose(x, weight(4, 3, 2, 2), stride=2), IMAGE),
    "conv2d_transpose to a size": (
        lambda x: F.conv2d_transpose(x, weight(4, 3, 3, 3), stride=2, output_size=[18, 18]),
        IMAGE,
    ),
    "conv2d_transpose of one dimension": (
        lambda x: F.conv1d_transpose(x, weight(4, 3, 2), stride=2),
        SEQUENCE,
    ),
    "depthwise_conv2d_transpose": (
        lambda x: F.conv2d_transpose(x, weight(4, 1, 2, 2), stride=2, groups=4),
        IMAGE,
    ),
    "conv3d_transpose": (lambda x: F.conv3d_transpose(x, weight(2, 3, 2, 2, 2), stride=2), VOLUME),
    "pool2d max": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), IMAGE),
    "pool2d average": (lambda x: F.avg_pool2d(x, 3, 2, 1), IMAGE),
    "pool2d average inclusive": (lambda x: F.avg_pool2d(x, 3, 2, 1, exclusive=False), IMAGE),
    "pool2d adaptive": (lambda x: F.adaptive_avg_pool2d(x, [3, 3]), IMAGE),
    "max_pool2d_with_index adaptive": (lambda x: F.adaptive_max_pool2d(x, 1), IMAGE),
    "pool2d of one dimension": (lambda x: F.max_pool1d(x, 2), SEQUENCE),
    "pool2d average of one dimension": (lambda x: F.avg_pool1d(x, 2), SEQUENCE),
    "pool3d": (lambda x: F.avg_pool3d(x, 2), VOLUME),
    "pool3d max": (lambda x: F.max_pool3d(x, 2), VOLUME),
    "max_pool2d_with_index": (lambda x: F.max_pool2d(x, 2, return_mask=True), IMAGE),
    "max_pool3d_with_index": (lambda x: F.max_pool3d(x, 2, return_mask=True), VOLUME),
    "unpool": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_mask=True), 2), IMAGE),
    "lp_pool2d": (lambda x: F.lp_pool2d(x, 2.0, 2), IMAGE),
    "fractional_max_pool2d": (lambda x: F.fractional_max_pool2d(x, 3, random_u=0.4), IMAGE),
    "unfold": (lambda x: F.unfold(x, 3, paddings=1), IMAGE),
    "fold": (lambda x: F.fold(x, [4, 4], 2, strides=2), [real(2, 12, 4)]),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), IMAGE),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), IMAGE),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), IMAGE),
    "temporal_shift": (lambda x: F.temporal_shift(x, 2), IMAGE),
    **_interpolate("bilinear", IMAGE, [5, 11]),
    **_interpolate("nearest", IMAGE, [5, 11]),
    **_interpolate("bicubic", IMAGE, [5, 11]),
    **_interpolate("linear", SEQUENCE, [13]),
    **_interpolate("trilinear", VOLUME, [5, 7, 3]),
    "bilinear_interp to a computed size": (
        lambda x, y: F.interpolate(x, size=paddle.shape(y)[2:], mode="bilinear"),
        [real(2, 4, 8, 8), real(2, 1, 5, 7)],
    ),
    "grid_sample": (F.grid_sample, [real(2, 4, 8, 8), unit(2, 3, 3, 2)]),
    "affine_grid": (lambda x: F.affine_grid(x, [2, 3, 4, 5]), [real(2, 2, 3)]),
    "pad": (lambda x: F.pad(x, [0, 0, 1, 2, 0, 1], value=0.5), X),
    "pad3d": (lambda x: F.pad(x, [1, 2, 0, 1], mode="reflect"), IMAGE),
    "pad3d constant": (lambda x: F.pad(x, [1, 2, 0, 1], value=2.0), IMAGE),
    "roi_pool": (
        lambda x, boxes: paddle.vision.ops.roi_pool(
            x, boxes * 8, paddle.full([1], 3, "int32"), output_size=2
        ),
        [real(1, 4, 8, 8), np.sort(unit(3, 4), axis=1)],
    ),
    "psroi_pool": (
        lambda x, boxes: paddle.vision.ops.psroi_pool(
            x, boxes * 8, paddle.full([1], 3, "int32"), output_size=2
        ),
        [real(1, 8, 8, 8), np.sort(unit(3, 4), axis=1)],
    ),
    "roi_align": (
        lambda x, boxes: paddle.vision.ops.roi_align(
            x, boxes * 8, paddle.full([1], 3, "int32"), output_size=2
        ),
        [real(1, 4, 8, 8), np.sort(unit(3, 4), axis=1)],
    ),
    "roi_align of two images": (
        lambda x, boxes: paddle.vision.ops.roi_align(
            x, boxes * 8, paddle.to_tensor([1, 2], "int32"), 2, 0.5, 3, aligned=False
        ),
        [real(2, 4, 8, 8), np.sort(unit(3, 4), axis=1)],
    ),
    "deformable_conv": (
        lambda x, offset, mask: paddle.vision.ops.deform_conv2d(
            x, offset, weight(3, 4, 3, 3), mask=mask
        ),
        [real(2, 4, 8, 8), unit(2, 18, 6, 6), unit(2, 9, 6, 6)],
    ),
    "nms": (
        lambda boxes: paddle.vision.ops.nms(boxes, 0.3),
        [np.sort(unit(6, 4), axis=1)],
    ),
    "yolo_box": (
        lambda x, size: paddle.vision.ops.yolo_box(x, size, [10, 13, 16, 30], 2, 0.01, 32),
        [real(2, 14, 4, 4), integers(64, 2, 2, dtype="int32") + np.int32(32)],
    ),
    "yolo_box aware of overlaps": (
        lambda x, size: paddle.vision.ops.yolo_box(
            x, size, [10, 13, 16, 30], 2, 0.4, 32, False, None, 1.2, True, 0.3
        ),
        [real(2, 16, 4, 6), integers(64, 2, 2, dtype="int32") + np.int32(32)],
    ),
    "prior_box": (
        lambda x, image: paddle.vision.ops.prior_box(x, image, min_sizes=[4.0]),
        [real(1, 4, 4, 4), real(1, 3, 16, 16)],
    ),
    "prior_box of ratios": (
        lambda x, image: paddle.vision.ops.prior_box(
            x, image, [4.0, 6.0], [8.0, 9.0], [2.0, 1.5], flip=True, clip=True
        ),
        [real(1, 4, 4, 4), real(1, 3, 16, 20)],
    ),
    "box_coder": (
        lambda prior, target: paddle.vision.ops.box_coder(
            prior, [0.1, 0.1, 0.2, 0.2], target, "decode_center_size"
        ),
        [np.sort(unit(5, 4), axis=1), unit(3, 5, 4)],
    ),
    "box_coder encoding": (
        lambda prior, target: paddle.vision.ops.box_coder(
            prior, prior * 2, target, "encode_center_size", False
        ),
        [np.sort(unit(5, 4), axis=1), np.sort(unit(3, 4), axis=1)],
    ),
    # Normalization.
    "batch_norm_": (
        lambda x: F.batch_norm(x, weight(4), weight(4).abs(), weight(4), weight(4, seed=1)),
        IMAGE,
    ),
    "layer_norm": (lambda x: F.layer_norm(x, [4], weight(4), weight(4, seed=1)), X),
    "layer_norm plain": (lambda x: F.layer_norm(x, [3, 4]), X),
    "group_norm": (lambda x: F.group_norm(x, 2, weight=weight(4), bias=weight(4, seed=1)), IMAGE),
    "instance_norm": (lambda x: F.instance_norm(x, weight=weight(4), bias=weight(4)), IMAGE),
    "batch_norm_ of two dimensions": (
        lambda x: F.batch_norm(x, weight(4), weight(4).abs(), weight(4), weight(4, seed=1)),
        [real(3, 4)],
    ),
    # Matrix products.
    "matmul": (paddle.matmul, [real(2, 3, 4), real(4, 5)]),
    "matmul transposed": (
        lambda x, y: paddle.matmul(x, y, transpose_x=True, transpose_y=True),
        [real(2, 4, 3), real(2, 5, 4)],
    ),
    "bmm": (paddle.bmm, [real(2, 3, 4), real(2, 4, 5)]),
    "mv": (paddle.mv, [real(3, 4), real(4)]),
    "addmm": (
        lambda c, a, b: paddle.addmm(c, a, b, beta=0.5, alpha=2.0),
        [real(3, 5), real(3, 4), real(4, 5)],
    ),
    "multi_dot": (
        lambda a, b, c: paddle.linalg.multi_dot([a, b, c]),
        [real(3, 4), real(4, 5), real(5, 2)],
    ),
    "einsum": (lambda x, y: paddle.einsum("bij,bjk->bik", x, y), [real(2, 3, 4), real(2, 4, 5)]),
    "baddbmm": (
        lambda c, a, b: paddle.baddbmm(c, a, b, beta=0.5, alpha=2.0),
        [real(2, 3, 5), real(2, 3, 4), real(2, 4, 5)],
    ),
    "bilinear": (lambda x, y: F.bilinear(x, y, weight(2, 3, 4)), [real(2, 3), real(2, 4)]),
    "embedding": (lambda ids: F.embedding(ids, weight(9, 4)), [integers(9, 2, 5)]),
    # Shape.
    "reshape": (lambda x: x.reshape([0, -1]), X),
    "reshape to a computed shape": (lambda x: x.reshape([paddle.shape(x)[0], 2, -1]), X),
    "reshape by a tensor": (
        lambda x, shape: x.reshape(shape),
        [real(2, 3, 4), np.array([6, 4], np.int32)],
    ),
    "transpose": (lambda x: x.transpose([0, 2, 1]), X),
    "squeeze": (lambda x: x.squeeze(1), [real(2, 1, 4)]),
    "unsqueeze": (lambda x: x.unsqueeze([1, 3]), X),
    "flatten": (lambda x: x.flatten(1, 2), X),
    "shape64": (lambda x: paddle.shape(x) * 2, X),
    "numel": (paddle.numel, X),
    "concat": (lambda x, y: paddle.concat([x, y, x], axis=1), PAIR),
    "stack": (lambda x, y: paddle.stack([x, y], axis=1), PAIR),
    "split": (lambda x: paddle.split(x, [1, -1], axis=1), X),
    "split_with_num": (lambda x: paddle.split(x, 2, axis=-1), X),
    "split in use": (lambda x: [2 * part for part in paddle.split(x, [1, 3], axis=2)][1], X),
    "unbind": (lambda x: paddle.unbind(x, axis=1), X),
    "unstack": (lambda x: paddle.unstack(x, axis=1), X),
    "slice": (lambda x: x[:, 1:, -1], X),
    "slice to a computed end": (
        lambda x, y: x[:, : paddle.shape(y)[0]] + y.sum(),
        [real(4, 3, 4), real(2, 3)],
    ),
    "slice from a tensor": (
        lambda x, n: paddle.slice(x, [1], n, n + 2),
        [real(2, 4), np.array([1], np.int32)],
    ),
    "strided_slice": (lambda x: x[:, ::2], X),
    "strided_slice backwards": (lambda x: x[:, ::-1], X),
    "crop": (lambda x: paddle.crop(x, [2, 2, 2], [0, 1, 1]), X),
    "expand": (lambda x: x.expand([-1, 3, 4]), [real(2, 1, 4)]),
    "expand to a computed shape": (
        lambda x, y: x.expand([paddle.shape(y)[0], 3, 4]) + y.sum(),
        [real(1, 3, 4), real(5, 2)],
    ),
    "expand_as": (lambda x, y: x.expand_as(y), [real(2, 1, 4), real(2, 3, 4)]),
    "tile": (lambda x: x.tile([1, 2, 3]), X),
    "tile by a tensor": (lambda x, n: x.tile(n), [real(2, 3), np.array([2, 1], np.int32)]),
    "broadcast_tensors": (lambda x, y: paddle.broadcast_tensors([x, y]), ROW),
    "meshgrid": (lambda x, y: paddle.meshgrid(x, y), [real(3), real(4)]),
    "tril": (lambda x: paddle.tril(x, 1), X),
    "triu": (lambda x: paddle.triu(x, -1), X),
    "diag": (paddle.diag, [real(4)]),
    "diagonal": (lambda x: paddle.diagonal(x, axis1=1, axis2=2), MATRIX),
    "diag_embed": (F.diag_embed if hasattr(F, "diag_embed") else paddle.diag_embed, X),
    "flip": (lambda x: x.flip([1]), X),
    "roll": (lambda x: x.roll([1, 2], [1, 2]), X),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, axis=1), X),
    "add_n": (lambda x, y: paddle.add_n([x, y]), PAIR),
    "multiplex": (
        lambda x, y, index: paddle.multiplex([x, y], index),
        [real(3, 4), real(3, 4, seed=1), integers(2, 3, 1, dtype="int32")],
    ),
    "renorm": (lambda x: paddle.renorm(x, 2.0, 1, 1.5), X),
    # Looking up, searching, sorting.
    "gather": (lambda x, i: paddle.gather(x, i, axis=1), [real(2, 5, 4), integers(5, 3)]),
    "gather_nd": (paddle.gather_nd, [real(2, 5, 4), integers(2, 3, 2)]),
    "index_select": (
        lambda x, i: paddle.index_select(x, i, axis=1),
        [real(2, 5, 4), integers(5, 3)],
    ),
    "index_sample": (paddle.index_sample, [real(2, 5), integers(5, 2, 3)]),
    "take_along_axis": (
        lambda x, i: paddle.take_along_axis(x, i, axis=1, broadcast=False),
        [real(2, 5), integers(5, 2, 3)],
    ),
    "put_along_axis": (
        lambda x, i, v: paddle.put_along_axis(x, i, v, axis=1, broadcast=False),
        [real(2, 5), np.array([[0, 2, 1], [4, 3, 0]]), real(2, 3)],
    ),
    "scatter": (paddle.scatter, [real(5, 4), np.array([1, 3, 0]), real(3, 4)]),
    "scatter_nd_add": (paddle.scatter_nd_add, [real(5, 4), integers(5, 3, 1), real(3, 4)]),
    "index_add": (
        lambda x, y: paddle.index_add(x, paddle.to_tensor([0, 2]), 1, y),
        [real(2, 3, 4), real(2, 2, 4)],
    ),
    "index_put": (
        lambda x, i, v: paddle.index_put(x, (i,), v),
        [real(5, 4), np.array([1, 3]), real(2, 4)],
    ),
    "masked_fill": (lambda x, mask: paddle.masked_fill(x, mask, 0.5), [real(2, 3), truths(2, 3)]),
    "set_value": (lambda x: assigned(x, (slice(None), 1), 0.5), X),
    "set_value of a range": (
        lambda x: assigned(x, (0, slice(0, 2), slice(None, None, 2)), -1.0),
        X,
    ),
    "set_value_with_tensor": (
        lambda x, y: assigned(x, (slice(None), 1), y),
        [real(2, 3, 4), real(2, 4)],
    ),
    "unique": (lambda x: paddle.unique(x, True, True, True), [integers(5, 9)]),
    "unique of rows": (lambda x: paddle.unique(x, axis=0), [integers(2, 6, 2)]),
    "unique_consecutive": (
        lambda x: paddle.unique_consecutive(x, return_inverse=True, return_counts=True),
        [integers(2, 9)],
    ),
    "shard_index": (lambda x: paddle.shard_index(x, 20, 2, 0), [integers(20, 3, 1)]),
    "masked_select": (paddle.masked_select, [real(2, 3), truths(2, 3)]),
    "where": (paddle.where, [truths(2, 3), real(2, 3), real(2, 3, seed=1)]),
    "nonzero": (paddle.nonzero, [truths(2, 3)]),
    "argmax": (lambda x: paddle.argmax(x, axis=1), X),
    "argmax flat": (paddle.argmax, X),
    "argmin": (lambda x: paddle.argmin(x, axis=-1, keepdim=True, dtype="int32"), X),
    "argsort": (lambda x: paddle.argsort(x, axis=1, descending=True), X),
    "argsort values": (lambda x: paddle.sort(x, axis=1), X),
    "topk": (lambda x: paddle.topk(x, 2, axis=1), X),
    "topk of a computed number": (
        lambda x, k: paddle.topk(x, k, axis=1),
        [real(2, 5), np.array([3], np.int32)],
    ),
    "kthvalue": (lambda x: paddle.kthvalue(x, 2, axis=1), X),
    "mode": (lambda x: paddle.mode(x, axis=1), [real(2, 5)]),
    "searchsorted": (paddle.searchsorted, [np.sort(real(5)), real(2, 3)]),
    "one_hot": (lambda ids: F.one_hot(ids, 9), [integers(9, 2, 5)]),
    "bincount": (lambda ids: paddle.bincount(ids, minlength=9), [integers(5, 12)]),
    "histogram": (lambda x: paddle.histogram(x, bins=8, min=-2, max=2), X),
    # Making tensors.
    "cast": (lambda x: x.astype("int32"), [real(2, 3) * 9]),
    "cast to half": (lambda x: x.astype("float16").astype("float32"), X),
    "cast from a truth": (lambda x: x.astype("float32"), [truths(2, 3)]),
    "assign": (lambda x: paddle.assign(x) + 1, X),
    "full": (lambda x: x + paddle.full([4], 0.1), X),
    "full of integers": (lambda x: x + paddle.full([3], 2**40 + 1, "int64"), [integers(9, 2, 3)]),
    "full infinite": (
        lambda x: paddle.where(x > 0, x, paddle.full([1], float("-inf"))),
        X,
    ),
    "full_like": (lambda x: paddle.full_like(x, 0.7), X),
    "full_with_tensor": (lambda x: paddle.zeros([paddle.shape(x)[0], 3]) + x.sum(), X),
    "assign_value_": (lambda x: x * paddle.to_tensor([1.5, 2.5, 3.5, 1e-8]), X),
    "assign_value_ of integers": (lambda x: x + paddle.to_tensor([1, 2, 3]), [integers(9, 2, 3)]),
    "arange": (lambda x: x + paddle.arange(4), [integers(9, 2, 4)]),
    "arange to a computed end": (lambda x: paddle.arange(paddle.shape(x)[0]), X),
    "arange of reals": (lambda x: x + paddle.arange(0, 1, 0.25), X),
    "linspace": (lambda x: x + paddle.linspace(0, 1, 4), X),
    "logspace": (lambda x: x + paddle.logspace(0, 1, 4), X),
    "tril_indices": (lambda x: x + paddle.tril_indices(4, 4), [integers(9, 2, 10)]),
    "triu_indices": (lambda x: x + paddle.triu_indices(4, 4), [integers(9, 2, 10)]),
    "eye": (lambda x: x + paddle.eye(3, 4), X),
    "label_smooth": (lambda x: F.label_smooth(x, epsilon=0.2), X),
    "sequence_mask": (lambda x: F.sequence_mask(x, maxlen=7), [integers(7, 3)]),
    # Losses.
    "huber_loss": (lambda x, y: F.smooth_l1_loss(x, y), PAIR),
    "kldiv_loss": (lambda x, y: F.kl_div(F.log_softmax(x), F.softmax(y)), PAIR),
    "log_loss": (F.log_loss, [unit(4, 1), unit(4, 1)]),
    "bce_loss": (F.binary_cross_entropy, [unit(2, 3), unit(2, 3)]),
    "cross_entropy_with_softmax": (F.softmax_with_cross_entropy, [real(3, 5), integers(5, 3, 1)]),
    "sigmoid_cross_entropy_with_logits": (
        F.binary_cross_entropy_with_logits,
        [real(3, 5), unit(3, 5)],
    ),
    "cross_entropy_with_softmax of shares": (
        lambda x, y: F.softmax_with_cross_entropy(x, F.softmax(y), soft_label=True),
        PAIR,
    ),
    "nll_loss": (F.nll_loss, [real(3, 5), integers(5, 3)]),
    # Complex numbers.
    "as_complex": (lambda x: paddle.abs(paddle.as_complex(x)), [real(2, 3, 2)]),
    "as_real": (lambda x, y: paddle.as_real(paddle.complex(x, y)), PAIR),
    "complex": (lambda x, y: paddle.abs(paddle.complex(x, y)), PAIR),
    "real": (lambda x, y: paddle.real(paddle.complex(x, y)), PAIR),
    "imag": (lambda x, y: paddle.imag(paddle.complex(x, y)), PAIR),
    # Control of the import itself.
    "relu in place": (lambda x: F.relu_(x + 1) * 2, X),
    "affine_channel": (lambda x: _C.affine_channel(x, weight(4), weight(4), "NCHW"), IMAGE),
    "matmul_with_flatten": (
        lambda x, y: None if paddle.in_dynamic_mode() else _C.matmul_with_flatten(x, y, 1, 1),
        [real(2, 3, 4), real(12, 5)],
    ),
    "mean_all": (lambda x: _C.mean_all(x), X),
    "shape": (lambda x: _C.shape(x), X),
    "shuffle_channel": (lambda x: _C.shuffle_channel(x, 2), IMAGE),
    "full_batch_size_like": (
        lambda x: _C.full_batch_size_like(x, [-1, 3], paddle.float32, 2.5, 0, 0, paddle.CPUPlace()),
        X,
    ),
    "multiclass_nms3": (
        lambda boxes, scores: _C.multiclass_nms3(
            boxes, scores, None, 0.1, 10, 5, 0.3, True, 1.0, -1
        )[0],
        [np.sort(unit(1, 6, 4), axis=2), unit(1, 2, 6)],
    ),
    "multiclass_nms3 of two images": (
        lambda boxes, scores: _C.multiclass_nms3(boxes, scores, None, 0.1, 8, 5, 0.6, True, 1.0, 0),
        [np.sort(unit(2, 20, 4), axis=2), unit(2, 3, 20)],
    ),
    "is_empty": (paddle.is_empty, X),
    "viterbi_decode": (
        lambda x, t, n: paddle.text.viterbi_decode(x, t, n, False),
        [real(2, 5, 4), real(4, 4), np.array([5, 4])],
    ),
}

FIXED_SHAPES = {"matrix_power", "fold", "addmm", "multi_dot", "matmul_with_flatten"}
"""Networks that Paddle itself cannot export with a dynamic batch."""


class Embedded(paddle.nn.Layer):
    """Looks ids up, then runs a network over the rows."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.embedding = paddle.nn.Embedding(50, 16)
        self.network = network

    def forward(self, ids: Any) -> Any:
        outputs = self.network(self.embedding(ids))
        return outputs[0] if isinstance(outputs, tuple) else outputs


def _encoder() -> Any:
    layer = paddle.nn.TransformerEncoderLayer(16, 4, 32, activation="gelu")
    return Embedded(paddle.nn.TransformerEncoder(layer, 2))


def _vision(name: str) -> Callable[[], Any]:
    return lambda: getattr(paddle.vision.models, name)()


Network = tuple[Callable[[], Any], list[Any], list[list[int]]]

NETWORKS: dict[str, Network] = {
    "LeNet": (paddle.vision.models.LeNet, [None, 1, 28, 28], [[2, 1, 28, 28], [3, 1, 28, 28]]),
    **{
        name: (_vision(name), [None, 3, 224, 224], [[1, 3, 224, 224], [2, 3, 224, 224]])
        for name in ("alexnet", "googlenet", "vgg11")
    },
    **{
        name: (_vision(name), [None, 3, None, None], [[2, 3, 64, 64], [1, 3, 96, 80]])
        for name in [
            "densenet121",
            "mobilenet_v1",
            "mobilenet_v2",
            "mobilenet_v3_large",
            "mobilenet_v3_small",
            "resnet18",
            "resnet50",
            "resnext50_32x4d",
            "squeezenet1_1",
            "wide_resnet50_2",
        ]
    },
    "inception_v3": (_vision("inception_v3"), [None, 3, 128, 128], [[2, 3, 128, 128]]),
    "shufflenet_v2": (
        _vision("shufflenet_v2_x1_0"),
        [None, 3, 64, 64],
        [[2, 3, 64, 64], [1, 3, 64, 64]],
    ),
    "TransformerEncoder": (_encoder, [None, None], [[2, 7], [3, 12]]),
    "MultiHeadAttention": (
        lambda: paddle.nn.MultiHeadAttention(16, 4),
        [None, None, 16],
        [[2, 7, 16], [1, 9, 16]],
    ),
    "LSTM": (
        lambda: Embedded(paddle.nn.LSTM(16, 8, num_layers=2, direction="bidirect")),
        [None, None],
        [[2, 7], [3, 12]],
    ),
    "GRU": (lambda: Embedded(paddle.nn.GRU(16, 8, dropout=0.3)), [None, None], [[2, 7], [3, 12]]),
    "SimpleRNN": (lambda: Embedded(paddle.nn.SimpleRNN(16, 8)), [None, 5], [[2, 5], [3, 5]]),
}
"""Whole networks: how each is made, the shape it is exported with, and the shapes it is run on."""
