"""Dynamic mode on weights that ops read in other ways than convolutions and products do.

The quantized model is checked against the float model, in every way that Paddle runs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dynamic_twin
import numpy as np
import paddle
import programs
import pytest
from paddle.base import create_lod_tensor
from paddle_run import execute, predict, relative_error, run

from pyquant import (
    FloatOp,
    QuantizationResult,
    SettingError,
    kernels,
    load_model,
    quant_post_dynamic,
    quant_post_static,
)
from pyquant.program import proto

pytestmark = pytest.mark.any_isa

RUNS = ("plain", "optimized", "unfused", "float", "int8")
STEPS = {"x": programs.random((5, 2, 24), 9)}
SEQUENCE = {"x": programs.random((2, 6, 20), 9)}
ROWS = {"x": programs.random((3, 16), 9)}
WORDS = np.random.default_rng(3).integers(0, 100, (9, 1))
LOD = [[0, 4, 9]]


def reshaped_net(*steps: str, dtype: type = np.float32) -> programs.ProgramBuilder:
    """x[-1,16] times "w" [16,12], which reaches the product through ``steps``."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 16])
    array = programs.random((16, 12), 1).astype(dtype)
    kinds: dict[str, tuple[list[int], dict[str, Any]]] = {
        "assign": ([16, 12], {}),
        "cast": ([16, 12], {"in_dtype": proto.paddle_dtype(array.dtype), "out_dtype": 5}),
        "unsqueeze2": ([16, 1, 12], {"axes": [1]}),
        "squeeze2": ([16, 12], {"axes": [1]}),
        "reshape2": ([16, 12], {"shape": [16, 12]}),
        "transpose2": ([16, 12], {"axis": [1, 0]}),
    }
    if steps[0] == "transpose2":
        array = np.ascontiguousarray(array.T)
    elif steps[0] == "reshape2":
        array = array.reshape(4, 4, 12)
    name = net.parameter("w", array)
    for index, step in enumerate(steps):
        dims, attributes = kinds[step]
        name = net.op(step, {"X": name}, ("Out", f"w{index}"), dims, attributes)
    net.fetch(net.op("matmul_v2", {"X": x, "Y": name}, ("Out", "y"), [-1, 12], programs.STRAIGHT))
    return net


def conv1d_net(op_type: str = "conv2d") -> programs.ProgramBuilder:
    """x[-1,6,20] through what Paddle makes of Conv1D or Conv1DTranspose: "w" [.., .., 3]."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 6, 20])
    outputs, inputs = (8, 6) if op_type == "conv2d" else (6, 8)
    shape = [6, 1, 3] if op_type == "depthwise_conv2d" else [outputs, inputs, 3]
    w = net.parameter("w", programs.random(tuple(shape), 1))
    if op_type != "conv2d_transpose":
        w = net.op("assign", {"X": w}, ("Out", "w1"), shape)
    on_axis = {"axes": [-2]}
    w = net.op("unsqueeze2", {"X": w}, ("Out", "w2"), [*shape[:2], 1, 3], on_axis)
    image = net.op("unsqueeze2", {"X": x}, ("Out", "image"), [-1, 6, 1, 20], on_axis)
    channels = 6 if op_type == "depthwise_conv2d" else 8
    attributes = {**programs.CONV, "paddings": [0, 1]}
    if op_type == "depthwise_conv2d":
        attributes["groups"] = 6
    y = net.op(
        op_type, {"Input": image, "Filter": w}, ("Output", "y"), [-1, channels, 1, 20], attributes
    )
    net.fetch(net.op("squeeze2", {"X": y}, ("Out", "z"), [-1, channels, 20], on_axis))
    return net


def mask_net(bad: float = -np.inf) -> programs.ProgramBuilder:
    """Attention weights: x[-1,8,16] times "dense" [16,8], plus rows of "mask" [8,8], softmax."""
    net = programs.ProgramBuilder()
    positions, x = net.feed("positions", [-1, 8], programs.INT64), net.feed("x", [-1, 8, 16])
    mask = np.triu(np.full((8, 8), bad, np.float32), 1)
    # Parameters are written in the order of their names: this one between the others.
    table = net.parameter("mask", mask)
    dense = net.parameter("dense", programs.random((16, 8), 1) * np.float32(0.3))
    last = net.parameter("zz", programs.random((8, 8), 2))
    rows = net.op("lookup_table_v2", {"Ids": positions, "W": table}, ("Out", "rows"), [-1, 8, 8])
    y = net.op("matmul_v2", {"X": x, "Y": dense}, ("Out", "y"), [-1, 8, 8], programs.STRAIGHT)
    total = net.op("elementwise_add", {"X": y, "Y": rows}, ("Out", "t"), [-1, 8, 8], {"axis": -1})
    weights = net.op("softmax", {"X": total}, ("Out", "s"), [-1, 8, 8], {"axis": -1})
    net.fetch(
        net.op("matmul_v2", {"X": weights, "Y": last}, ("Out", "z"), [-1, 8, 8], programs.STRAIGHT)
    )
    return net


def positions_net() -> programs.ProgramBuilder:
    """x[-1,128,256] plus "positions", and no op that has a weight."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 128, 256])
    table = net.parameter("positions", programs.random((1, 128, 256), 1))
    added = {"X": x, "Y": table}
    net.fetch(net.op("elementwise_add", added, ("Out", "y"), [-1, 128, 256], {"axis": -1}))
    return net


