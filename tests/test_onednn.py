"""Programs of oneDNN's int8 ops: near float, true to their integers, and int8 where expected."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import paddle_run
import pytest
from onednn_log import executed
from onednn_runs import check_run, images, op_types, quantized
from processors import HAS_VNNI
from programs import CONV, POOLING, UNPADDED, Net, random

from pyquant import compare, load_model, quant_post_dynamic
from pyquant.program import proto
from pyquant.program.op import Op
from pyquant.program.quantizable import ACTIVATION_OP_TYPES, find_weighted_ops
from pyquant.program.targets.onednn.plan import plan_onednn

IMAGES = [4, 8, 12, 12]
TOKENS = [4, 6, 32]


def conv_act(act: str, attributes: dict[str, Any] | None = None) -> Callable[[], Net]:
    def build() -> Net:
        net = Net(IMAGES).conv(16).constant("elementwise_add", np.linspace(-1, 1, 16), 1)
        return net.then(act, {"X": net.last}, "Out", attributes or {}).conv(8, UNPADDED).end()

    return build


def residual(act: str | None, projection: bool) -> Net:
    """A block of two convolutions beside the identity or a third one, twice."""
    net = Net(IMAGES).conv(8).act("relu")
    for _ in range(2):
        block = net.last
        side = net.conv(8, UNPADDED).last if projection else block
        net.last = block
        net.conv(8).act("relu").conv(8)
        net.then("elementwise_add", {"X": net.last, "Y": side}, "Out", {"axis": -1})
        if act is not None:
            net.act(act)
    return net.conv(8).end()


def two_readers() -> Net:
    net = Net(IMAGES).conv(8).act("relu")
    shared = net.last
    net.conv(8).act("relu").fetch(net.last)
    net.last = shared
    return net.act("tanh").end()


def fetched_between() -> Net:
    net = Net(IMAGES).conv(8).act("relu")
    net.fetch(net.last)
    return net.conv(8).end()


def pooled() -> Net:
    net = Net(IMAGES).conv(16).act("relu")
    net.dims = [4, 16, 6, 6]
    return net.then("pool2d", {"X": net.last}, "Out", POOLING).conv(8)


def pooled_residual() -> Net:
    """The beginning of ResNet18: a maximum pooling that a convolution and an addition read."""
    net = pooled()
    net.block.ops.pop()
    net.last = shared = net.block.ops[-1].outputs[0].arguments[0]
    net.dims = [4, 16, 6, 6]
    net.conv(16).act("relu").conv(16)
    net.then("elementwise_add", {"X": net.last, "Y": shared}, "Out", {"axis": -1})
    return net.act("relu").conv(8)


def depthwise() -> Net:
    net = Net(IMAGES).conv(16, UNPADDED).act("relu6")
    return net.conv(16, {**CONV, "groups": 16}, "depthwise_conv2d").act("relu6").conv(8).end()


def joined(first: str, second: str, outputs: int) -> Net:
    """A concatenation of two branches with different ranges, one of them upsampled."""
    net = Net([4, 8, 6, 6])
    source, dims = net.last, net.dims
    net.conv(16).act(first).nearest(2)
    small = net.last
    net.last, net.dims = source, dims
    net.nearest(2).conv(8).then("scale", {"X": net.last}, "Out", {"scale": 0.2, "bias": 0.0})
    return net.act(second).concat(small, net.last).conv(outputs).end()


def nested() -> Net:
    """A concatenation of a concatenation."""
    net = Net(IMAGES)
    parts = []
    for outputs in (8, 4, 8):
        net.last, net.dims = "x", IMAGES
        parts.append(net.conv(outputs).act("relu").last)
    inner = net.concat(*parts[:2]).last
    return net.concat(inner, parts[2]).conv(8).end()


def read_apart() -> Net:
    """The part of a concatenation with the smallest range is read by itself, too."""
    net = Net(IMAGES).conv(8).act("relu")
    first = net.last
    return net.conv(8).act("relu").concat(first, net.last).conv(8).end()


def of_two_signs() -> Net:
    """The integers of a relu and of another op cannot be concatenated as they are."""
    net = Net(IMAGES).conv(8)
    signed = net.last
    net.last, net.dims = "x", IMAGES
    return net.conv(8).act("relu").concat(signed, net.last).conv(8).end()


def upsampled_read_in_float() -> Net:
    net = Net(IMAGES).act("tanh").nearest(2)
    net.fetch(net.act("exp").last)
    net.last = net.block.ops[-1].inputs[0].arguments[0]
    return net.conv(8).end()


CONVOLUTIONS: dict[str, tuple[Callable[[], Net], dict[str, int]]] = {
    "relu writes integers": (conv_act("relu"), {"quantize": 1, "fused_conv2d": 2}),
    "relu6": (conv_act("relu6", {"threshold": 6.0}), {"quantize": 1, "fused_conv2d": 2}),
    "tanh": (conv_act("tanh"), {"quantize": 1, "fused_conv2d": 2}),
    "sigmoid": (conv_act("sigmoid"), {"quantize": 1, "fused_conv2d": 2}),
    "abs": (conv_act("abs"), {"quantize": 1, "fused_conv2d": 2}),
    "clip": (conv_act("clip", {"min": -2.0, "max": 3.0}), {"quantize": 1, "fused_conv2d": 2}),
    "hard_sigmoid": (
        conv_act("hard_sigmoid", {"slope": 0.3, "offset": 0.4}),
        {"quantize": 1, "fused_conv2d": 2},
    ),
    "hard_swish has a zero point": (conv_act("hard_swish"), {"quantize": 2, "fused_conv2d": 2}),
    "swish": (conv_act("swish", {"beta": 1.5}), {"quantize": 2, "fused_conv2d": 2}),
    "silu": (conv_act("silu"), {"quantize": 2, "fused_conv2d": 2}),
    "mish": (conv_act("mish"), {"quantize": 2, "fused_conv2d": 2}),
    "gelu": (conv_act("gelu", {"approximate": False}), {"quantize": 2, "fused_conv2d": 2}),
    "gelu by tanh": (conv_act("gelu", {"approximate": True}), {"quantize": 2, "fused_conv2d": 2}),
    "leaky_relu": (conv_act("leaky_relu", {"alpha": 0.1}), {"quantize": 2, "fused_conv2d": 2}),
    "another activation": (conv_act("softsign"), {"quantize": 2, "fused_conv2d": 2, "softsign": 1}),
    "residual, relu": (lambda: residual("relu", False), {"quantize": 1, "fused_conv2d": 6}),
    "projection, relu": (lambda: residual("relu", True), {"quantize": 1, "fused_conv2d": 8}),
    "residual, linear": (lambda: residual(None, False), {"quantize": 4, "fused_conv2d": 6}),
    "an int8 and a float reader": (two_readers, {"quantize": 2, "fused_conv2d": 2, "tanh": 1}),
    "fetched": (fetched_between, {"quantize": 2, "fused_conv2d": 2}),
    "max pooling in int8": (
        lambda: pooled().end(),
        {"quantize": 1, "fused_conv2d": 2, "pool2d": 1},
    ),
    "residual of a pooling": (
        lambda: pooled_residual().end(),
        {"quantize": 1, "fused_conv2d": 4, "pool2d": 1},
    ),
    "depthwise": (depthwise, {"quantize": 1, "fused_conv2d": 3}),
    "concatenated integers": (nested, {"quantize": 1, "fused_conv2d": 4, "concat": 2}),
    "a part read apart": (read_apart, {"quantize": 4, "fused_conv2d": 3, "concat": 1}),
    "of two signs": (of_two_signs, {"quantize": 3, "fused_conv2d": 3, "concat": 1}),
    "upsampled for a float reader": (upsampled_read_in_float, {"quantize": 1, "fused_conv2d": 1}),
}


@pytest.mark.parametrize("round_type", ["round", "adaround"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str, round_type: str, tmp_path: Path) -> None:
    build, expected = CONVOLUTIONS[name]
    data = images()
    result = quantized(build(), tmp_path, data, round_type=round_type)
    counts = op_types(tmp_path)
    assert {op: counts[op] for op in expected} == expected
    assert not {"conv2d", "depthwise_conv2d", "dequantize"} & counts.keys()
    is_long = "residual" in name or "projection" in name
    check_run(tmp_path, data, 0.05 if is_long else usual_error(result))


def usual_error(result: Any) -> float:
    """Return the error of two ops in a row; weights have 7 bits where kernels may halve them."""
    return 0.04 if any(tensor.bits == 7 for tensor in result.quantized) else 0.03


@pytest.mark.skipif(not HAS_VNNI, reason="what is for VNNI alone saturates elsewhere")
@pytest.mark.parametrize("name", ["tanh", "another activation", "residual, linear"])
def test_weights_for_vnni_alone_have_all_bits(name: str, tmp_path: Path) -> None:
    build, data = CONVOLUTIONS[name][0], images()
    errors = {}
    for processors in ("any", "vnni"):
        result = quantized(build(), tmp_path / processors, data, processors=processors)
        bits = {tensor.bits for tensor in result.quantized}
        assert bits == {8} if processors == "vnni" else 7 in bits
        check_run(tmp_path / processors, data, 0.05 if "residual" in name else usual_error(result))
        (expected,) = paddle_run.run(tmp_path / processors / "float", {"x": data})
        (actual,) = paddle_run.run(tmp_path / processors / "int8", {"x": data}, "float")
        errors[processors] = paddle_run.relative_error(actual, expected)
    assert errors["vnni"] < errors["any"]


ACTIVATIONS = (
    *("relu", "relu6", "sigmoid", "tanh", "abs", "hard_sigmoid", "hard_swish", "swish", "silu"),
    *("mish", "gelu", "leaky_relu"),
)


JOINED = {
    "integers of int8 ops": ("relu", "relu", 8, 2),
    "floats": ("tanh", "softsign", 8, 4),
    "floats and channels of zeros": ("tanh", "sin", 24, 5),
    "floats that have the channels of zeros": ("tanh", "softsign", 24, 4),
}


@pytest.mark.usefixtures("int8_of_any_size")
@pytest.mark.parametrize("name", JOINED)
@pytest.mark.parametrize("dynamic", [False, True])
def test_integers_are_upsampled_and_concatenated(name: str, dynamic: bool, tmp_path: Path) -> None:
    *arguments, quantize_ops = JOINED[name]
    net = joined(*arguments)
    if dynamic:
        for var in net.block.vars[2:]:
            if not var.persistable:
                proto.tensor_desc(var).dims[2:] = [-1, -1]
    data = images(0, (4, 8, 6, 6))
    result = quantized(net, tmp_path, data)
    assert op_types(tmp_path)["quantize"] == quantize_ops
    other = images(1, (2, 8, 10, 4)) if dynamic else data
    primitives = executed(tmp_path / "int8" / "model.pdmodel", other, tmp_path)
    moved = [one.types for one in primitives if one.kind in ("concat", "resampling")]
    assert len(moved) == 3
    assert not any("f32" in types for types in moved)
    check_run(tmp_path, other, usual_error(result))


def test_a_sum_of_integers_is_upsampled_for_a_float_reader_too(tmp_path: Path) -> None:
    net = residual("relu", False)
    net.last = net.block.ops[-1].inputs[0].arguments[0]
    upsampled = net.nearest(2).last
    net.fetch(net.then("scale", {"X": upsampled}, "Out", {"scale": 2.0, "bias": 1.0}).last)
    net.last = upsampled
    data = images()
    quantized(net.conv(8).end(), tmp_path, data)
    types = op_types(tmp_path)
    assert [types["quantize"], types["dequantize"]] == [2, 1]
    check_run(tmp_path, data, 0.05)


DEPTHWISE = {**CONV, "groups": 8}
SHIFT = {"scale": 1.0, "bias": 0.5}


def shifted(read_behind: bool = False) -> Net:
    """A sum between an int8 convolution and a padded float one, which cannot absorb it.

    Another op may also read the sum's input, and run later.
    """
    net = Net(IMAGES).conv(8).act("hard_swish")
    before = net.last
    net.then("scale", {"X": before}, "Out", SHIFT).conv(8, DEPTHWISE, "depthwise_conv2d")
    other = before if read_behind else net.last
    net.then("elementwise_mul", {"X": net.last, "Y": other}, "Out", {"axis": -1})
    return net.conv(8).end()


def squeezed() -> Net:
    """Squeeze and excitation: before the image is multiplied, the factor's ops read it."""
    net = Net(IMAGES).conv(8)
    image, dims = net.last, net.dims
    pooling = {"pooling_type": "avg", "ksize": [1, 1], "adaptive": True, "strides": [1, 1]}
    net.dims = [4, 8, 1, 1]
    net.then("pool2d", {"X": image}, "Out", {**pooling, "paddings": [0, 0]}).conv(8, UNPADDED)
    factor = net.act("sigmoid").last
    net.dims = dims
    net.then("elementwise_mul", {"X": image, "Y": factor}, "Out", {"axis": -1})
    return net.conv(8).end()


