"""Dynamic mode with weights in groups, of 8 bits or of 4, which share bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import programs
import pytest
from half_precision import product_behind_a_cast
from paddle_run import execute, relative_error, run

from pyquant import (
    SettingError,
    UnsupportedError,
    compare,
    kernels,
    load_model,
    quant_post_dynamic,
    save_model,
)
from pyquant.program.grouped_weights import Groups, groups_of

pytestmark = pytest.mark.any_isa

RUNS = ("plain", "optimized", "unfused", "float", "int8")
ROWS = {"x": programs.random((2, 16, 64), 9)}
IMAGES = {"x": programs.random((2, 16, 8, 8), 9)}
DATA = Path(__file__).parent / "data"
SMALL, LOOP = DATA / "small.json", DATA / "loop.pdmodel"


def conv_net() -> programs.ProgramBuilder:
    """x[-1,16,8,8] through a convolution with "w" [24,16,3,3]."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 16, 8, 8])
    w = net.parameter("w", programs.random((24, 16, 3, 3)))
    net.fetch(
        net.op(
            "conv2d",
            {"Input": x, "Filter": w},
            ("Output", "y"),
            [-1, 24, 8, 8],
            programs.CONV,
        )
    )
    return net


NETS: dict[str, tuple[Callable[[], programs.ProgramBuilder], dict[str, Any]]] = {
    "matmul_v2": (lambda: programs.linear_net("matmul_v2"), ROWS),
    "matmul_v2 transposed": (lambda: programs.linear_net("matmul_v2", transposed=True), ROWS),
    "conv2d": (conv_net, IMAGES),
    "lookup_table_v2": (programs.embedding_net, {"ids": np.arange(10).reshape(2, 5) * 5}),
    "rnn": (programs.rnn_net, {"x": programs.random((5, 2, 24), 9)}),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("bits", [4, 8])
def test_every_run_computes_with_the_weights_of_the_twin(
    tmp_path: Path, net: str, bits: int
) -> None:
    build, feed = NETS[net]
    source = build().save(tmp_path / "in")
    result = quant_post_dynamic(
        source, tmp_path / "out", weight_bits=bits, group_size=64, generate_test_model=True
    )
    assert {(t.bits, t.group_size is None) for t in result.quantized} == {(bits, False)}
    assert result.test_model_path is not None
    (twin,) = run(result.test_model_path, feed)
    assert 0 < relative_error(twin, run(source, feed)[0]) < {4: 0.12, 8: 0.01}[bits]
    np.testing.assert_array_equal(run(result.model_path, feed)[0], twin)
    np.testing.assert_array_equal(execute(result.model_path, result.params_path, feed)[0], twin)
    for how in RUNS:
        assert relative_error(run(result.model_path, feed, how)[0], twin) < 1e-5, how


@pytest.mark.parametrize("kind", [None, "mse", "channel_wise_abs_max"])
def test_the_file_holds_what_the_kernel_makes(tmp_path: Path, kind: str | None) -> None:
    net = programs.linear_net("matmul_v2")
    source = net.save(tmp_path / "in")
    quant_post_dynamic(source, tmp_path / "out", weight_bits=4, weight_quantize_type=kind)
    stored = load_model(tmp_path / "out/quantized_model").parameters
    (name,) = (name.removesuffix("@scale") for name in stored if name.endswith("@scale"))
    weight = net.parameters[name]
    grouped = weight.reshape(-1, 64, weight.shape[1])
    searches = kind != "channel_wise_abs_max"
    integers, steps = kernels.quantize_groups(grouped, 4, search=searches)
    np.testing.assert_array_equal(stored[name], integers)
    np.testing.assert_array_equal(stored[f"{name}@scale"].ravel(), steps.ravel())


@pytest.mark.parametrize("data_type", ["float16", "bfloat16"])
@pytest.mark.parametrize("bits", [4, 8])
def test_half_precision(tmp_path: Path, data_type: str, bits: int) -> None:
    net = product_behind_a_cast(data_type)
    source = net.save(tmp_path / "in")
    result = quant_post_dynamic(
        source, tmp_path / "out", weight_bits=bits, group_size=64, generate_test_model=True
    )
    assert result.test_model_path is not None
    feed = {"x": programs.random((3, 64), 9)}
    (expected,) = run(source, feed)
    for path in (result.model_path, result.test_model_path):
        assert relative_error(run(path, feed)[0], expected) < {4: 0.12, 8: 0.01}[bits]


@pytest.mark.parametrize("size", [64, 128])
def test_four_bits_take_a_seventh_of_the_file(tmp_path: Path, size: int) -> None:
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 512])
    w = net.parameter("w", programs.random((512, 512)))
    net.fetch(net.op("matmul_v2", {"X": x, "Y": w}, ("Out", "y"), [-1, 512], programs.STRAIGHT))
    result = quant_post_dynamic(
        net.save(tmp_path / "in"), tmp_path / "out", weight_bits=4, group_size=size
    )
    assert result.bytes_after / result.bytes_before < 0.125 + 1 / size + 0.003