def mixed_net() -> programs.ProgramBuilder:
    """x[-1,16] times "w" [8,24] reshaped to [16,12], which mixes the channels."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 16])
    w = net.parameter("w", programs.random((8, 24)))
    mixed = net.op("reshape2", {"X": w}, ("Out", "w2"), [16, 12], {"shape": [16, 12]})
    net.fetch(net.op("matmul_v2", {"X": x, "Y": mixed}, ("Out", "y"), [-1, 12], programs.STRAIGHT))
    return net


def fc_net() -> programs.ProgramBuilder:
    """x[-1,16] through ``fc`` with "w" [16,12] and a bias."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 16])
    w = net.parameter("w", programs.random((16, 12), 1))
    bias = net.parameter("bias", programs.random((12,), 2))
    inputs = {"Input": x, "W": w, "Bias": bias}
    attributes = {"in_num_col_dims": 1, "activation_type": ""}
    net.fetch(net.op("fc", inputs, ("Out", "y"), [-1, 12], attributes))
    return net


def fusion_gru_net() -> programs.ProgramBuilder:
    """x[-1,16] of a sequence through ``fusion_gru`` of 8 units."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 16])
    of_x = net.parameter("wx", programs.random((16, 24), 1))
    of_h = net.parameter("wh", programs.random((8, 24), 2))
    others = ("ReorderedH0", "XX", "BatchedInput", "BatchedOut")
    net.add_op(
        "fusion_gru",
        {"X": [x], "WeightX": [of_x], "WeightH": [of_h]},
        {**{slot: {slot: [-1, 8]} for slot in others}, "Hidden": {"h": [-1, 8]}},
        {
            **{"activation": "tanh", "gate_activation": "sigmoid", "is_reverse": False},
            **{"use_seq": True, "origin_mode": False},
        },
    )
    net.fetch("h")
    return net


MASKED = {
    "positions": np.tile(np.arange(8), (2, 1)),
    "x": programs.random((2, 8, 16), 9),
}
NETS: dict[str, tuple[Callable[[], programs.ProgramBuilder], dict[str, Any]]] = {
    "rnn LSTM": (programs.rnn_net, STEPS),
    "rnn LSTM of two layers, both ways": (lambda: programs.rnn_net("LSTM", 2, 2), STEPS),
    "rnn GRU both ways": (lambda: programs.rnn_net("GRU", 1, 2), STEPS),
    "rnn simple": (lambda: programs.rnn_net("RNN_TANH"), STEPS),
    "conv1d": (conv1d_net, SEQUENCE),
    "depthwise conv1d": (lambda: conv1d_net("depthwise_conv2d"), SEQUENCE),
    "conv1d_transpose": (lambda: conv1d_net("conv2d_transpose"), SEQUENCE),
    "transpose2": (lambda: reshaped_net("transpose2"), ROWS),
    "reshape2": (lambda: reshaped_net("unsqueeze2", "squeeze2", "reshape2"), ROWS),
    "cast": (lambda: reshaped_net("cast", dtype=np.float16), ROWS),
    "assign": (lambda: reshaped_net("assign"), ROWS),
    "mask": (mask_net, MASKED),
    "fc": (fc_net, ROWS),
    "positions": (positions_net, {"x": programs.random((2, 128, 256), 9)}),
    "channels along no axis": (mixed_net, ROWS),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["channel_wise_abs_max", "abs_max"])
def test_every_run_is_close_to_float(tmp_path: Path, net: str, bits: int, kind: str) -> None:
    build, feed = NETS[net]
    source, made, twin_path = dynamic_twin.quantized(build, tmp_path, bits, kind)
    (float_output,) = run(source, feed)
    bound = {8: 0.01 if kind == "channel_wise_abs_max" else 0.02, 16: 1e-4}[bits]
    if net == "positions":
        bound = 1e-4  # as int16 always
    (twin,) = run(twin_path, feed)
    executed = execute(made, made.with_suffix(".pdiparams"), feed)[0]
    np.testing.assert_array_equal(run(made, feed)[0], executed)
    if net == "cast":
        # The integers become float16 again; Paddle 2.6 casts to it by cutting bits off.
        bound += 2**-10
        assert relative_error(executed, twin) < 2**-10
    else:
        np.testing.assert_array_equal(executed, twin)
    assert 0 < relative_error(twin, float_output) < bound
    for how in RUNS:
        for path in (made, twin_path):
            assert relative_error(run(path, feed, how)[0], float_output) < bound, (how, path)


@pytest.mark.parametrize("op_type", ["lstm", "gru"])
@pytest.mark.parametrize("bits", [8, 16])
def test_lookup_table_and_older_recurrent_ops(tmp_path: Path, op_type: str, bits: int) -> None:
    source = programs.tagger_net(op_type).save(tmp_path / "in")
    result = quant_post_dynamic(
        source, tmp_path / "out", weight_bits=bits, generate_test_model=True
    )
    assert {(t.name, t.op_types, t.axis) for t in result.quantized} == {
        ("table", ("lookup_table",), 0),
        ("dense", ("mul",), 1),
        ("w", (op_type,), 1),
    }
    assert result.kept_float == []
    paths = [source / "m.pdmodel", result.model_path, result.test_model_path]
    float_output, *others = (
        predict(path, path.with_suffix(".pdiparams"), {"ids": WORDS}, lod=LOD)[0] for path in paths
    )
    np.testing.assert_array_equal(others[0], others[1])
    bound = 0.015 if bits == 8 else 1e-4
    assert 0 < relative_error(others[0], float_output) < bound
    for how in RUNS:
        for path in paths[1:]:
            feed = {"ids": WORDS}
            output = predict(path, path.with_suffix(".pdiparams"), feed, how, LOD)[0]
            assert relative_error(output, float_output) < bound, (how, path)
    words = create_lod_tensor(WORDS, [[4, 5]], paddle.CPUPlace())
    executed = execute(result.model_path, result.params_path, {"ids": words})[0]
    np.testing.assert_array_equal(executed, others[0])


def test_all_matrices_of_rnn_are_quantized_by_rows_and_no_bias(tmp_path: Path) -> None:
    net = programs.rnn_net("LSTM", 2, 2)
    result = quant_post_dynamic(net.save(tmp_path / "in"), tmp_path / "out")
    assert {(t.name, t.op_types, t.axis) for t in result.quantized} == {
        (f"cell{cell}.w{index}", ("rnn",), 0) for cell in range(4) for index in range(2)
    }
    assert result.kept_float == []
    parameters = load_model(result.model_path).parameters
    assert all(parameters[f"cell{cell}.b0"].dtype == np.float32 for cell in range(4))


def test_a_skipped_rnn_stays_float_whole(tmp_path: Path) -> None:
    source = programs.rnn_net().save(tmp_path / "in")
    with pytest.raises(SettingError, match=r"'cell0\.w0' .*skip_tensor_list"):
        quant_post_dynamic(source, tmp_path / "out", skip_tensor_list=["cell0.w0"])
    with pytest.raises(SettingError, match=" conv2d "):
        quant_post_dynamic(source, tmp_path / "out", quantizable_op_type=["conv2d"])


def size(result: QuantizationResult) -> float:
    return result.bytes_after / result.bytes_before


@pytest.mark.parametrize(("bits", "share"), [(8, 0.29), (16, 0.53)])
def test_an_lstm_shrinks_to_a_quarter_and_to_a_half(
    tmp_path: Path, bits: int, share: float
) -> None:
    source = programs.rnn_net("LSTM", 2, 2, hidden=128).save(tmp_path / "in")
    assert size(quant_post_dynamic(source, tmp_path / "out", weight_bits=bits)) < share


@pytest.mark.parametrize(
    ("net", "axis"),
    [
        (conv1d_net(), 0),
        (conv1d_net("depthwise_conv2d"), 0),
        (conv1d_net("conv2d_transpose"), 1),
        (reshaped_net("transpose2"), 0),
        (reshaped_net("transpose2", "unsqueeze2", "squeeze2", "reshape2"), 0),
        (reshaped_net("reshape2"), 2),
    ],
)
def test_channels_of_reshaped_weights(
    tmp_path: Path, net: programs.ProgramBuilder, axis: int
) -> None:
    result = quant_post_dynamic(net.save(tmp_path / "in"), tmp_path / "out")
    (tensor,) = result.quantized
    assert (tensor.name, tensor.axis) == ("w", axis)
    weight = net.parameters["w"]
    others = tuple(index for index in range(weight.ndim) if index != axis)
    np.testing.assert_array_equal(tensor.threshold, np.abs(weight).max(axis=others))
    stored = load_model(result.model_path).parameters["w"]
    assert (stored.dtype, stored.shape) == (np.int8, weight.shape)


def test_what_else_reads_a_reshaped_weight_keeps_it_float(tmp_path: Path) -> None:
    net = conv1d_net()
    everything = {"dim": [0], "keep_dim": False, "reduce_all": True}
    net.fetch(net.op("reduce_sum", {"X": "w2"}, ("Out", "total"), [1], everything))
    with pytest.raises(SettingError, match="Filter"):
        quant_post_dynamic(net.save(tmp_path / "in"), tmp_path / "out")
    net = conv1d_net()
    net.fetch(net.op("reduce_sum", {"X": "w"}, ("Out", "total"), [1], everything))
    source = net.save(tmp_path / "other")
    result = quant_post_dynamic(source, tmp_path / "out")
    before, after = run(source, SEQUENCE), run(result.model_path, SEQUENCE)
    np.testing.assert_array_equal(after[1], before[1])
    assert 0 < relative_error(after[0], before[0]) < 0.01


def test_static_mode_folds_the_filter_of_conv1d_or_says_why_not(tmp_path: Path) -> None:
    source = conv1d_net().save(tmp_path / "in")
    result = quant_post_static(
        None, source, tmp_path / "out", data_loader=[SEQUENCE], deploy_backend="OneDNN"
    )
    assert [t.op_types for t in result.quantized if t.kind == "weight"] == [("conv2d",)]
    output = run(result.model_path, SEQUENCE, "float")[0]
    assert relative_error(output, run(source, SEQUENCE)[0]) < 0.03
    with pytest.raises(SettingError, match="'pyquant fold'"):
        quant_post_static(
            None, source, tmp_path / "out", data_loader=[SEQUENCE], optimize_model=False
        )


@pytest.mark.parametrize("bad", [-np.inf, np.inf, np.nan])
def test_a_weight_that_is_not_finite_stays_float(tmp_path: Path, bad: float) -> None:
    source = mask_net(bad).save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", generate_test_model=True)
    assert [tensor.name for tensor in result.quantized] == ["dense", "zz"]
    (kept,) = result.kept_float
    assert re.search("'mask' .*NaN.* 7 of 8", kept.reason)
    assert kept == FloatOp("lookup_table_v2", "rows", kept.reason, "mask", 256)
    assert result.test_model_path is not None
    for path in (result.model_path, result.test_model_path):
        found = {file.name for file in path.parent.iterdir()} - {"pyquant.json"}
        assert found == {"model.pdiparams", "model.pdmodel"}
        stored = load_model(path).parameters
        np.testing.assert_array_equal(stored["mask"], load_model(source).parameters["mask"])
        assert "mask@scale" not in stored
    types = {name: array.dtype for name, array in load_model(result.model_path).parameters.items()}
    assert types["dense"] == types["zz"] == np.int8


def test_weights_are_read_for_their_magnitude_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    magnitude = kernels.channel_abs_max

    def counted(values: Any, *arguments: Any, **options: Any) -> Any:
        shapes.append(values.shape)
        return magnitude(values, *arguments, **options)

    monkeypatch.setattr(kernels, "channel_abs_max", counted)
    for net in (programs.conv_net(), mask_net()):
        shapes.clear()
        quant_post_dynamic(net.save(tmp_path / "in"), tmp_path / "out")
        assert sorted(shapes) == sorted(array.shape for array in net.parameters.values())


def test_a_model_of_no_finite_weight_is_refused(tmp_path: Path) -> None:
    net = programs.linear_net("mul")
    net.parameters["w"][3] = np.nan
    with pytest.raises(SettingError, match=r"'w' .*NaN.* 32 of 32"):
        quant_post_dynamic(net.save(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("backend", [None, "OneDNN", "TensorRT", "ARM"])
@pytest.mark.parametrize("options", [{}, {"bias_correction": False, "optimize_model": False}])
def test_static_mode_keeps_a_weight_that_is_not_finite_float(
    tmp_path: Path, backend: str | None, options: dict[str, Any]
) -> None:
    plain = {"trans_x": False, "trans_y": False}
    net = programs.Net([2, 16]).matmul(16, **plain).act("relu").matmul(16, **plain).end()
    net.parameters["w2"][3, 5] = -np.inf
    source = net.save(tmp_path / "in")
    feed = {"x": np.abs(programs.random((8, 16), 9))}
    result = quant_post_static(
        None, source, tmp_path / "out", data_loader=[feed], deploy_backend=backend, **options
    )
    assert [t.name for t in result.quantized if t.kind == "weight"] == ["w1"]
    (kept,) = result.kept_float
    assert re.search("'w2' .*NaN.* 1 of 16", kept.reason)
    stored = load_model(result.model_path).parameters["w2"]
    np.testing.assert_array_equal(stored, net.parameters["w2"])


def large_net() -> programs.ProgramBuilder:
    """x[-1,128,256] + "positions", times "w", which a sum reads too; "unread" is read by none."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 128, 256])
    positions = net.parameter("positions", programs.random((128, 256), 1))
    small = net.parameter("small", programs.random((256,), 2))
    w = net.parameter("w", programs.random((256, 256), 3))
    net.parameter("unread", programs.random((128, 128), 4))
    dims = [-1, 128, 256]
    for index, name in enumerate((positions, small)):
        added = {"X": x, "Y": name}
        x = net.op("elementwise_add", added, ("Out", f"a{index}"), dims, {"axis": -1})
    net.fetch(net.op("matmul_v2", {"X": x, "Y": w}, ("Out", "y"), dims, programs.STRAIGHT))
    everything = {"dim": [0], "keep_dim": False, "reduce_all": True}
    net.fetch(net.op("reduce_sum", {"X": w}, ("Out", "total"), [1], everything))
    return net