def reshaped() -> Net:
    """The output of a reshape2 may share the memory of its input."""
    net = Net(IMAGES).conv(8)
    image = net.last
    net.then("reshape2", {"X": image}, "Out", {"shape": [0, 0, 12, 12]})
    net.then("scale", {"X": net.last}, "Out", SHIFT).act("exp")
    net.then("elementwise_mul", {"X": net.last, "Y": image}, "Out", {"axis": -1})
    return net.conv(8).end()


def fetched_sum() -> Net:
    net = Net(IMAGES).conv(8).act("hard_swish")
    return net.then("scale", {"X": net.last}, "Out", SHIFT).end().conv(8).end()


IN_PLACE: dict[str, tuple[Callable[[], Net], list[str]]] = {
    "a sum": (shifted, ["scale"]),
    "a sum of what is read later": (lambda: shifted(read_behind=True), ["elementwise_mul"]),
    "a product of what is read before": (squeezed, ["elementwise_mul"]),
    "what is reshaped": (reshaped, []),
    "what is fetched by its name": (fetched_sum, []),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_ops_overwrite_what_nothing_reads_behind_them(name: str, tmp_path: Path) -> None:
    build, expected = IN_PLACE[name]
    data = images()
    quantized(build(), tmp_path, data)
    model = load_model(tmp_path / "int8")
    found = [op.type for op in model.ops() if set(op.reads()) & set(op.writes())]
    assert found == expected
    check_run(tmp_path, data, 0.05)
    compared = compare(tmp_path / "float", model, [data]).tensors
    assert [tensor.name for tensor in compared if tensor.note] == []


def chain(act: str, op_type: str = "matmul_v2", bias: bool = True) -> Net:
    net = Net(TOKENS)
    columns = {"x_num_col_dims": 2, "y_num_col_dims": 1} if op_type == "mul" else {}
    for outputs in (24, 16):
        net.matmul(outputs, op_type)
        for name, value in columns.items():
            Op(net.block.ops[-1]).set_attr(name, value)
        if bias:
            net.constant("elementwise_add", np.linspace(-1, 1, outputs))
        net.act(act)
    return net.end()


PRODUCTS: dict[str, Callable[[], Net]] = {
    **{act: partial(chain, act) for act in ACTIVATIONS},
    "an activation of its own": lambda: chain("softsign"),
    "no bias": lambda: chain("hard_swish", bias=False),
    "mul": lambda: chain("relu", "mul"),
    "matmul": lambda: chain("relu", "matmul"),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str, tmp_path: Path) -> None:
    data = images(1, (4, 6, 32)) + np.float32(0.7)
    quantized(PRODUCTS[name](), tmp_path, data)
    assert op_types(tmp_path)["fc"] == 2
    check_run(tmp_path, data)


def test_a_product_without_bias_or_zero_point(tmp_path: Path) -> None:
    data = np.abs(images(1, (4, 6, 32)))
    quantized(Net(TOKENS).matmul(16).end(), tmp_path, data)
    check_run(tmp_path, data)


@pytest.mark.parametrize("shift", [0.0, 0.7, 5.0])
def test_the_run_is_what_the_integers_say(shift: float, tmp_path: Path) -> None:
    net = Net(TOKENS).matmul(16).constant("elementwise_add", np.linspace(-1, 1, 16)).end()
    data = images(1, (4, 6, 32)) + np.float32(shift)
    quantized(net, tmp_path, data)
    model = load_model(tmp_path / "int8")
    ops = {op.type: op for op in model.ops()}
    factor, zero_point = (ops["quantize"].attr(n, 0.0) for n in ("Scale", "Shift"))
    is_signed = ops["quantize"].attr("is_negative_input", False)
    least, largest = (-127, 127) if is_signed else (0, 255)
    inputs = np.clip(np.rint(data.astype(np.float64) * factor) + zero_point, least, largest)
    steps = 1 / np.array(ops["fc"].ints("Scale_weights"))
    bias = model.parameters[ops["fc"].input("Bias")]
    products = inputs @ model.parameters["w1"].astype(np.float64)
    expected = products * steps / factor + bias
    (actual,) = paddle_run.run(tmp_path / "int8", {"x": data}, "float")
    assert zero_point > 0 or shift == 5.0
    # In single precision, a value halfway between two integers may round to either.
    assert np.abs(actual - expected).max() <= 1.01 * (steps / factor).max() * 127
    assert paddle_run.relative_error(actual, expected) < 1e-4


@pytest.mark.parametrize("strides", [[1, 1], [2, 1]])
def test_padding_is_zero_whatever_the_zero_point(strides: list[int], tmp_path: Path) -> None:
    """Padded integers of any zero point compute what a convolution of padded values does."""
    attributes = {**CONV, "strides": strides, "paddings": [1, 0, 2, 1], "dilations": [1, 2]}
    net = Net([4, 16, 9, 12]).conv(48, attributes)
    net.constant("elementwise_add", np.linspace(-1, 1, 48), 1).end()
    data = images(1, (4, 16, 9, 12)) - np.float32(0.3)
    quantized(net, tmp_path, data, bias_correction=False)
    assert op_types(tmp_path) == {
        "cast": 1,
        "elementwise_mul": 1,
        "reshape2": 2,
        "quantize": 2,
        "concat": 1,
        "fused_conv2d": 2,
    }
    model = load_model(tmp_path / "int8")
    ops = {op.type: op for op in model.ops() if "zeros" not in next(iter(op.writes()), "")}
    factor, zero_point = (ops["quantize"].attr(n, 0.0) for n in ("Scale", "Shift"))
    inputs = np.clip(np.rint(data * np.float32(factor)) + zero_point, 0, 255) - zero_point
    padded = np.pad(inputs, [(0, 0), (0, 0), (1, 0), (2, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 5), (2, 3))[..., ::2]
    windows = windows[:, :, :: strides[0], :: strides[1]]
    integers = model.parameters[
        next(name for name in model.parameters if "bordered" in name and "@" not in name)
    ]
    products = np.einsum("nchwij,ocij->nohw", windows, integers[:, :16].astype(np.float64))
    steps = 1 / np.array(ops["fused_conv2d"].ints("Scale_weights"))
    expected = products * (steps / factor)[:, None, None] + np.linspace(-1, 1, 48)[:, None, None]
    (actual,) = paddle_run.run(tmp_path / "int8", {"x": data}, "float")
    assert zero_point > 0
    assert paddle_run.relative_error(actual, expected) < 1e-4
    assert (
        paddle_run.relative_error(
            *(paddle_run.run(tmp_path / n, {"x": data}, "float")[0] for n in ("int8", "float"))
        )
        < 0.02
    )


def test_upsampling_becomes_convolutions(tmp_path: Path) -> None:
    """A tensor that is computed in blocks is calibrated as the values that it stands for."""
    data = images(2, (4, 32, 5, 6))
    between = Net([4, 32, 5, 6]).upsample(8).batch_norm().act("relu")
    end = between.last
    between.end().save(tmp_path / "between")
    result = quantized(
        Net([4, 32, 5, 6]).upsample(8).batch_norm().act("relu").upsample(1).act().end(),
        tmp_path,
        data,
        algo="abs_max",
    )
    types = op_types(tmp_path)
    assert [types["quantize"], types["fused_conv2d"], types["pixel_shuffle"]] == [1, 2, 1]
    largest = paddle_run.run(tmp_path / "between", {"x": data})[0].max()
    assert result.thresholds()[f"{end}.blocks"] == pytest.approx(largest, rel=1e-5)
    expected, actual = (
        paddle_run.run(tmp_path / name, {"x": data}, "float")[0] for name in ("float", "int8")
    )
    assert paddle_run.relative_error(actual, expected) < 0.05


def test_what_has_no_kernel_stays_in_float(tmp_path: Path) -> None:
    net = Net(TOKENS).act("tanh")
    inputs = {"X": net.last, "Y": net.parameter("w", random((32, 32)))}
    halved = {"alpha": 0.5, "transpose_X": False, "transpose_Y": False}
    net.then("matmul", inputs, "Out", halved).act("tanh").matmul(16)
    result = quantized(net.end(), tmp_path, images(1, (4, 6, 32)))
    (kept,) = result.kept_float
    assert "factor" in kept.reason
    assert op_types(tmp_path)["fc"] == 1
    check_run(tmp_path, images(1, (4, 6, 32)))


def test_every_convolution_runs_in_int8(tmp_path: Path) -> None:
    data = images()
    quantized(residual("relu", True), tmp_path, data)
    primitives = executed(tmp_path / "int8" / "model.pdmodel", data, tmp_path)
    convolutions = [one for one in primitives if one.kind == "convolution"]
    assert len(convolutions) == 8
    assert all(one.reads_int8 for one in convolutions)
    assert sum(one.writes_float for one in convolutions) <= 1


SUBSETS: dict[str, Callable[[], Net]] = {
    "residuals": lambda: residual("relu", False),
    "a pooled sum": lambda: summed_and_pooled(),
    "pooled": lambda: pooled().end(),
    "joined": lambda: joined("relu", "relu", 8),
}


def summed_and_pooled() -> Net:
    """A sum of integers whose only reader is a pooling."""
    net = Net(IMAGES).conv(8).act("relu")
    side = net.last
    net.conv(8)
    net.then("elementwise_add", {"X": net.last, "Y": side}, "Out", {"axis": -1}).act("relu")
    net.dims = [4, 8, 6, 6]
    return net.then("pool2d", {"X": net.last}, "Out", POOLING).conv(8).end()


@pytest.mark.parametrize("name", SUBSETS)
def test_what_fewer_ops_need_is_observed_for_all(name: str, tmp_path: Path) -> None:
    """Accuracy control, and activations of zeros, leave some of the ops in float afterwards."""
    model = load_model(SUBSETS[name]().save(tmp_path / "float"))
    ops, _ = find_weighted_ops(model, ACTIVATION_OP_TYPES, ())
    known = set(plan_onednn(model, ops).observed)
    for count in range(len(ops)):
        for some in combinations(ops, count):
            assert known.issuperset(plan_onednn(model, some).observed)


@pytest.mark.parametrize("act", ["relu", "sigmoid"])
def test_a_product_of_an_image_keeps_its_weight(act: str, tmp_path: Path) -> None:
    """With a computed weight, oneDNN's product would read the image in the wrong order."""
    data = images()
    net = Net(IMAGES).conv(16).act(act).matmul(10, trans_x=False, trans_y=False).end()
    result = quantized(net, tmp_path, data)
    assert ["feature map" in op.reason for op in result.kept_float] == [True]
    quant_post_dynamic(tmp_path / "float", tmp_path / "dynamic")
    (expected,) = paddle_run.run(tmp_path / "float", {"x": data})
    for name in ("int8", "dynamic/quantized_model"):
        (actual,) = paddle_run.run(tmp_path / name, {"x": data}, "float")
        assert paddle_run.relative_error(actual, expected) < 0.05


def test_given_thresholds_are_those_of_integers_with_a_zero_point(tmp_path: Path) -> None:
    net = Net([4, 32, 6, 6])
    twice = net.then("scale", {"X": net.last}, "Out", {"scale": 2.0}).last
    net.act("abs").then("scale", {"X": net.last}, "Out", {"scale": 1.0, "bias": -0.3})
    lopsided = net.last
    net.conv(8, UNPADDED)
    side, net.last, net.dims = net.last, twice, [4, 32, 6, 6]
    net.conv(8, UNPADDED)
    net.then("elementwise_add", {"X": net.last, "Y": side}, "Out", {"axis": -1}).end()
    data = images(1, (4, 32, 6, 6))

    def grids(**options: Any) -> Any:
        result = quantized(net, tmp_path, data, algo="abs_max", optimize_model=False, **options)
        quantize = [op for op in load_model(tmp_path / "int8").ops() if op.type == "quantize"]
        found = {
            op.input("Input"): (
                op.attr("Scale", 0.0),
                op.attr("Shift", 0.0),
            )
            for op in quantize
        }
        for tensor in result.quantized:
            if tensor.kind == "activation":
                assert tensor.scale == pytest.approx(1 / found[tensor.name][0])
        return found

    alone = grids()
    assert alone[lopsided] != alone[twice]
    shared = grids(same_scale_tensor_list=[[lopsided, twice]])
    assert shared[lopsided] == shared[twice]
    given = grids(scale_dict={lopsided: 20.0})
    assert given[lopsided] == (pytest.approx(255 / 40), 128)