def test_how_weights_are_grouped() -> None:
    assert groups_of((192, 96), 1, 64) == Groups(3, 64, 96)
    assert groups_of((96, 192), 0, 64) == Groups(288, 64, 1)
    assert groups_of((96, 200), 0, 64) == Groups(384, 50, 1)
    assert groups_of((24, 16, 3, 3), 0, 128) == Groups(48, 72, 1)
    assert groups_of((5, 192, 96), 2, 64) == Groups(15, 64, 96)
    assert groups_of((5, 96, 192), 1, 64) == Groups(1440, 64, 1)
    assert groups_of((8, 16, 3, 3), 1, 64) is None  # of a transposed convolution: 9 lie together
    assert groups_of((74, 96), 1, 64) is None  # 37 x 2
    assert groups_of((192, 96), -1, 64) is None


def test_weights_that_cannot_be_in_groups_have_eight_bits(tmp_path: Path) -> None:
    source = programs.depthwise_net().save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", weight_bits=4)
    assert {(t.bits, t.group_size) for t in result.quantized} == {(8, None)}


def test_a_weight_in_groups_that_is_not_finite_stays_float(tmp_path: Path) -> None:
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 64])
    names = []
    for index in range(3):
        array = programs.random((64, 64), index)
        names.append(net.parameter(f"w{index}", array))
        if index == 1:
            array[5, 7] = np.nan
        inputs = {"X": x, "Y": names[-1]}
        x = net.op("matmul_v2", inputs, ("Out", f"y{index}"), [-1, 64], programs.STRAIGHT)
    net.fetch(x)
    result = quant_post_dynamic(net.save(tmp_path / "in"), tmp_path / "out", weight_bits=4)
    assert [tensor.name for tensor in result.quantized] == ["w0", "w2"]
    (kept,) = result.kept_float
    assert "'w1' holds NaN" in kept.reason
    stored = load_model(result.model_path).parameters
    np.testing.assert_array_equal(stored["w1"], net.parameters["w1"])


def test_a_shared_weight_stays_for_its_other_reader(tmp_path: Path) -> None:
    net = programs.linear_net("matmul_v2")
    (name,) = (n for n, array in net.parameters.items() if array.ndim == 2)
    everything = {"dim": [0], "keep_dim": False, "reduce_all": True}
    net.fetch(net.op("reduce_sum", {"X": name}, ("Out", "total"), [1], everything))
    source = net.save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", weight_bits=4)
    before, after = run(source, ROWS), run(result.model_path, ROWS)
    np.testing.assert_array_equal(after[1], before[1])
    assert 0 < relative_error(after[0], before[0]) < 0.12


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("is_json", [False, True])
def test_the_result_is_not_quantized_again(tmp_path: Path, bits: int, is_json: bool) -> None:
    source = SMALL if is_json else programs.linear_net("matmul_v2").save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", weight_bits=bits, group_size=32)
    assert any(tensor.group_size for tensor in result.quantized)
    assert (result.model_path.suffix == ".json") == is_json
    with pytest.raises(UnsupportedError, match="integer weights"):
        quant_post_dynamic(result.model_path.parent, tmp_path / "again")


