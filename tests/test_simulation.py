"""Int8 runs of oneDNN's ops against their simulation, and the primitives that oneDNN ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle_run
import programs
import pytest
from ocr_images import RENDERERS, inputs
from onednn_log import executed
from programs import CONV, POOLING, UNPADDED, Net, ProgramBuilder
from pyramids import DIMS, pyramid
from simulated_run import disagreement
from static_runs import quantized

from bench.ocr import models
from pyquant import Model, UnsupportedError, load_model, quant_post_static, save_model
from pyquant.program import proto
from pyquant.program.names import BORDERED, WIDENED
from pyquant.program.op import Op
from pyquant.program.targets.onednn.read_scales import read_grids
from pyquant.program.targets.onednn.simulation import simulate

ONEDNN = {"use_mkldnn": True, "use_onednn": True}
IMAGES = (4, 8, 12, 12)


@pytest.fixture(scope="module", params=RENDERERS)
def int8(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pretrained model in int8, its name, and images that it takes."""
    images = inputs(request.param, 8)
    directory = tmp_path_factory.mktemp("int8")
    quant_post_static(
        None,
        models.model_dir(request.param),
        directory,
        data_loader=[images[:4], images[4:]],
        deploy_backend="OneDNN",
        verify=False,
    )
    return load_model(directory), request.param, images


def test_every_op_of_a_real_model_computes_what_is_simulated(
    int8: tuple[Model, str, Any], tmp_path: Path
) -> None:
    model, _, images = int8
    found = disagreement(model, model, {"x": images[:2]}, tmp_path)
    assert found.tensors > 25
    assert found.is_rounding, found


def test_the_run_is_nearer_to_the_simulation_than_to_float(
    int8: tuple[Model, str, Any], tmp_path: Path
) -> None:
    model, name, images = int8
    feed = {"x": images}
    paths = save_model(simulate(model), tmp_path, "m.pdmodel", "m.pdiparams")
    (simulated,) = paddle_run.predict(*paths[:2], feed)
    (run,) = paddle_run.predict(model.model_path, model.params_path, feed, "float")
    (floats,) = paddle_run.predict(*models.model_paths(name), feed)
    assert typical_distance(run, simulated) < typical_distance(run, floats)


def typical_distance(found: Any, expected: Any) -> float:
    """The median over positions: where two characters are as likely, a rounding decides."""
    return float(np.median(np.linalg.norm(found - expected, axis=-1)))


WRONG: dict[str, Callable[[Any], Any]] = {
    "Scale": lambda scale: scale * 1.01,
    "Shift": lambda shift: shift + 1,
    "Scale_in": lambda scale: scale * 1.01,
    "Scale_out": lambda scale: scale * 1.01,
    "Scale_in_eltwise": lambda scale: scale * 1.1,
    "Scale_weights": lambda scales: [scale * 1.01 for scale in scales],
    "fuse_alpha": lambda alpha: alpha + 0.01,
    "fuse_beta": lambda beta: beta + 0.01,
}
WRONG_OF_PYRAMIDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("scale_x", "scale_y", "scale_out"), lambda scale: scale * 1.05),
    "Shift_out": lambda shift: shift + 1,
}


def residual_net() -> Net:
    """Convolutions that read a zero point or a relu, and a sum of integers."""
    net = Net(list(IMAGES)).conv(8).act("hard_swish").conv(8, UNPADDED)
    shared = net.act("relu").last
    net.conv(8).act("relu").conv(8)
    net.then("elementwise_add", {"X": net.last, "Y": shared}, "Out", {"axis": -1}).act("relu")
    return net.conv(8).act("leaky_relu").end()


@pytest.mark.parametrize("attribute", [*WRONG, *WRONG_OF_PYRAMIDS])
def test_a_wrong_attribute_is_no_rounding(attribute: str, tmp_path: Path) -> None:
    is_of_pyramids = attribute in WRONG_OF_PYRAMIDS
    data = programs.random(tuple(DIMS) if is_of_pyramids else IMAGES, 3)
    (pyramid() if is_of_pyramids else residual_net()).save(tmp_path / "float")
    quantized(tmp_path, [data], deploy_backend="OneDNN")
    model, wrong = (load_model(tmp_path / "int8") for _ in range(2))
    found = disagreement(model, model, {"x": data}, tmp_path / "right")
    assert found.is_rounding, found
    op = next(op for op in wrong.ops() if _says(op, attribute))
    value = op.value(attribute)
    given = {**WRONG, **WRONG_OF_PYRAMIDS}[attribute](
        list(value) if attribute == "Scale_weights" else value
    )
    op.set_attr(attribute, given)
    save_model(wrong, tmp_path / "wrong", "m.pdmodel", "m.pdiparams")
    run = load_model(tmp_path / "wrong")
    found = disagreement(run, model, {"x": data}, tmp_path / "simulated")
    assert found.share > 0.02 or found.output > 1e-3, found


