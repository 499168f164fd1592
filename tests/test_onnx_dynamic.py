"""Dynamic mode that writes ONNX: ONNX Runtime computes what Paddle does with the same integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import programs
import pytest
from half_precision import product_behind_a_cast
from onnx_run import check_near, runtime_nodes
from paddle_run import relative_error, run

from pyquant import SettingError, quant_post_dynamic
from pyquant.cli import main
from pyquant.program.onnx_model import export

pytestmark = pytest.mark.any_isa

ROWS = {"x": programs.random((2, 16, 64), 9)}
IMAGES = {"x": programs.random((2, 3, 8, 8), 9)}
NETS: dict[str, tuple[Callable[[], programs.ProgramBuilder], dict[str, Any]]] = {
    "conv2d": (programs.conv_net, IMAGES),
    "depthwise_conv2d": (programs.depthwise_net, {"x": programs.random((2, 6, 8, 8), 9)}),
    "conv2d_transpose": (programs.transposed_conv_net, IMAGES),
    "matmul_v2": (lambda: programs.linear_net("matmul_v2"), ROWS),
    "matmul_v2 transposed": (lambda: programs.linear_net("matmul_v2", transposed=True), ROWS),
    "lookup_table_v2": (programs.embedding_net, {"ids": np.arange(10).reshape(2, 5) * 5}),
    "rnn": (programs.rnn_net, {"x": programs.random((5, 2, 24), 9)}),
}
SETTINGS: list[dict[str, Any]] = [
    {"weight_bits": 8},
    {"weight_bits": 8, "weight_quantize_type": "abs_max"},
    {"weight_bits": 16},
    {"weight_bits": 8, "group_size": 32},
    {"weight_bits": 4, "group_size": 64},
]


def run_dequantized(path: Path, feed: dict[str, Any]) -> list[Any]:
    """Run a checked file whose weights become float when it is loaded, as in Paddle."""
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(str(path), options).run(None, feed)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_it_computes_what_paddle_computes(
    tmp_path: Path, net: str, settings: dict[str, Any]
) -> None:
    build, feed = NETS[net]
    source = build().save(tmp_path / "in")
    of_paddle = quant_post_dynamic(source, tmp_path / "paddle", **settings)
    made = quant_post_dynamic(
        source, tmp_path / "out", save_model_filename="m.onnx", generate_test_model=True, **settings
    )
    assert made.model_path == tmp_path / "out/quantized_model/m.onnx"
    assert (made.params_path, made.target) == (None, "ONNX")
    assert made.test_model_path is not None
    for path in (made.model_path, made.test_model_path):
        for one, other in zip(run_dequantized(path, feed), run(of_paddle.model_path, feed)):
            check_near(one, other)
    described = [[(t.name, t.bits, t.group_size) for t in r.quantized] for r in (made, of_paddle)]
    assert described[0] == described[1]


@pytest.mark.parametrize(("bits", "least"), [(8, 3.9), (4, 6.7)])
def test_integers_take_their_bits(tmp_path: Path, bits: int, least: float) -> None:
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 512])
    w = net.parameter("w", programs.random((512, 512)))
    net.fetch(net.op("matmul_v2", {"X": x, "Y": w}, ("Out", "y"), [-1, 512], programs.STRAIGHT))
    result = quant_post_dynamic(net.save(tmp_path / "in"), tmp_path / "m.onnx", weight_bits=bits)
    assert result.bytes_before / result.bytes_after > least
    graph = onnx.load(result.model_path).graph
    assert [node.op_type for node in graph.node] == ["DequantizeLinear", "MatMul"]
    assert Counter(runtime_nodes(result.model_path, tmp_path)) == {"MatMulNBits": 1}


@pytest.mark.parametrize("data_type", ["float16", "bfloat16"])
@pytest.mark.parametrize("bits", [4, 8])
def test_half_precision(tmp_path: Path, data_type: str, bits: int) -> None:
    net = product_behind_a_cast(data_type)
    source, feed = net.save(tmp_path / "in"), {"x": programs.random((3, 64), 9)}
    of_paddle = quant_post_dynamic(source, tmp_path / "paddle", weight_bits=bits)
    made = quant_post_dynamic(source, tmp_path / "m.onnx", weight_bits=bits)
    (actual,), (expected,) = run_dequantized(made.model_path, feed), run(of_paddle.model_path, feed)
    # Paddle 2.6.2 does not round the weight as its ops say.
    assert relative_error(actual, expected) < (1e-3 if data_type == "float16" else 5e-3)


def test_other_readers_of_a_weight_read_floats(tmp_path: Path) -> None:
    feed = {name: programs.random((1, 3, 8, 8), 1) for name in ("left", "right")}
    source = programs.shared_weight_net().save(tmp_path / "in")
    of_paddle = quant_post_dynamic(source, tmp_path / "paddle")
    made = quant_post_dynamic(source, tmp_path / "m.onnx")
    for one, other in zip(run_dequantized(made.model_path, feed), run(of_paddle.model_path, feed)):
        check_near(one.reshape(-1), other.reshape(-1))  # Paddle's total has no axis


def test_large_models_have_a_second_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = programs.linear_net("matmul_v2").save(tmp_path / "in")
    whole = quant_post_dynamic(source, tmp_path / "whole.onnx", weight_bits=4)
    monkeypatch.setattr(export, "LARGEST_FILE", 100)
    parts = quant_post_dynamic(source, tmp_path / "out/m.onnx", weight_bits=4)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["m.onnx", "m.onnx.data", "pyquant.json"]
    for one, other in zip(*(run_dequantized(r.model_path, ROWS) for r in (whole, parts))):
        np.testing.assert_array_equal(one, other)


def test_a_weight_that_is_not_finite_stays_float(tmp_path: Path) -> None:
    net = programs.linear_net("matmul_v2")
    (name,) = (n for n, array in net.parameters.items() if array.ndim == 2)
    net.parameters[name][5, 7] = np.nan
    more = net.parameter("more", programs.random((64, 64)))
    y = net.op("matmul_v2", {"X": "x", "Y": more}, ("Out", "z"), [-1, 16, 64], programs.STRAIGHT)
    net.fetch(y)
    result = quant_post_dynamic(net.save(tmp_path / "in"), tmp_path / "m.onnx", weight_bits=4)
    assert [tensor.name for tensor in result.quantized] == ["more"]
    assert "holds NaN" in result.kept_float[0].reason
    assert np.isfinite(run_dequantized(result.model_path, ROWS)[1]).all()


def test_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out" / "m.onnx"
    assert main(["dynamic", str(source), "-o", str(path)]) == 0
    assert f'InferenceSession("{path}")' in capsys.readouterr().out
    assert onnx.load(path).opset_import[0].version == 21


def test_names_and_forms_that_contradict_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"'.*m.onnx' names the file already"):
        quant_post_dynamic(source, tmp_path / "m.onnx", save_model_filename="n.onnx")
    with pytest.raises(SettingError, match=r"Paddle-Lite reads \.pdmodel alone"):
        quant_post_dynamic(source, tmp_path / "m.onnx", lite_format=True)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "in"]
