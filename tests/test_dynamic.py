"""Dynamic mode on small programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dynamic_twin
import numpy as np
import programs
import pytest
from paddle_run import execute, run

from pyquant import (
    OutputError,
    SettingError,
    UnsupportedError,
    load_model,
    quant_post_dynamic,
)
from pyquant.program import proto

IMAGES = {"x": programs.random((2, 3, 8, 8), 9)}
ROWS = {"x": programs.random((2, 16, 64), 9)}
NETS: dict[str, tuple[Callable[[], programs.ProgramBuilder], dict[str, Any]]] = {
    "conv2d": (programs.conv_net, IMAGES),
    "depthwise_conv2d": (programs.depthwise_net, {"x": programs.random((2, 6, 8, 8), 9)}),
    "conv2d_transpose": (programs.transposed_conv_net, IMAGES),
    "mul": (lambda: programs.linear_net("mul"), ROWS),
    "matmul": (lambda: programs.linear_net("matmul"), ROWS),
    "matmul transposed": (lambda: programs.linear_net("matmul", transposed=True), ROWS),
    "matmul_v2": (lambda: programs.linear_net("matmul_v2"), ROWS),
    "matmul_v2 transposed": (lambda: programs.linear_net("matmul_v2", transposed=True), ROWS),
    "lookup_table_v2": (programs.embedding_net, {"ids": np.arange(10).reshape(2, 5) * 5}),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["channel_wise_abs_max", "abs_max"])
def test_the_output_is_that_of_the_dequantized_twin(
    tmp_path: Path, net: str, bits: int, kind: str
) -> None:
    build, feed = NETS[net]
    source, made, twin_path = dynamic_twin.quantized(build, tmp_path, bits, kind)
    (twin,) = run(twin_path, feed)
    np.testing.assert_array_equal(run(made, feed)[0], twin)
    np.testing.assert_array_equal(execute(made, made.with_suffix(".pdiparams"), feed)[0], twin)
    (expected,) = run(source, feed)
    error = np.abs(twin - expected).max() / np.abs(expected).max()
    assert 0 < error < (0.03 if bits == 8 else 1e-4)
    for how in ("float", "int8"):
        np.testing.assert_allclose(run(made, feed, how)[0], twin, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["channel_wise_abs_max", "abs_max"])
def test_each_weight_is_within_half_a_step(tmp_path: Path, bits: int, kind: str) -> None:
    source = programs.conv_net().save(tmp_path / "in")
    result = quant_post_dynamic(
        source, tmp_path / "out", weight_bits=bits, weight_quantize_type=kind
    )
    before = load_model(source).parameters
    after = load_model(result.model_path.parent).parameters
    for tensor in result.quantized:
        values, step = after[tensor.name], after[f"{tensor.name}@scale"]
        if tensor.axis == 0:  # by channels along axis 1 of a reshaped weight
            step = step.reshape([-1, *[1] * (values.ndim - 1)])
        assert values.dtype == (np.int8 if bits == 8 else np.int16)
        error = np.abs(values.astype(np.float64) * step - before[tensor.name])
        assert (error <= step * (0.5 + 2.0 ** (bits - 24) * 2)).all()
        np.testing.assert_allclose(np.ravel(tensor.scale), step.ravel(), rtol=1e-6)


def test_the_file_shrinks_to_a_quarter_and_to_a_half(tmp_path: Path) -> None:
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 512])
    w = net.parameter("w", programs.random((512, 512)))
    once = {"x_num_col_dims": 1, "y_num_col_dims": 1}
    net.fetch(net.op("mul", {"X": x, "Y": w}, ("Out", "y"), [-1, 512], once))
    source = net.save(tmp_path / "in")
    for bits, share in ((8, 0.26), (16, 0.51)):
        result = quant_post_dynamic(source, tmp_path / f"{bits}", weight_bits=bits)
        assert result.bytes_after / result.bytes_before < share


def test_a_shared_weight_is_quantized_once_and_a_float_reader_sees_the_original(
    tmp_path: Path,
) -> None:
    feed = {name: programs.random((1, 3, 8, 8), 1) for name in ("left", "right")}
    source = programs.shared_weight_net().save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", generate_test_model=True)
    assert [tensor.name for tensor in result.quantized] == ["w"]
    expected = run(source, feed)
    assert result.test_model_path is not None
    for path in (result.model_path, result.test_model_path):
        total, both = run(path, feed)
        np.testing.assert_array_equal(total, expected[0])
        assert 0 < np.abs(both - expected[1]).max() / np.abs(expected[1]).max() < 0.03


def test_a_tied_embedding_is_quantized_once(tmp_path: Path) -> None:
    result = quant_post_dynamic(programs.embedding_net().save(tmp_path / "in"), tmp_path / "out")
    assert [(t.name, t.op_types, t.axis) for t in result.quantized] == [
        ("table", ("lookup_table_v2", "matmul_v2"), 0)
    ]


def test_a_channel_of_zeros_stays_zero(tmp_path: Path) -> None:
    net = programs.conv_net()
    net.parameters["first.w"][3] = 0
    net.parameters["second.w"][1] = 1e-38
    result = quant_post_dynamic(net.save(tmp_path / "in"), tmp_path / "out")
    after = load_model(result.model_path.parent).parameters
    assert not after["first.w"][3].any()
    for tensor in result.quantized:
        assert np.isfinite(tensor.scale).all()
        assert np.all(np.asarray(tensor.scale) > 0)
    assert np.isfinite(run(result.model_path, IMAGES)[0]).all()


@pytest.mark.parametrize("data_type", ["float16", "bfloat16"])
def test_half_precision_weights(tmp_path: Path, data_type: str) -> None:
    weight = programs.random((64, 32))
    stored = (
        weight.astype(np.float16)
        if data_type == "float16"
        else (weight.view(np.uint32) >> 16).astype(np.uint16)
    )
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 64])
    w = net.parameter("w", stored)
    declared = proto.paddle_dtype(stored.dtype)
    cast = net.op(
        "cast", {"X": w}, ("Out", "wide"), [64, 32], {"in_dtype": declared, "out_dtype": 5}
    )
    net.fetch(net.op("matmul_v2", {"X": x, "Y": w}, ("Out", "y"), [-1, 32]))
    net.fetch(cast)
    source = net.save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", generate_test_model=True)
    parameters = load_model(result.model_path.parent).parameters
    assert parameters["w.quantized"].dtype == np.int8
    np.testing.assert_array_equal(parameters["w"], stored)
    wide = stored.astype(np.float32) if data_type == "float16" else _wide(stored)
    restored = parameters["w.quantized"] * parameters["w@scale"]
    assert (np.abs(restored - wide) <= parameters["w@scale"] * 0.5001).all()
    assert result.test_model_path is not None
    twin = load_model(result.test_model_path.parent).parameters["w.quantized"]
    assert twin.dtype == stored.dtype
    rounded = twin.astype(np.float32) if data_type == "float16" else _wide(twin)
    np.testing.assert_allclose(rounded, restored, rtol=2**-8 if data_type != "float16" else 2**-11)


def _wide(raw: Any) -> Any:
    return (raw.astype(np.uint32) << 16).view(np.float32)


def test_paddle_lite_form_keeps_the_ops_and_adds_attributes(tmp_path: Path) -> None:
    source = programs.conv_net().save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", lite_format=True, weight_bits=16)
    before, after = load_model(source), load_model(result.model_path.parent)
    assert [op.type for op in after.ops()] == [op.type for op in before.ops()]
    convolution = next(op for op in after.ops() if op.type == "conv2d")
    attributes = {attr.name: attr for attr in convolution.desc.attrs}
    assert attributes["quantization_type"].s == "post_weight_channel_wise_abs_max"
    assert attributes["quantize_weight_bits"].i == 16
    scales = np.array(attributes["first.w_quant_scale"].floats)
    np.testing.assert_allclose(
        after.parameters["first.w"] * scales[:, None, None, None],
        before.parameters["first.w"],
        atol=scales.max(),
    )


def test_skipped_tensors_keep_their_op_in_float(tmp_path: Path) -> None:
    source = programs.conv_net().save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", skip_tensor_list=["first.w", "y"])
    assert [tensor.name for tensor in result.quantized] == ["second.w"]
    assert {op.op_type for op in result.kept_float} == {"conv2d", "matmul_v2"}
    assert "skip_tensor_list" in result.kept_float[0].reason


def test_bad_arguments_say_what_is_possible(tmp_path: Path) -> None:
    source = programs.conv_net().save(tmp_path / "in")
    for name, value, said in [
        ("weight_bits", 5, "4, 8, 16"),
        ("weight_quantize_type", "kl", "channel_wise_abs_max"),
        ("quantizable_op_type", ["softmax"], "conv2d"),
        ("quantizable_op_type", "conv2d", r"\['conv2d'\]"),
        ("quantizable_op_type", ["mul"], " mul "),
        ("skip_tensor_list", ["ghost"], "^skip_tensor_list: .*'ghost'"),
        ("skip_tensor_list", "first.w", r"\['first\.w'\]"),
    ]:
        with pytest.raises(SettingError, match=said):
            quant_post_dynamic(source, tmp_path / "out", **{name: value})
    assert not (tmp_path / "out").exists()


def test_a_quantized_model_is_not_quantized_again(tmp_path: Path) -> None:
    net = programs.conv_net()
    scale = net.parameter("scale", np.ones(1, np.float32))
    zero_point = net.parameter("zero_point", np.zeros(1, np.int32))
    inputs = {"X": "x", "Scale": scale, "ZeroPoint": zero_point}
    net.op("quantize_linear", inputs, ("Y", "integers"), [-1, 3, 8, 8], {"quant_axis": -1})
    with pytest.raises(UnsupportedError, match=r"/m\.pdmodel: .*'quantize_linear'"):
        quant_post_dynamic(net.save(tmp_path / "in"), tmp_path / "out")


def test_a_failure_leaves_neither_the_model_nor_its_twin(tmp_path: Path) -> None:
    source = programs.conv_net().save(tmp_path / "in")
    (tmp_path / "out" / "test_model" / "model.pdmodel").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"/test_model/model\.pdmodel: "):
        quant_post_dynamic(source, tmp_path / "out", generate_test_model=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["test_model"]