def _says(op: Op, attribute: str) -> bool:
    value = op.value(attribute)
    return value not in (None, 0.0) and (attribute == "Scale_weights" or value != 1.0)


def conv_net(attributes: dict[str, Any], size: int, op_type: str = "conv2d") -> Net:
    """A convolution, one with ``attributes`` that writes images of ``size``, and one after it."""
    net = Net(list(IMAGES)).conv(8).act("relu").conv(8, {**CONV, **attributes}, op_type)
    net.dims[2:] = [size, size]
    proto.tensor_desc(net.block.vars[-1]).dims[2:] = [size, size]
    return net.act("hard_swish").conv(8, UNPADDED).end()


def matrix_net() -> Net:
    bias = np.linspace(-1, 1, 24)
    return Net([4, 32]).matmul(24).constant("elementwise_add", bias).act("relu").matmul(7).end()


NETS: dict[str, Callable[[], Net]] = {
    "residual": residual_net,
    "matrix": matrix_net,
    "stride": lambda: conv_net({"strides": [2, 2]}, 6),
    "dilation": lambda: conv_net({"dilations": [2, 2], "paddings": [2, 2]}, 12),
    "groups": lambda: conv_net({"groups": 4}, 12),
    "same padding": lambda: conv_net({"padding_algorithm": "SAME", "strides": [2, 2]}, 6),
    "no padding": lambda: conv_net({"padding_algorithm": "VALID"}, 10),
    "four paddings": lambda: conv_net({"paddings": [0, 1, 1, 0]}, 11),
    "depthwise": lambda: conv_net({"groups": 8, "strides": [2, 2]}, 6, "depthwise_conv2d"),
}


@pytest.mark.parametrize("kind", ["channel_wise_abs_max", "abs_max"])
@pytest.mark.parametrize("name", NETS)
def test_every_kind_of_op_computes_what_is_simulated(name: str, kind: str, tmp_path: Path) -> None:
    net = NETS[name]()
    dims = proto.tensor_desc(net.block.vars[2]).dims
    data = programs.random((4, *dims[1:]), 3)
    net.save(tmp_path / "float")
    options = {"deploy_backend": "OneDNN", "weight_quantize_type": kind}
    result = quantized(tmp_path, [data], **options)
    assert result.kept_float == []
    model = load_model(tmp_path / "int8")
    found = disagreement(model, model, {"x": data}, tmp_path / "simulated")
    assert found.is_rounding, found


def test_simulated_rounding_is_that_of_the_run(tmp_path: Path) -> None:
    """Halves round to even and values beyond the range saturate, for both kinds of integers."""
    values = (np.arange(-600, 600) / 2).astype(np.float32).reshape(1, 1200)
    for zero_point, signed in ((0.0, True), (0.0, False), (100.0, False), (255.0, False)):
        net = ProgramBuilder()
        net.parameter("unread", np.zeros(1, np.float32))  # Paddle 2.6 loads no model without any
        x = net.feed("x", [-1, 1200])
        q = net.op("quantize", {"Input": x}, ("Output", "q"), [-1, 1200], scaled(1.0, zero_point))
        Op(net.block.ops[-1]).set_attr("is_negative_input", signed)
        y = ("Output", "y")
        net.fetch(net.op("dequantize", {"Input": q}, y, [-1, 1200], scaled(1.0, zero_point)))
        model = load_model(net.save(tmp_path / "int8"))
        paths = save_model(simulate(model), tmp_path / "simulated", "m.pdmodel", "m.pdiparams")
        integers = np.clip(np.rint(values + zero_point), *((-128, 127) if signed else (0, 255)))
        expected = (integers - zero_point).astype(np.float32)
        (simulated,) = paddle_run.predict(*paths[:2], {"x": values})
        np.testing.assert_array_equal(simulated, expected)
        (run,) = paddle_run.predict(model.model_path, model.params_path, {"x": values}, "float")
        np.testing.assert_array_equal(run, expected)
        np.testing.assert_array_equal(read_grids(model)["q"].rounded(values), expected)


def scaled(scale: float, zero_point: float) -> dict[str, Any]:
    return {**ONEDNN, "Scale": scale, "Shift": zero_point}


NEAREST = {
    "interp_method": "nearest",
    "out_h": -1,
    "out_w": -1,
    "align_corners": False,
    "align_mode": 1,
    "data_layout": "NCHW",
}
CARRIERS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "pool2d": (POOLING, [-1, 8, 6, 6]),
    "concat": ({"axis": 1}, [-1, 16, 12, 12]),
    "nearest_interp": ({**NEAREST, "scale": 2.0}, [-1, 8, 24, 24]),
    "nearest_interp_v2": ({**NEAREST, "scale": [2.0, 2.0]}, [-1, 8, 24, 24]),
    "reshape2": ({"shape": [0, 8, 144]}, [-1, 8, 144]),
    "transpose2": ({"axis": [0, 2, 3, 1]}, [-1, 12, 12, 8]),
}