def test_all_large_parameters_that_ops_read_become_integers(tmp_path: Path) -> None:
    source = large_net().save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out")
    assert {(t.name, t.op_types, t.bits, t.axis) for t in result.quantized} == {
        ("w", ("matmul_v2", "reduce_sum"), 8, 1),
        ("positions", ("elementwise_add",), 16, 0),
    }
    (unread,) = result.kept_float
    assert unread == FloatOp("parameter", "unread", unread.reason, "unread", 65536)
    types = {name: array.dtype for name, array in load_model(result.model_path).parameters.items()}
    assert (types["w"], types["positions"], types["small"]) == (np.int8, np.int16, np.float32)
    feed = {"x": programs.random((2, 128, 256), 9)}
    for how in RUNS:
        before, after = run(source, feed, how), run(result.model_path, feed, how)
        for expected, actual in zip(before, after):
            assert relative_error(actual, expected) < 0.01


def test_large_parameters_of_other_op_types_are_told_with_their_bytes(tmp_path: Path) -> None:
    source = large_net().save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", quantizable_op_type=["matmul_v2"])
    added, unread, _ = result.kept_float
    reason = added.reason
    assert "quantizable_op_type" in reason
    assert result.kept_float == [
        FloatOp("elementwise_add", "a0", reason, "positions", 131072),
        FloatOp("parameter", "unread", unread.reason, "unread", 65536),
        FloatOp("reduce_sum", "total", reason, "w", 262144),
    ]
    (line,) = (line for line in str(result).splitlines() if "'a0'" in line)
    assert re.search(f"elementwise_add .*131,072.*{reason}", line)
    written = load_model(result.model_path).parameters
    told = {op.parameter: op.bytes for op in result.kept_float}
    stored = {n: a.nbytes for n, a in written.items() if a.dtype == np.float32 and a.nbytes > 4096}
    assert told == stored


