"""Static mode on small programs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from paddle_run import execute, observe, predict, relative_error, run
from processors import QDQ, needs_vnni
from static_runs import model_bytes

from pyquant import (
    ActivationError,
    CalibrationDataError,
    ModelFileError,
    OutputError,
    SettingError,
    UnsupportedError,
    calibrate,
    load_model,
    quant_post,
    quant_post_dynamic,
    quant_post_static,
)
from pyquant.calibration.thresholds import ALGORITHMS
from pyquant.cli import main
from pyquant.program import proto
from pyquant.program.op import make_op, ops_of
from pyquant.program.ranges import Range
from pyquant.program.targets.choices import Choices
from pyquant.program.targets.profiles import target_of
from pyquant.program.targets.qdq import QdqPlan
from pyquant.program.targets.reads import Read
from pyquant.static_mode import plan as static_plan

IMAGES = programs.random((12, 3, 8, 8), 9)
BATCHES = [IMAGES[:5], IMAGES[5:6], IMAGES[6:]]


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("kind", ["channel_wise_abs_max", "abs_max"])
def test_the_int8_run_is_the_simulation_and_near_float(
    tmp_path: Path, source: Path, algo: str, kind: str
) -> None:
    needs_vnni()
    result = quant_post_static(
        None,
        source,
        tmp_path / "out",
        data_loader=BATCHES,
        algo=algo,
        weight_quantize_type=kind,
        **QDQ,
    )
    feed = {"x": IMAGES}
    expected = run(source, feed)[0]
    simulated = run(result.model_path, feed)[0]
    executed = execute(result.model_path, result.params_path, feed)[0]
    int8 = run(result.model_path, feed, "int8")[0]
    np.testing.assert_array_equal(simulated, executed)
    # KL clips so few values, since they leave its histogram sparse; avg always clips.
    assert relative_error(simulated, expected) < (0.2 if algo in ("KL", "avg") else 0.06)
    # oneDNN rounds the dequantized weights of convolutions again, per channel even if the file has
    # only one scale, and a last bit decides how the next activation is rounded.
    assert relative_error(int8, simulated) < (0.02 if kind == "channel_wise_abs_max" else 0.03)


def test_thresholds_are_those_of_the_data(tmp_path: Path, source: Path) -> None:
    given: dict[str, Any] = {"data_loader": BATCHES, "verify": False}
    found = quant_post_static(None, source, tmp_path / "out", algo="abs_max", **given).thresholds()
    assert set(found) == {"x", "b", "f"}
    means = quant_post_static(None, source, tmp_path / "avg", algo="avg", **given).thresholds()
    files = source / "m.pdmodel", source / "m.pdiparams"
    seen = observe(*files, {"x": IMAGES}, ["b", "f"])[1]
    for name, values in {"x": IMAGES, **seen}.items():
        largest = np.abs(values).reshape(12, -1).max(axis=1).astype(np.float64)
        # Calibration sees computed tensors as oneDNN's kernels compute them.
        error = 1e-12 if name == "x" else 1e-5
        assert found[name] == pytest.approx(largest.max(), rel=error)
        assert means[name] == pytest.approx(largest.mean(), rel=error)


def test_the_files_do_not_depend_on_how_the_data_is_split(tmp_path: Path, source: Path) -> None:
    splits = [[IMAGES], BATCHES, [IMAGES[i : i + 1] for i in reversed(range(12))]]
    for algo in ALGORITHMS:
        written = []
        for number, batches in enumerate(splits):
            out = tmp_path / f"{algo}{number}"
            given: dict[str, Any] = {"data_loader": batches, "algo": algo}
            quant_post_static(None, source, out, **given, verify=False)
            written.append(model_bytes(out))
        assert written[0] == written[1] == written[2]


@pytest.mark.parametrize(
    ("argument", "data"),
    [
        ("data_loader", [{"x": IMAGES}]),
        ("data_loader", [(IMAGES,)]),
        ("data_loader", lambda: iter([[IMAGES]])),
        ("data_loader", [[{"x": IMAGES}]]),
        ("batch_generator", lambda: ((batch,) for batch in BATCHES)),
        ("sample_generator", lambda: ((image,) for image in IMAGES)),
        ("sample_generator", list(IMAGES)),
    ],
)
def test_data_in_any_form_gives_the_same(
    tmp_path: Path, source: Path, argument: str, data: Any
) -> None:
    result = quant_post_static(
        None, source, tmp_path / "out", algo="abs_max", batch_size=5, **{argument: data}
    )
    assert result.thresholds()["x"] == np.abs(IMAGES).max()


def test_a_paddle_data_loader(tmp_path: Path, source: Path) -> None:
    import paddle

    class Images(paddle.io.Dataset):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Any:
            return IMAGES[index]

        def __len__(self) -> int:
            return len(IMAGES)

    paddle.disable_static()
    loader = paddle.io.DataLoader(Images(), batch_size=4)
    result = quant_post_static(None, source, tmp_path / "out", data_loader=loader, algo="abs_max")
    assert result.thresholds()["x"] == np.abs(IMAGES).max()


def test_the_old_name_and_batch_nums(tmp_path: Path, source: Path) -> None:
    seen = []

    def reader() -> Iterator[Any]:
        for number, image in enumerate(IMAGES):
            seen.append(number)
            yield (image,)

    result = quant_post(
        executor=object(),
        model_dir=str(source),
        quantize_model_path=str(tmp_path / "out"),
        sample_generator=reader,
        model_filename="m.pdmodel",
        params_filename="m.pdiparams",
        batch_nums=3,
        algo="abs_max",
    )
    assert result.thresholds()["x"] == np.abs(IMAGES[:3]).max()
    assert len(seen) <= 4
    assert any(note.startswith("executor: ") for note in result.notes)
    assert result.model_path == tmp_path / "out" / "model.pdmodel"
    assert result.params_path == tmp_path / "out" / "model.pdiparams"


@pytest.mark.parametrize("model_filename", ["__model__", "m.pdmodel"])
def test_separate_parameter_files(tmp_path: Path, model_filename: str) -> None:
    source = programs.conv_net().save(tmp_path / "in", model_filename, None)
    result = quant_post_static(
        None,
        source,
        tmp_path / "out",
        data_loader=BATCHES,
        save_model_filename="__model__",
        save_params_filename=None,
    )
    assert result.params_path is None
    combined = quant_post_static(None, source, tmp_path / "one", data_loader=BATCHES)
    feed = {"x": IMAGES}
    np.testing.assert_array_equal(
        predict(result.model_path, None, feed)[0],
        run(combined.model_path, feed)[0],
    )


def test_several_feeds_and_a_shared_weight(tmp_path: Path) -> None:
    needs_vnni()
    source = programs.shared_weight_net().save(tmp_path / "in")
    feed = {"left": IMAGES[:6], "right": IMAGES[6:] * np.float32(2)}
    for number, batch in enumerate((feed, tuple(feed.values()))):
        result = quant_post_static(
            None, source, tmp_path / f"out{number}", data_loader=[batch], algo="abs_max", **QDQ
        )
        assert result.thresholds() == {name: np.abs(value).max() for name, value in feed.items()}
        assert [t.name for t in result.quantized if t.kind == "weight"] == ["w"]
        total, both = run(result.model_path, feed)
        expected = run(source, feed)
        np.testing.assert_array_equal(total, expected[0])
        assert relative_error(both, expected[1]) < 0.03
        int8 = run(result.model_path, feed, "int8")
        assert relative_error(int8[1], both) < 0.01


@pytest.mark.parametrize("op_type", ["mul", "matmul", "matmul_v2"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["channel_wise_abs_max", "abs_max"])
@pytest.mark.parametrize("dims", [[-1, 64], [-1, 16, 64]])
def test_a_product_runs_as_int8_with_the_scale_of_each_column(
    tmp_path: Path, op_type: str, bias: bool, kind: str, dims: list[int]
) -> None:
    net = programs.product_net(op_type, dims, bias=bias)
    source = net.save(tmp_path / "in")
    feed = {"x": programs.random((4, *dims[1:]), 9)}
    result = quant_post_static(
        None,
        source,
        tmp_path / "out",
        data_loader=[feed],
        algo="abs_max",
        weight_quantize_type=kind,
        deploy_backend="QDQ",
    )
    assert [tensor.kind for tensor in result.quantized] == ["activation", "weight"]
    assert result.kept_float == []
    expected = run(source, feed)
    simulated = run(result.model_path, feed)
    int8 = run(result.model_path, feed, "int8")
    for output in range(2):
        # The columns' magnitudes differ by 10^4: a wrong scale would show in one of them.
        size = column_max(expected[output])
        error = column_max(simulated[output] - expected[output]) / size
        assert error.max() < 0.05 or kind == "abs_max"
        assert error.min() > 1e-4
        assert (column_max(int8[output] - simulated[output]) < 1e-5 * size).all()


def column_max(array: Any) -> Any:
    return np.abs(array).reshape(-1, array.shape[-1]).max(axis=0)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (programs.product_net("matmul", [-1, 16, 64], transposed=True), "fc"),
        (programs.product_net("matmul_v2", [-1, 16, 64], transposed=True), "fc"),
        (programs.product_net("matmul_v2", [-1, 2, 16, 64]), "fc"),
        (programs.transposed_conv_net(), "conv2d_transpose"),
    ],
)
def test_what_the_runtime_cannot_do_keeps_a_float_activation(
    tmp_path: Path, net: programs.ProgramBuilder, reason: str
) -> None:
    source = net.save(tmp_path / "in")
    dims = proto.tensor_desc(net.block.vars[2]).dims
    feed = {"x": programs.random((2, *dims[1:]), 9)}
    result = quant_post_static(None, source, tmp_path / "out", data_loader=[feed], **QDQ)
    assert [tensor.kind for tensor in result.quantized] == ["weight"]
    assert "int16" in result.kept_float[0].reason
    assert reason in result.kept_float[0].reason
    expected = run(source, feed)[0]
    for how in ("plain", "float", "int8"):
        actual = run(result.model_path, feed, how)[0]
        assert 0 < relative_error(actual, expected) < 0.02


def test_a_variable_that_is_written_again_is_quantized_again(tmp_path: Path) -> None:
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 3, 8, 8])
    dims = [-1, 3, 8, 8]
    w = net.parameter("w", programs.random((3, 3, 3, 3)) * np.float32(0.2))
    a = net.op("relu", {"X": x}, ("Out", "a"), dims)
    b = net.op("conv2d", {"Input": a, "Filter": w}, ("Output", "b"), dims, programs.CONV)
    again = make_op("relu", {"X": [b]}, {"Out": [a]}, {})
    net.block.ops.append(again.desc)
    net.fetch(net.op("conv2d", {"Input": a, "Filter": w}, ("Output", "y"), dims, programs.CONV))
    source = net.save(tmp_path / "in")
    result = quant_post_static(None, source, tmp_path / "out", data_loader=[IMAGES], **QDQ)
    expected = run(source, {"x": IMAGES})[0]
    actual = run(result.model_path, {"x": IMAGES})[0]
    assert relative_error(actual, expected) < 0.03


ZEROS = np.zeros((2, 3, 8, 8), np.float32)


def test_an_activation_of_zeros_stays_in_float(tmp_path: Path) -> None:
    net = programs.Net([12, 3, 8, 8]).conv(8)
    net.constant("elementwise_add", np.linspace(-1, 1, 8), 1).act("relu").conv(4)
    source = net.end().save(tmp_path / "in")
    result = quant_post_static(None, source, tmp_path / "out", data_loader=[ZEROS], **QDQ)
    assert len(result.thresholds()) == 1
    (kept,) = result.kept_float
    assert re.search("'x' .*zero", kept.reason)
    for how in ("plain", "int8"):
        assert np.isfinite(run(result.model_path, {"x": IMAGES}, how)[0]).all()


def test_data_of_zeros_alone_are_refused(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "'x' and 2 more, .*zero"
    with pytest.raises(CalibrationDataError, match=said):
        quant_post_static(None, source, tmp_path / "out", data_loader=[ZEROS])
    calibration = calibrate(source, data_loader=[ZEROS])
    with pytest.raises(CalibrationDataError, match=said):
        quant_post_static(None, source, tmp_path / "out", calibration=calibration)
    np.savez(tmp_path / "zeros.npz", x=ZEROS)
    arguments = ["static", str(source), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--no-isolate", "--data", str(tmp_path / "zeros.npz")]) == 1
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([], "^calibration data: "),
        ([{"y": IMAGES}], "batch 0: 'y' .*'x'"),
        ([{}], "batch 0: .*'x'"),
        ([(IMAGES, IMAGES)], r"batch 0: 2 .*\['x'\]"),
        ([IMAGES[:, :2]], r"batch 0: .*'x' .*\[12, 2, 8, 8\].*\[-1, 3, 8, 8\]"),
        ([IMAGES[0]], r"batch 0: .*'x' .*\[3, 8, 8\].*\[-1, 3, 8, 8\]"),
        ([IMAGES, IMAGES.astype(np.float64)], "batch 1: .*'x' .*float64.*astype\\('float32'\\)"),
        ([IMAGES[:0]], r"batch 0: .*'x' .*\[0, 3, 8, 8\]"),
        (5, "^calibration data: int "),
    ],
)
def test_data_that_does_not_fit_is_named(
    tmp_path: Path, source: Path, batches: Any, said: str
) -> None:
    with pytest.raises(CalibrationDataError, match=said):
        quant_post_static(None, source, tmp_path / "out", data_loader=batches)
    assert not (tmp_path / "out").exists()


def test_exactly_one_source_of_data(tmp_path: Path, source: Path) -> None:
    with pytest.raises(CalibrationDataError, match="batch_generator, sample_generator"):
        quant_post_static(None, source, tmp_path / "out")
    with pytest.raises(CalibrationDataError, match=r"sample_generator and data_loader\b"):
        quant_post_static(
            None, source, tmp_path / "out", sample_generator=IMAGES, data_loader=BATCHES
        )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_activations_are_named_and_counted(
    tmp_path: Path, source: Path, value: float
) -> None:
    bad = IMAGES.copy()
    bad[3, 1, 2, 4:7] = value
    with pytest.raises(ActivationError, match=r"'x' .*\b3 NaN .*batch 1"):
        quant_post_static(None, source, tmp_path / "out", data_loader=[IMAGES, bad])
    huge = programs.conv_net()
    huge.parameters["first.w"][:] = 3e38
    made = huge.save(tmp_path / "huge")
    with pytest.raises(ActivationError, match=r"'b' .*\d+ NaN .*batch 0"):
        quant_post_static(None, made, tmp_path / "out", data_loader=[np.abs(IMAGES) * 9])


def ending_in_conv(
    net: programs.ProgramBuilder, source: str, dims: list[int]
) -> programs.ProgramBuilder:
    """Add a convolution of ``source``, of three channels, and let the program end in it."""
    inputs = {"Input": source, "Filter": net.parameter("w", programs.random((2, 3, 3, 3)))}
    net.fetch(net.op("conv2d", inputs, ("Output", "y"), dims, programs.CONV))
    return net


def test_an_empty_activation_is_named(tmp_path: Path) -> None:
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 3, 8, 8])
    cut = {"axes": [0], "starts": [2], "ends": [9], "infer_flags": [1]}
    part = net.op("slice", {"Input": x}, ("Out", "part"), [-1, 3, 8, 8], cut)
    source = ending_in_conv(net, part, [-1, 2, 8, 8]).save(tmp_path / "in")
    quant_post_static(None, source, tmp_path / "good", data_loader=[IMAGES])
    # Paddle 2.6 may fail before the hook sees the tensor.
    said = "'part' .*batch {0}|batch {0}: .*conv2d"
    for number, batches in enumerate([[IMAGES[:2]], [IMAGES, IMAGES[:2]]]):
        with pytest.raises((ActivationError, CalibrationDataError), match=said.format(number)):
            quant_post_static(None, source, tmp_path / "out", data_loader=batches)
    assert not (tmp_path / "out").exists()


def test_what_paddle_cannot_run_is_told_with_its_words(tmp_path: Path) -> None:
    net = programs.conv_net()
    net.block.ops[2].type = "no_such_op"
    with pytest.raises(ModelFileError, match=r"/m\.pdmodel: .*no_such_op"):
        quant_post_static(None, net.save(tmp_path / "in"), tmp_path / "out", data_loader=BATCHES)
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 3, 8, -1])
    to_eight = net.parameter("b", programs.random((1, 3, 8, 8)))
    inputs = {"X": x, "Y": to_eight}
    added = net.op("elementwise_add", inputs, ("Out", "sum"), [-1, 3, 8, -1], {"axis": -1})
    source = ending_in_conv(net, added, [-1, 2, 8, 8]).save(tmp_path / "fixed")
    with pytest.raises(CalibrationDataError, match=r"batch 1: .*\[1, 3, 8, 9\]"):
        quant_post_static(
            None,
            source,
            tmp_path / "out",
            data_loader=[IMAGES, programs.random((1, 3, 8, 9))],
        )


def test_what_is_not_supported_says_so(tmp_path: Path, source: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"^onnx_format=False"):
        quant_post_static(None, source, tmp_path / "out", data_loader=BATCHES, onnx_format=False)
    for name, value in [
        ("algo", "magic"),
        ("hist_percent", 99.99),
        ("max_error", 0.0),
        ("max_error", float("nan")),
        ("weight_quantize_type", "kl"),
        ("batch_nums", 0),
        ("skip_tensor_list", ["ghost"]),
        ("quantizable_op_type", ["lookup_table_v2"]),
    ]:
        with pytest.raises(SettingError):
            quant_post_static(None, source, tmp_path / "out", data_loader=BATCHES, **{name: value})


def test_a_failure_harms_no_earlier_model(tmp_path: Path, source: Path) -> None:
    quant_post_static(None, source, tmp_path / "out", data_loader=BATCHES)
    before = model_bytes(tmp_path / "out")
    with pytest.raises(ActivationError):
        quant_post_static(None, source, tmp_path / "out", data_loader=[IMAGES * np.nan])
    with pytest.raises(SettingError, match=r"/m\.pdmodel: "):
        quant_post_static(
            None,
            source,
            source,
            data_loader=BATCHES,
            save_model_filename="m.pdmodel",
            save_params_filename="m.pdiparams",
        )
    with pytest.raises(OutputError):
        quant_post_static(None, source, tmp_path / "out" / "model.pdmodel", data_loader=BATCHES)
    assert model_bytes(tmp_path / "out") == before
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"model.pdmodel", "model.pdiparams", "pyquant.json"}


def test_a_fixed_batch_size_is_kept_to(tmp_path: Path) -> None:
    net = programs.ProgramBuilder()
    x = net.feed("x", [4, 3, 8, 8])
    result = quant_post_static(
        None,
        ending_in_conv(net, x, [4, 2, 8, 8]).save(tmp_path / "in"),
        tmp_path / "out",
        sample_generator=IMAGES[:11],
        algo="abs_max",
    )
    assert result.thresholds()["x"] == np.abs(IMAGES[:8]).max()


def test_shapes_may_vary(tmp_path: Path) -> None:
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 3, -1, -1])
    source = ending_in_conv(net, x, [-1, 2, -1, -1]).save(tmp_path / "in")
    images = [programs.random((3, size, 8), size) for size in (4, 4, 9, 16, 16, 16)]
    largest = max(np.abs(image).max() for image in images)
    result = quant_post_static(
        None, source, tmp_path / "a", sample_generator=images, batch_size=2, algo="abs_max"
    )
    assert result.thresholds()["x"] == largest
    batches = [image[None] for image in images]
    result = quant_post_static(None, source, tmp_path / "b", data_loader=batches, algo="abs_max")
    assert result.thresholds()["x"] == largest


def test_the_result_tells_what_was_done(tmp_path: Path, source: Path) -> None:
    result = quant_post_static(None, source, tmp_path / "out", data_loader=BATCHES)
    kinds = [(tensor.name, tensor.kind, tensor.axis) for tensor in result.quantized]
    assert kinds == [
        ("x", "activation", None),
        ("b", "activation", None),
        ("f", "activation", None),
        ("first.w", "weight", 0),
        ("second.w", "weight", 0),
        ("dense.w", "weight", 1),
    ]
    assert list(result.seconds) == [
        *("load", "calibrate", "check", "equalize", "thresholds", "quantize", "save")
    ]
    assert result.bytes_before == sum(path.stat().st_size for path in source.iterdir())
    assert result.bytes_after < result.bytes_before
    text = str(result)
    assert "quantized 3 activations, 3 weights; 0 ops kept in float" in text
    assert str(result.model_path) in text
    assert load_model(tmp_path / "out").parameters["first.w"].dtype == np.int8


def test_thresholds_can_be_given_and_shared(tmp_path: Path, source: Path) -> None:
    def thresholds(**options: Any) -> dict[str, float]:
        return quant_post_static(
            None, source, tmp_path / "out", data_loader=BATCHES, verify=False, **options
        ).thresholds()

    found = thresholds()
    shared = thresholds(same_scale_tensor_list=[["x", "b"]])
    assert shared == {**found, **dict.fromkeys(("x", "b"), max(found["x"], found["b"]))}
    assert thresholds(scale_dict={"x": 1.5}) == {**found, "x": 1.5}
    for options in ({"scale_dict": {"ghost": 1.0}}, {"same_scale_tensor_list": [["x", "ghost"]]}):
        with pytest.raises(SettingError, match=f"^{next(iter(options))}: 'ghost' .*x, b, f"):
            thresholds(**options)
    with pytest.raises(SettingError, match=r"^scale_dict: .*'x', 0.0"):
        thresholds(scale_dict={"x": 0.0})
    with pytest.raises(SettingError, match=r"^same_scale_tensor_list: .*\['x'\]"):
        thresholds(same_scale_tensor_list=["x"])


def test_rounding_by_data_needs_them(tmp_path: Path, source: Path) -> None:
    calibration = calibrate(source, data_loader=BATCHES)
    with pytest.raises(UnsupportedError, match=r"^round_type"):
        quant_post_static(
            None, source, tmp_path / "out", calibration=calibration, round_type="adaround"
        )


def test_weights_of_what_is_always_zero_are_not_rounded_by_data(tmp_path: Path) -> None:
    net = programs.Net([12, 3, 8, 8])
    net.then("scale", {"X": "x"}, "Out", {"scale": 0.0, "bias": 0.0}).act("abs").conv(4)
    dead, net.last, net.dims = net.last, "x", [12, 3, 8, 8]
    net.conv(4).then("elementwise_add", {"X": net.last, "Y": dead}, "Out", {"axis": -1}).end()
    result = quant_post_static(
        None,
        net.save(tmp_path / "in"),
        tmp_path / "out",
        data_loader=BATCHES,
        round_type="adaround",
        optimize_model=False,
    )
    assert ["zero" in op.reason for op in result.kept_float] == [True]


def test_thresholds_are_chosen_of_nothing_where_nothing_is_int8(tmp_path: Path) -> None:
    source = programs.transposed_conv_net().save(tmp_path / "in")
    result = quant_post_static(None, source, tmp_path / "out", data_loader=BATCHES, algo="auto")
    assert not result.thresholds()


WRONG_FROM_THE_START: dict[str, dict[str, Any]] = {
    r"^m\.json: .*\.pdmodel": {"save_model_filename": "m.json"},
    r"/in/m\.pdmodel: ": {"quantize_model_path": "in", "save_model_filename": "m.pdmodel"},
    "^scale_dict: 'ghost'": {"scale_dict": {"ghost": 1.0}},
    "^weight_bits=8.0": {"weight_bits": 8.0},
}


@pytest.mark.parametrize("message", WRONG_FROM_THE_START)
def test_what_is_wrong_is_said_before_the_data_run(
    tmp_path: Path, source: Path, message: str
) -> None:
    options = {"quantize_model_path": "out", **WRONG_FROM_THE_START[message]}
    options["quantize_model_path"] = tmp_path / options["quantize_model_path"]

    def batches() -> Iterator[Any]:
        raise AssertionError("the data are asked for")
        yield

    with pytest.raises((SettingError, UnsupportedError), match=message):
        quant_post_static(None, source, data_loader=batches, **options)


@pytest.mark.parametrize("backend", [None, "OneDNN"])
def test_what_pyquant_wrote_is_not_quantized_again(
    tmp_path: Path, source: Path, backend: str | None
) -> None:
    quant_post_static(None, source, tmp_path / "int8", data_loader=BATCHES, deploy_backend=backend)
    quant_post_dynamic(source, tmp_path / "dynamic")
    for again in ("int8", "dynamic/quantized_model"):
        with pytest.raises(UnsupportedError, match=rf"/{again}/model\.pdmodel: .*quantized"):
            quant_post_static(None, tmp_path / again, tmp_path / "out", data_loader=BATCHES)
        with pytest.raises(UnsupportedError, match=rf"/{again}/model\.pdmodel: .*quantized"):
            quant_post_dynamic(tmp_path / again, tmp_path / "out")


@pytest.mark.parametrize("backend", [None, "QDQ", "TensorRT"])
def test_the_int8_program_is_planned_once(
    tmp_path: Path, source: Path, backend: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = []
    plan_int8 = static_plan.plan_int8

    def counted(*args: Any) -> Any:
        planned.append(plan_int8(*args))
        return planned[-1]

    monkeypatch.setattr(static_plan, "plan_int8", counted)
    accurate = {"algo": "auto", "equalize": True, "round_type": "adaround"}
    given = {"data_loader": BATCHES, "deploy_backend": backend}
    result = quant_post_static(None, source, tmp_path / "out", **given, **accurate)
    assert result.quantized
    assert len(planned) == 1


def test_branches_that_read_the_same_declare_it_each(tmp_path: Path) -> None:
    """Variables that one branch of a program declares are not visible in another."""
    net = programs.Net([12, 3, 8, 8]).act("relu")
    read = net.last
    model = load_model(net.conv(4).end().save(tmp_path / "in"))
    for index in (1, 2):
        block = model.program.blocks.add(idx=index, parent_idx=0)
        block.ops.add().CopyFrom(next(op for op in model.ops() if op.type == "conv2d").desc)
    plan = QdqPlan(model, [], target_of("QDQ"), [Read(1, 0, read), Read(2, 0, read)])
    written = plan.emit(Choices({read: Range(1.0, -1.0, 1.0)}, {}, []))
    for block in list(written.program.blocks)[1:]:
        written = {name for op in ops_of(block) for name in op.writes()}
        declared = {var.name for var in block.vars}
        assert [name for name in written if name.startswith(read)]
        assert {name for name in written if name.startswith(read)} <= declared


def test_names_that_the_float_model_has_for_something_else(tmp_path: Path) -> None:
    """QDQ names its tensors after those it quantizes; the model may already have such names."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 8])
    scale = net.parameter("x@scale", np.full(8, 2, np.float32))
    scaled = net.op(
        "elementwise_mul", {"X": x, "Y": scale}, ("Out", "x.quantized"), [-1, 8], {"axis": -1}
    )
    weight = net.parameter("w", programs.random((8, 4), 1))
    attributes = {"trans_x": False, "trans_y": False}
    for number, source in enumerate((x, scaled)):
        inputs = {"X": source, "Y": weight}
        net.fetch(net.op("matmul_v2", inputs, ("Out", f"y{number}"), [-1, 4], attributes))
    source_path = net.save(tmp_path / "in")
    feed = {"x": programs.random((6, 8), 3)}
    options = {"data_loader": [feed], "optimize_model": False, "deploy_backend": "QDQ"}
    result = quant_post_static(None, source_path, tmp_path / "out", **options)
    expected = predict(source_path / "m.pdmodel", source_path / "m.pdiparams", feed)
    for how in ("plain", "int8"):
        actual = predict(result.model_path, result.params_path, feed, how)
        assert max(map(relative_error, actual, expected)) < 0.03


def test_batches_that_become_other_channels_are_refused(tmp_path: Path) -> None:
    """Calibration has seen all before the product, which Paddle could not run."""
    net = programs.ProgramBuilder()
    x, w = net.feed("x", [-1, 16]), net.parameter("w", programs.random((16, 4)))
    flat = net.op("reshape2", {"X": x}, ("Out", "flat"), [1, 16], {"shape": [1, -1]})
    product = {"X": flat, "Y": w}
    net.fetch(net.op("matmul_v2", product, ("Out", "y"), [1, 4], programs.STRAIGHT))
    source = net.save(tmp_path / "in")
    whole, single = programs.random((4, 16)), programs.random((1, 16))
    assert quant_post_static(None, source, tmp_path / "1", data_loader=[single]).quantized
    with pytest.raises(CalibrationDataError, match=r"'flat' has 64 .*'w' takes 16"):
        quant_post_static(None, source, tmp_path / "2", data_loader=[whole])