@pytest.mark.parametrize("bits", [4, 8])
def test_json_read_again_equals_the_pdmodel(tmp_path: Path, bits: int) -> None:
    settings = {"weight_bits": bits, "group_size": 32}
    made = quant_post_dynamic(SMALL, tmp_path / "a", **settings)
    other = quant_post_dynamic(SMALL, tmp_path / "b", save_model_filename="m.pdmodel", **settings)
    path = save_model(load_model(made.model_path), tmp_path / "c", "m.pdmodel", "m.pdiparams")[0]
    feed = {"image": programs.random((2, 3, 8, 12), 9)}
    np.testing.assert_array_equal(run(path, feed)[0], run(other.model_path, feed)[0])
    if not paddle.__version__.startswith("2."):
        np.testing.assert_allclose(
            run(made.model_path, feed)[0], run(other.model_path, feed)[0], rtol=1e-5
        )


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("net", ["matmul_v2", "matmul_v2 transposed", "conv2d"])
def test_compare_finds_the_weights(tmp_path: Path, bits: int, net: str) -> None:
    build, feed = NETS[net]
    source = build().save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", weight_bits=bits, group_size=32)
    report = compare(load_model(source), load_model(result.model_path), data_loader=[feed])
    weights = [tensor for tensor in report.tensors if tensor.kind == "weight"]
    assert [(t.name, t.bits) for t in weights] == [(t.name, bits) for t in result.quantized]
    for one, tensor in zip(weights, result.quantized):
        assert one.error is not None
        assert {4: 18, 8: 42}[bits] < one.error.sqnr < {4: 24, 8: 60}[bits]
        assert one.threshold == pytest.approx(tensor.threshold)


def test_bad_groups_are_refused(tmp_path: Path) -> None:
    source = programs.linear_net("matmul_v2").save(tmp_path / "in")
    for settings, said in (
        ({"group_size": 48}, "group_size: 48 .*32, 64, 128, 256"),
        ({"group_size": 64, "weight_bits": 16}, "weight_bits: .*not 16"),
        ({"weight_bits": 4, "lite_format": True}, "lite_format"),
        ({"group_size": 64, "weight_quantize_type": "abs_max"}, "'abs_max'"),
        ({"weight_quantize_type": "mse"}, "group_size"),
    ):
        with pytest.raises(SettingError, match=said):
            quant_post_dynamic(source, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bits", [4, 8])
def test_a_weight_that_a_loop_reads(tmp_path: Path, bits: int) -> None:
    """The model was exported by Paddle 2.6.2: three products with a weight, in a ``while``."""
    settings = {"weight_bits": bits, "group_size": 32}
    result = quant_post_dynamic(LOOP, tmp_path / "out", generate_test_model=True, **settings)
    assert [tensor.name for tensor in result.quantized] == ["w"]
    assert result.kept_float == []
    assert load_model(result.model_path).parameters["w"].dtype == np.int8
    assert result.test_model_path is not None
    feed = {"x": programs.random((2, 32), 9)}
    (twin,) = run(result.test_model_path, feed)
    assert 0 < relative_error(twin, run(LOOP, feed)[0]) < {4: 0.3, 8: 0.02}[bits]
    np.testing.assert_array_equal(execute(result.model_path, result.params_path, feed)[0], twin)
    for how in RUNS[:-1]:
        assert relative_error(run(result.model_path, feed, how)[0], twin) < 1e-5, how