@pytest.mark.parametrize("greatest", [1e9, np.finfo(np.float32).max])
def test_a_table_that_int16_cannot_hold_stays_float(tmp_path: Path, greatest: float) -> None:
    net = positions_net()
    table = net.parameters["positions"]
    table[:, :, ::2] = 0
    table[:, ::2] = np.where(table[:, ::2] < 0, -greatest, 0)  # a mask alone is exact
    source = net.save(tmp_path / "mask")
    feed = {"x": np.zeros((1, 128, 256), np.float32)}
    result = quant_post_dynamic(source, tmp_path / "out")
    (output,) = run(result.model_path, feed)
    assert np.isfinite(output).all()
    np.testing.assert_allclose(output[0, ::2], table[0, ::2], rtol=1e-6)
    net = positions_net()
    net.parameters["positions"][:, :, 0] = -greatest
    with pytest.raises(SettingError, match=r"100% of the values of 'positions' .*int16"):
        quant_post_dynamic(net.save(tmp_path / "mixed"), tmp_path / "out")


def test_a_skipped_or_written_parameter_stays_float(tmp_path: Path) -> None:
    source = positions_net().save(tmp_path / "in")
    for skipped in ("positions", "y"):
        with pytest.raises(SettingError, match="has a weight"):
            quant_post_dynamic(source, tmp_path / "out", skip_tensor_list=[skipped])
    net = positions_net()
    net.op("scale", {"X": "y"}, ("Out", "unused"), [-1, 128, 256], {"scale": 2.0})
    net.block.ops[-1].outputs[0].arguments[:] = ["positions"]
    with pytest.raises(SettingError, match="has a weight"):
        quant_post_dynamic(net.save(tmp_path / "written"), tmp_path / "out")


