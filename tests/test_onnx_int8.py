"""Static mode for ONNX Runtime: what runs as int8 there, and how near it is to float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_run import run_onnx, run_unoptimized, runtime_nodes
from paddle_run import predict
from programs import CONV, Net, ProgramBuilder, conv_net, random

import pyquant
from pyquant.program.model import load_model
from pyquant.verification import runtime_check
from pyquant.verification.runtimes import RUNTIMES

pytestmark = pytest.mark.any_isa


def residual_net() -> ProgramBuilder:
    """x[-1,4,8,8] -> conv2d, bias, relu -> conv2d, plus the relu -> relu -> pool2d -> conv2d."""
    net, wide = ProgramBuilder(), [-1, 8, 8, 8]
    x = net.feed("x", [-1, 4, 8, 8])
    weights = [
        net.parameter(f"w{at}", random(shape, at) * np.float32(0.2))
        for at, shape in enumerate([(8, 4, 3, 3), (8, 8, 3, 3), (6, 8, 3, 3)])
    ]
    bias = net.parameter("bias", random((8,), 7))
    a = net.op("conv2d", {"Input": x, "Filter": weights[0]}, ("Output", "a"), wide, CONV)
    b = net.op("elementwise_add", {"X": a, "Y": bias}, ("Out", "b"), wide, {"axis": 1})
    c = net.op("relu", {"X": b}, ("Out", "c"), wide)
    d = net.op("conv2d", {"Input": c, "Filter": weights[1]}, ("Output", "d"), wide, CONV)
    e = net.op("elementwise_add", {"X": d, "Y": c}, ("Out", "e"), wide, {"axis": -1})
    f = net.op("relu", {"X": e}, ("Out", "f"), wide)
    pool = {"pooling_type": "max", "ksize": [2, 2], "strides": [2, 2], "paddings": [0, 0]}
    g = net.op("pool2d", {"X": f}, ("Out", "g"), [-1, 8, 4, 4], pool)
    h = net.op("conv2d", {"Input": g, "Filter": weights[2]}, ("Output", "h"), [-1, 6, 4, 4], CONV)
    net.fetch(h)
    return net


def quantized(
    net: ProgramBuilder, tmp_path: Path, shape: tuple[int, ...], **options: object
) -> Path:
    source = net.save(tmp_path / "in")
    data = [random((4, *shape), seed) for seed in range(4)]
    result = pyquant.quant_post_static(
        None, source, tmp_path / "out", data_loader=data, deploy_backend="ONNX", **options
    )
    assert result.params_path is None
    assert result.model_path == tmp_path / "out" / "model.onnx"
    return result.model_path


def error_percent(tmp_path: Path, path: Path, shape: tuple[int, ...]) -> float:
    model, feed = load_model(tmp_path / "in"), {"x": random((3, *shape), 9)}
    (expected,) = predict(model.model_path, model.params_path, feed)
    (actual,) = run_onnx(path, feed)
    return 100 * float(np.sqrt(((actual - expected) ** 2).mean() / expected.var()))


def test_convolutions_sums_and_poolings_run_as_int8(tmp_path: Path) -> None:
    path = quantized(residual_net(), tmp_path, (4, 8, 8))
    nodes = Counter(runtime_nodes(path, tmp_path))
    assert (nodes["QLinearConv"], nodes["QLinearAdd"], nodes["Conv"]) == (3, 1, 0)
    assert (nodes["QuantizeLinear"], nodes["DequantizeLinear"], nodes["Relu"]) == (1, 1, 0)
    assert error_percent(tmp_path, path, (4, 8, 8)) < 3


def test_form(tmp_path: Path) -> None:
    """Activations are uint8, weights int8 by channel, biases int32 of the product of both steps."""
    path = quantized(residual_net(), tmp_path, (4, 8, 8))
    graph = onnx.load(path).graph
    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    made = {node.output[0]: node for node in graph.node}
    for conv in (node for node in graph.node if node.op_type == "Conv"):
        sources = [made[name] for name in conv.input]
        assert [node.op_type for node in sources] == ["DequantizeLinear"] * len(sources)
        steps = [tensors[node.input[1]] for node in sources]
        zeros = [tensors[node.input[2]].dtype for node in sources]
        assert zeros == [np.uint8, np.int8, np.int32][: len(sources)]
        assert steps[1].shape == (len(tensors[sources[1].input[0]]),)
        if len(sources) == 3:
            np.testing.assert_allclose(steps[2], steps[0] * steps[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("op_type", "attributes", "least", "greatest"),
    [
        ("hard_swish", {"threshold": 6.0, "scale": 6.0, "offset": 3.0}, -3, None),
        ("hard_sigmoid", {"slope": 0.25, "offset": 0.5}, -2, 2),
    ],
)
def test_integers_are_for_values_that_an_activation_tells_apart(
    op_type: str,
    attributes: dict[str, float],
    least: float,
    greatest: float | None,
    tmp_path: Path,
) -> None:
    net = Net([-1, 4, 8, 8]).conv(8)
    path = quantized(
        net.then(op_type, {"X": net.last}, "Out", attributes).conv(4).end(), tmp_path, (4, 8, 8)
    )
    graph = onnx.load(path).graph
    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    made = {node.output[0]: node for node in graph.node}
    behind = next(
        node
        for node in graph.node
        if node.op_type == "QuantizeLinear" and made.get(node.input[0], node).op_type == "Conv"
    )
    step, zero = (float(tensors[name]) for name in behind.input[1:])
    assert -zero * step == pytest.approx(least, abs=step)
    if greatest is None:
        assert (255 - zero) * step > 5
    else:
        assert (255 - zero) * step == pytest.approx(greatest, abs=step)


def test_products_run_as_int8(tmp_path: Path) -> None:
    path = quantized(conv_net(), tmp_path, (3, 8, 8))
    nodes = Counter(runtime_nodes(path, tmp_path))
    assert (nodes["QLinearConv"], nodes["QGemm"], nodes["Gemm"]) == (2, 1, 0)
    assert error_percent(tmp_path, path, (3, 8, 8)) < 3


def test_no_two_neighbours_saturate(tmp_path: Path) -> None:
    """Neighbouring inputs add up to 128 at most, unless the processors have VNNI."""
    net = conv_net()
    assert most_of_pairs(quantized(net, tmp_path / "any", (3, 8, 8))) <= 128
    vnni = quantized(net, tmp_path / "vnni", (3, 8, 8), processors="vnni")
    assert most_of_pairs(vnni) > 128


def most_of_pairs(path: Path) -> int:
    graph = onnx.load(path).graph
    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    (weight,) = (one for name, one in tensors.items() if one.shape == (4, 8, 3, 3))
    whole = weight.astype(np.int32)
    return int(np.abs(whole[:, 0::2] + whole[:, 1::2]).max())


def test_run_is_what_the_file_says(tmp_path: Path) -> None:
    """The int8 kernels compute what QDQ says, op by op in float, up to a step of the integers."""
    path, feed = quantized(residual_net(), tmp_path, (4, 8, 8)), {"x": random((3, 4, 8, 8), 9)}
    (actual,), (expected,) = run_onnx(path, feed), run_unoptimized(path, feed)
    assert np.abs(actual - expected).max() <= 0.02 * np.abs(expected).max()


def add_unknown_op(net: ProgramBuilder) -> str:
    return net.op("lgamma", {"X": "y"}, ("Out", "z"), [-1, 10])


def add_unknown_attribute(net: ProgramBuilder) -> str:
    return net.op("matrix_power", {"X": "y"}, ("Out", "z"), [-1, 10], {"n": -1})


def add_unknown_dtype(net: ProgramBuilder) -> str:
    complex64 = 23
    waves = net.feed("waves", [-1, 10], complex64)
    return net.op("relu", {"X": waves}, ("Out", "z"), [-1, 10])


@pytest.mark.parametrize(
    ("adding", "named"),
    [
        (add_unknown_op, "lgamma -> 'z'"),
        (add_unknown_attribute, "matrix_power -> 'z' .*its power is -1.*another deploy_backend"),
        (add_unknown_dtype, "relu -> 'z' .*'waves' is COMPLEX64.*another deploy_backend"),
    ],
)
def test_what_onnx_lacks_is_named_before_data_are_read(
    tmp_path: Path, adding: Callable[[ProgramBuilder], str], named: str
) -> None:
    net = conv_net()
    net.fetch(adding(net))
    source = net.save(tmp_path / "in")

    def data() -> object:
        raise AssertionError("the data are read")

    with pytest.raises(pyquant.UnsupportedError, match=named):
        pyquant.quant_post_static(
            None, source, tmp_path / "out", data_loader=data, deploy_backend="ONNX"
        )
    assert not (tmp_path / "out").exists()


def test_result_is_checked_in_onnx_runtime(tmp_path: Path) -> None:
    source = residual_net().save(tmp_path / "in")
    data = [random((4, 4, 8, 8), seed) for seed in range(4)]
    result = pyquant.quant_post_static(
        None, source, tmp_path / "out", data_loader=data, deploy_backend="ONNX"
    )
    found = result.verification
    assert found is not None
    assert 0 < found.error_percent < 3
    assert (found.batches, found.departs) == (2, False)
    assert min(found.float_seconds, found.int8_seconds, found.speedup) > 0
    assert "ONNX Runtime computes with integers: 1 QLinearAdd, 3 QLinearConv" in result.notes


def test_missing_runtime_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_check, "find_spec", lambda name: None)
    source = conv_net().save(tmp_path / "in")
    result = pyquant.quant_post_static(
        None,
        source,
        tmp_path / "out",
        data_loader=[random((4, 3, 8, 8), 1)],
        deploy_backend="ONNX",
    )
    assert result.verification is None
    assert any("extra 'runtimes'" in note for note in result.notes)


def test_what_the_runtime_cannot_run_is_written_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("no kernel for this processor")

    monkeypatch.setitem(RUNTIMES, "ONNX", replace(RUNTIMES["ONNX"], run_int8=fails))
    source = conv_net().save(tmp_path / "in")
    data = [random((4, 3, 8, 8), 1)]
    result = pyquant.quant_post_static(
        None, source, tmp_path / "out", data_loader=data, deploy_backend="ONNX"
    )
    assert result.verification is None
    assert any("ONNX Runtime cannot run it here: no kernel" in note for note in result.notes)
    assert result.model_path.is_file()