def carrier_net(op_type: str, attributes: dict[str, Any], dims: list[int]) -> ProgramBuilder:
    """Integers that an op moves and that then become float again."""
    net = ProgramBuilder()
    net.parameter("unread", np.zeros(1, np.float32))
    x = net.feed("x", [-1, *IMAGES[1:]])
    q = net.op("quantize", {"Input": x}, ("Output", "q"), [-1, *IMAGES[1:]], scaled(30.0, 100.0))
    moved = net.op(op_type, {"X": q}, ("Out", "moved"), dims, {**ONEDNN, **attributes})
    if op_type == "concat":
        net.block.ops[-1].inputs[0].arguments.append(q)
    if op_type in ("reshape2", "transpose2"):
        proto.add_var(net.block, "shape", proto.FP32, [0, *dims])
        net.block.ops[-1].outputs.add(parameter="XShape", arguments=["shape"])
    net.fetch(net.op("dequantize", {"Input": moved}, ("Output", "y"), dims, scaled(30.0, 100.0)))
    return net


@pytest.mark.parametrize("op_type", CARRIERS)
def test_ops_that_carry_integers(op_type: str, tmp_path: Path) -> None:
    model = load_model(carrier_net(op_type, *CARRIERS[op_type]).save(tmp_path / "int8"))
    data = programs.random(IMAGES, 3) * np.float32(3)
    found = disagreement(model, model, {"x": data}, tmp_path / "simulated")
    assert (found.tensors, found.furthest, found.output) == (2, 0, 0.0)


def test_what_cannot_be_simulated_is_named(tmp_path: Path) -> None:
    average = {**POOLING, "pooling_type": "avg"}
    for op_type, attributes in (("pool2d", average), ("softmax", {"axis": -1})):
        net = carrier_net(op_type, attributes, [-1, *IMAGES[1:]])
        model = load_model(net.save(tmp_path / op_type))
        with pytest.raises(UnsupportedError, match=rf"/m\.pdmodel: .*'{op_type}'.*'q'"):
            simulate(model)
    source = matrix_net().save(tmp_path / "float")
    quantized(tmp_path, [programs.random((4, 32))], deploy_backend="OneDNN")
    model = load_model(tmp_path / "int8")
    op = next(op for op in model.ops() if op.type == "fc")
    op.set_attr("activation_type", "sine")
    with pytest.raises(UnsupportedError, match=r"'fc' .*'sine'"):
        simulate(model)
    floats = load_model(source)
    assert simulate(floats) is floats


PRIMITIVES = {
    "fused_conv2d": "convolution",
    "fc": "inner_product",
    "pool2d": "pooling",
    "concat": "concat",
    "nearest_interp": "resampling",
    "nearest_interp_v2": "resampling",
}


def _of_the_source(name: str) -> str:
    """Return the name in the source of a weight of the result; empty if it only makes zeros."""
    for suffix in (".dequantized", BORDERED, WIDENED):
        name = name.removesuffix(suffix)
    return "" if name.endswith(".zeros.w") else name


def test_what_is_claimed_to_be_int8_runs_so(tmp_path: Path) -> None:
    images = inputs(models.RECOGNITION, 8)
    result = quant_post_static(
        None,
        models.model_dir(models.RECOGNITION),
        tmp_path,
        data_loader=[images],
        deploy_backend="OneDNN",
        verify=False,
    )
    model = load_model(tmp_path)
    grids = read_grids(model)
    claimed: Counter[Any] = Counter()
    weights = set()
    for op in model.ops():
        if op.type in PRIMITIVES and not grids.keys().isdisjoint(op.reads()):
            channels = None
            for name in (*op.inputs("Filter"), *op.inputs("W")):
                weights.add(_of_the_source(name))
                channels = _channels(op, model.dims()[name])
            claimed[PRIMITIVES[op.type], channels] += 1
    of_int8 = {t.name for t in result.quantized if t.kind == "weight" and t.bits <= 8}
    assert weights - {""} == of_int8
    assert sum(claimed.values()) >= 29
    ran: Counter[Any] = Counter(
        (one.kind, one.channels)
        for one in executed(result.model_path, images[:1], tmp_path)
        if one.kind in PRIMITIVES.values() and one.reads_int8
    )
    assert ran == claimed


def _channels(op: Op, dims: list[int]) -> tuple[int, int]:
    if op.type == "fc":
        return dims[0], dims[1]
    return dims[1] * op.attr("groups", 1), dims[0]