@pytest.mark.parametrize("bits", [8, 16])
def test_both_matrices_of_a_fused_gru(tmp_path: Path, bits: int) -> None:
    source = fusion_gru_net().save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", weight_bits=bits)
    assert {(t.name, t.bits, t.axis) for t in result.quantized} == {
        ("wx", bits, 1),
        ("wh", bits, 1),
    }
    feed = {"x": programs.random((9, 16), 9)}
    bound = {8: 0.01, 16: 1e-4}[bits]
    for how in RUNS:
        before, after = (
            predict(path, path.with_suffix(".pdiparams"), feed, how, LOD)[0]
            for path in (source / "m.pdmodel", result.model_path)
        )
        assert 0 < relative_error(after, before) < bound, how


def test_an_op_that_is_kept_float_has_its_large_weights_and_their_bytes(tmp_path: Path) -> None:
    net = programs.rnn_net(hidden=128)
    w = net.parameter("w", programs.random((128, 64)))
    net.fetch(
        net.op("matmul_v2", {"X": "last.h", "Y": w}, ("Out", "z"), [1, 2, 64], programs.STRAIGHT)
    )
    source = net.save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", skip_tensor_list=["y"])
    (kept,) = result.kept_float
    reason = kept.reason
    assert re.search("'y' .*skip_tensor_list", reason)
    assert kept == FloatOp("rnn", "y", reason, "cell0.w1", 4 * 512 * 128)
    # The other one, of 512 x 24 values, and the biases are not large.
    assert "1 ops kept in float" in str(result)
    (line,) = (line for line in str(result).splitlines() if reason in line)
    assert re.search("rnn 'y' .*262,144", line)


def test_paddle_lite_takes_what_it_can_make_floats_of(tmp_path: Path) -> None:
    source = programs.tagger_net("gru").save(tmp_path / "in")
    for kind in ("channel_wise_abs_max", "abs_max"):
        result = quant_post_dynamic(
            source, tmp_path / "out", lite_format=True, weight_quantize_type=kind
        )
        assert {tensor.name for tensor in result.quantized} == {"table", "dense"}
        assert [op.op_type for op in result.kept_float] == ["gru"]
        assert "conv2d, depthwise_conv2d, mul" in result.kept_float[0].reason
        before, after = load_model(source), load_model(result.model_path)
        assert after.parameters["w"].dtype == np.float32
        for op in after.ops():
            for name in ("table", "dense"):
                scales = op.value(f"{name}_quant_scale")
                if scales is None:
                    continue
                # One for each column, as in PROCESS_FC_DATA of lite/api/light_api.cc.
                made = after.parameters[name] * np.array(scales, np.float32)
                error = np.abs(made - before.parameters[name])
                assert (error <= np.array(scales) * 0.501).all()
                assert len(scales) == before.parameters[name].shape[1]
        types = [op.type for op in after.ops() if op.attr("quantization_type", "")]
        assert types == ["lookup_table", "mul"]


def test_of_ops_that_share_a_weight_the_first_has_paddle_lites_attributes(tmp_path: Path) -> None:
    source = programs.product_net("mul", [-1, 64]).save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", lite_format=True)
    products = [op for op in load_model(result.model_path).ops() if op.type == "mul"]
    assert [bool(op.floats("w_quant_scale")) for op in products] == [True, False]
