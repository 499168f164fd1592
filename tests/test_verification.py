"""What static mode finds by running its result, and what it does about it."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle_run
import programs
import pytest
from processors import deployed
from programs import CONV, Net
from static_runs import model_bytes

from pyquant import (
    Calibration,
    CalibrationDataError,
    QuantizationResult,
    calibrate,
    compare,
    load_model,
    make_predictor,
    quant_post_static,
)
from pyquant.calibration.kept import MOST_BATCHES, MOST_BYTES, KeptBatches
from pyquant.calibration.moments import InputMoments
from pyquant.cli import main
from pyquant.comparison.compared import Compared, compared_parts
from pyquant.comparison.output_sums import OutputSums
from pyquant.errors import SettingError, UnsupportedError
from pyquant.program import proto, segments
from pyquant.program.model import Model, copy_model
from pyquant.program.predictor import make_int8_predictor, run_outputs
from pyquant.static_mode import repair
from pyquant.verification.check import Check
from pyquant.verification.effects import Rounding, effects_of_rounding
from pyquant.verification.kernel_times import KernelTime, parsed, shares
from pyquant.verification.outcome import OutputDifference
from pyquant.verification.turns import Times

IMAGES = programs.random((8, 4, 10, 10), 3)


def plain_net() -> Net:
    return Net([-1, 4, 10, 10]).conv(8).act("relu").conv(8).act("relu").conv(4).end()


def outlier_net() -> Net:
    """The second convolution reads values of which a few are a thousand times the others."""
    net = Net([-1, 4, 10, 10]).conv(8).act("relu").conv(8)
    return net.act("square").act("square").act("square").conv(8).act("relu").conv(4).end()


def static(source: Path, output: Path, **options: Any) -> QuantizationResult:
    given = {"data_loader": [IMAGES], **options}
    return quant_post_static(None, source, output, **given)


@pytest.mark.parametrize("backend", [None, "QDQ"])
def test_what_is_told_is_what_a_run_shows(tmp_path: Path, backend: str | None) -> None:
    source = plain_net().save(tmp_path / "in")
    result = static(source, tmp_path / "out", **deployed(backend))
    found = result.verification
    assert found is not None
    how = "int8" if backend == "QDQ" else "float"
    (error,) = found.errors
    expected = paddle_run.run(source, {"x": IMAGES})[0].astype(np.float64)
    output = paddle_run.run(tmp_path / "out", {"x": IMAGES}, how)[0]
    power = np.square(output - expected).sum() / np.square(expected).sum()
    assert error.power == pytest.approx(power, rel=1e-2)
    assert 0 < error.power < 1e-3
    # Paddle's int8 passes round the weights of a convolution once more.
    assert found.departures[0].power < (1e-3 if backend == "QDQ" else 1e-6)
    assert found.batches == 1
    assert min(found.float_seconds, found.int8_seconds, found.speedup) > 0
    assert found.repairs == ()
    assert str(found) in str(result)
    assert len(str(found).splitlines()) == 3


@pytest.mark.parametrize("backend", [None, "QDQ"])
def test_ops_that_err_too_much_stay_in_float(tmp_path: Path, backend: str | None) -> None:
    source = outlier_net().save(tmp_path / "in")
    options = {**deployed(backend), "algo": "KL", "equalize": False}
    unchecked = static(source, tmp_path / "1", verify=False, **options)
    assert unchecked.verification is None
    how = "int8" if backend == "QDQ" else "float"
    expected = paddle_run.run(source, {"x": IMAGES})[0]
    wrong = paddle_run.run(tmp_path / "1", {"x": IMAGES}, how)[0]
    assert paddle_run.relative_error(wrong, expected) > 0.25
    result = static(source, tmp_path / "2", **options)
    right = paddle_run.run(tmp_path / "2", {"x": IMAGES}, how)[0]
    assert paddle_run.relative_error(right, expected) < 0.1
    kept = [op.name for op in result.kept_float if op.reason.startswith("check")]
    convolutions = [op.output() for op in load_model(source).ops() if op.type == "conv2d"]
    assert 0 < len(kept) < len(convolutions) == len(unchecked.thresholds())
    assert set(kept) < set(convolutions)
    assert len(result.thresholds()) == len(convolutions) - len(kept)
    assert result.verification is not None
    assert f"{len(kept)} op(s)" in result.verification.repairs[0]


def test_less_error_keeps_more_ops_in_float(tmp_path: Path) -> None:
    source, convolutions = outlier_net().save(tmp_path / "in"), 4
    options = {"algo": "KL", "equalize": False}
    for number, (bound, least, most) in enumerate(
        [(0.01, convolutions, convolutions), (5.0, 1, convolutions - 1), (math.inf, 0, 0)]
    ):
        out = tmp_path / str(number)
        result = static(source, out, max_error=bound, **options)
        assert least <= convolutions - len(result.thresholds()) <= most
        assert result.verification is not None
        assert result.verification.error_percent <= bound


def test_a_little_that_is_left_in_int8_goes_to_float_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "_LEAST_LEFT", 0.99)
    source = outlier_net().save(tmp_path / "in")
    result = static(source, tmp_path / "out", algo="KL", equalize=False)
    assert not result.thresholds()
    assert len([op for op in result.kept_float if op.reason.startswith("check")]) == 4
    right = paddle_run.run(source, {"x": IMAGES})[0]
    output = paddle_run.run(tmp_path / "out", {"x": IMAGES}, "float")[0]
    assert paddle_run.relative_error(output, right) < 1e-5


def test_an_op_whose_run_departs_from_the_program_stays_in_float(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run adds something to one op's output, as if oneDNN's kernel were wrong there."""
    source = plain_net().save(tmp_path / "in")
    static(source, tmp_path / "right")
    wrong = [op for op in load_model(tmp_path / "right").ops() if op.type == "fused_conv2d"][1]

    def runs_wrongly(model: Model, threads: int) -> Any:
        copied = copy_model(model)
        for op in copied.ops():
            if op.type == wrong.type and op.output() == wrong.output():
                (bias,) = op.inputs("Bias")
                copied.parameters[bias] = copied.parameters[bias] + np.float32(1)
        return make_int8_predictor(copied, threads)

    for module in ("check", "departures"):
        monkeypatch.setattr(f"pyquant.verification.{module}.make_int8_predictor", runs_wrongly)
    result = static(source, tmp_path / "out")
    assert result.verification is not None
    assert not result.verification.departs
    assert result.verification.departures[0].power < 1e-6
    (repair,) = result.verification.repairs
    assert wrong.output() in repair
    (kept,) = [op for op in result.kept_float if op.reason.startswith("check")]
    assert kept.op_type == "conv2d"
    assert len(result.thresholds()) == 2
    told = static(source, tmp_path / "told", processors="vnni").verification
    assert told is not None
    assert told.departs
    assert told.departures[0].power > 1e-3
    assert "departs from the program: fused_conv2d" in told.repairs[0]


@pytest.mark.parametrize(("steps", "departs"), [(1, False), (2, True)])
def test_an_integer_that_is_rounded_to_the_other_side_is_no_departure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, departs: bool
) -> None:
    """Of few values, it is much of the output; a kernel that errs by more than a step is wrong."""
    source = Net([-1, 4, 2, 2]).conv(8).act("relu").conv(4).end().save(tmp_path / "in")
    (changed,) = (op for op in load_model(source).ops() if op.type == "relu")

    def runs_otherwise(model: Model, threads: int) -> Any:
        predictor = make_int8_predictor(model, threads)

        def change(op_type: str, name: str, tensor: Any) -> None:
            if name == changed.output():
                ctypes.c_uint8.from_address(tensor.data_ptr()).value += steps

        predictor.register_output_hook(change)
        return predictor

    for module in ("check", "departures"):
        monkeypatch.setattr(f"pyquant.verification.{module}.make_int8_predictor", runs_otherwise)
    monkeypatch.setattr("pyquant.verification.outputs_check._AS_FAR", 0.0)
    data = programs.random((2, 4, 2, 2), 3)
    data[0] *= 0.1  # the sample that is judged has few steps
    found = static(source, tmp_path / "out", data_loader=[data]).verification
    assert found is not None
    if departs:
        (repair,) = found.repairs
        assert changed.output() in repair
    else:
        assert (found.departs, found.repairs) == (False, ())
        assert found.departures[0].power > 1e-4


def test_a_result_that_is_slower_than_float_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyquant.verification.check.in_turns", lambda *_: Times(0.001, 0.01, 0.1))
    found = static(plain_net().save(tmp_path / "in"), tmp_path / "out").verification
    assert found is not None
    convolutions = [one for one in found.kernels if one.primitive == "convolution"]
    assert sum(one.runs for one in convolutions) == 3
    assert {one.kind for one in convolutions} == {"int8 kernels"}
    assert "0.10 x as fast" in str(found)
    assert re.search(r"int8 kernels \d+%", str(found))


def test_what_is_faster_here_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last two convolutions do nine tenths of the work; the times are given."""
    net = Net([-1, 4, 10, 10]).conv(8).act("relu").conv(64).act("relu").conv(4).end()
    source, timed = net.save(tmp_path / "in"), list[float]()
    for expected, speedups in ((3, [2, 1, 1, 1]), (2, [1, 2, 1, 1]), (0, [0.5, 0.5, 0.5, 1])):
        timed[:] = speedups
        monkeypatch.setattr(
            "pyquant.verification.check.in_turns", lambda *_: Times(1, 1, timed.pop(0))
        )
        result = static(source, tmp_path / str(expected), plan_for="here")
        assert len(result.thresholds()) == expected
        assert result.verification is not None
        assert result.verification.speedup == max(speedups)
        kept = [op for op in result.kept_float if op.reason.startswith("plan_for")]
        assert len(kept) == 3 - expected
    output = paddle_run.run(tmp_path / "0", {"x": IMAGES}, "float")[0]
    right = paddle_run.run(source, {"x": IMAGES})[0]
    assert paddle_run.relative_error(output, right) < 1e-3
    with pytest.raises(SettingError, match="verify"):
        static(source, tmp_path / "no", plan_for="here", verify=False)
    with pytest.raises(SettingError, match="there"):
        static(source, tmp_path / "no", plan_for="there")
    with pytest.raises(UnsupportedError, match="ARM"):
        static(source, tmp_path / "no", plan_for="here", deploy_backend="ARM")


def test_a_log_of_kernels() -> None:
    lines = (
        "onednn_verbose,v1,info,oneDNN v3.6.2",
        "onednn_verbose,v1,primitive,exec,cpu,matmul,ref:any,undef,src:f32::blocked:ab::f0 "
        "dst:f32:a:blocked:ab::f0,attr-post-ops:binary_add:f32:15,,4x8,2.5",
        "onednn_verbose,exec,cpu,reorder,jit:uni,undef,src_u8::blocked:ab::f0 "
        "dst_f32::blocked:ab::f0,,,4x8,0.25",
        "onednn_verbose,exec,cpu,reorder,jit:uni,undef,src_u8::blocked:ab::f0 "
        "dst_f32::blocked:ab::f0,,,4x8,0.25",
        "something else,exec,cpu,that,is,no,kernel,1,2",
    )
    expected = [
        KernelTime("matmul", "ref:any", "f32 -> f32", 1, 2.5),
        KernelTime("reorder", "jit:uni", "u8 -> f32", 2, 0.5),
    ]
    assert parsed(lines) == expected
    assert shares(expected) == "reference kernels 83%, reorders 17%"


def test_a_metric_of_the_user_decides_alone(tmp_path: Path) -> None:
    source = outlier_net().save(tmp_path / "in")
    options = {"algo": "KL", "equalize": False, "eval_function": lambda _: 1.0}
    result = static(source, tmp_path / "out", **options)
    assert len(result.thresholds()) == 4
    assert result.verification is not None
    assert result.verification.error_percent > 5


@pytest.mark.parametrize("backend", ["TensorRT", "ARM"])
def test_what_does_not_run_here_is_not_run(tmp_path: Path, backend: str) -> None:
    source = plain_net().save(tmp_path / "in")
    assert static(source, tmp_path / "out", deploy_backend=backend).verification is None


def test_a_saved_calibration_has_batches_to_check_on(tmp_path: Path) -> None:
    source = outlier_net().save(tmp_path / "in")
    options: dict[str, Any] = {"algo": "KL", "equalize": False}
    data = [IMAGES[number % 8 :][:3] + np.float32(number) / 100 for number in range(24)]
    expected = static(source, tmp_path / "1", data_loader=data, **options)
    parts = [calibrate(source, data_loader=part) for part in (data[13:], data[:4], data[4:13])]
    Calibration.merge(parts).save(tmp_path / "c.npz")
    calibration = Calibration.load(tmp_path / "c.npz")
    found = quant_post_static(
        None, source, tmp_path / "2", calibration=calibration, **options
    ).verification
    assert found is not None
    assert expected.verification is not None
    assert found.batches == 3
    assert (found.errors, found.repairs) == (
        expected.verification.errors,
        expected.verification.repairs,
    )
    assert model_bytes(tmp_path / "1") == model_bytes(tmp_path / "2")


def batch(number: int, size: int = 4) -> dict[str, Any]:
    return {"x": programs.random((size,), number)}


def kept(*numbers: int) -> KeptBatches:
    found = KeptBatches()
    for number in numbers:
        found.add(batch(number))
    return found


def test_kept_batches_depend_on_no_order_and_no_split() -> None:
    whole = kept(*range(10))
    assert len(whole.feeds) == MOST_BATCHES
    backwards, first = kept(*reversed(range(10))), kept(*range(7))
    first.merge(kept(*range(4, 10)))
    assert list(whole.by_hash) == list(backwards.by_hash) == list(first.by_hash)


def test_kept_batches_are_copies_and_few() -> None:
    found, feed = KeptBatches(), batch(1)
    found.add(feed)
    feed["x"][:] = 0
    assert (found.feeds[0]["x"] == batch(1)["x"]).all()
    large = KeptBatches()
    for number in range(3):
        large.add(batch(number, MOST_BYTES // 4 * 3 // 4))
    assert len(large.feeds) == 1


def test_a_net_that_paddle_cannot_run_as_int8_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise CalibrationDataError("batch 0: Paddle cannot run the int8 model")

    monkeypatch.setattr("pyquant.verification.check.make_int8_predictor", fails)
    source = plain_net().save(tmp_path / "in")
    with pytest.raises(CalibrationDataError, match="int8 model"):
        static(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert static(source, tmp_path / "out", verify=False).model_path.exists()


FORMS: dict[str, Callable[[Path, Path], Any]] = {
    "float": lambda source, output: source,
    "OneDNN": lambda source, output: static(source, output).model_path,
    "QDQ": lambda source, output: static(source, output, **deployed("QDQ")).model_path,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_predictor_of_whatever_was_written(form: str, tmp_path: Path) -> None:
    source = plain_net().save(tmp_path / "in")
    path = FORMS[form](source, tmp_path / "out")
    predictor = make_predictor(path, threads=1)
    (name,) = predictor.get_input_names()
    predictor.get_input_handle(name).copy_from_cpu(IMAGES)
    predictor.run()
    output = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
    how = "int8" if form == "QDQ" else "float"
    np.testing.assert_array_equal(output, paddle_run.run(path, {"x": IMAGES}, how)[0])
    with pytest.raises(SettingError, match=r"^threads: 0"):
        make_predictor(path, threads=0)


def test_the_command_line_runs_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = plain_net().save(tmp_path / "in")
    np.save(tmp_path / "x.npy", IMAGES)
    data = ["--data", str(tmp_path / "x.npy"), "--batch-size", "3"]
    outputs = ["-o", str(tmp_path / "y.npz"), "--threads", "1", "--kernels"]
    assert main(["run", "--no-isolate", str(source), *data, *outputs]) == 0
    text = capsys.readouterr().out
    assert re.search(r"ms +\d x convolution \S+ +f32 -> f32", text)
    assert re.search(r"kernels of the first batch: .*float kernels \d+%", text)
    assert "float32[8, 4, 10, 10]" in text
    assert "median of 3" in text
    (output,) = np.load(tmp_path / "y.npz").values()
    np.testing.assert_allclose(
        output, paddle_run.run(source, {"x": IMAGES})[0], rtol=1e-3, atol=1e-5
    )
    for option in ([], ["--no-verify"]):
        assert (
            main(
                [
                    "static",
                    "--no-isolate",
                    str(source),
                    "-o",
                    str(tmp_path / "int8"),
                    *data,
                    *option,
                ]
            )
            == 0
        )
        assert ("check  " in capsys.readouterr().out) == (option == [])


ACCURATE: dict[str, Any] = {"algo": "auto", "equalize": True, "round_type": "adaround"}


def test_settings_that_promise_accuracy_are_left_where_they_cost_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = plain_net().save(tmp_path / "in")
    # If values are correlated, errors of weights can make up for one another.
    given: dict[str, Any] = {"data_loader": [IMAGES + np.float32(2)], "weight_bits": 5}
    plain = static(source, tmp_path / "plain", **given)
    accurate = static(source, tmp_path / "accurate", **given, **ACCURATE)
    assert plain.verification is not None
    assert accurate.verification is not None
    assert accurate.verification.errors[0].power < plain.verification.errors[0].power
    left_out = [note for note in accurate.notes if "left out" in note]
    assert not any("round_type" in note for note in left_out)
    assert len(left_out) < len(ACCURATE)
    rounded = InputMoments.round
    monkeypatch.setattr(InputMoments, "round", lambda self, weight: -rounded(self, weight))
    adaround = {"round_type": "adaround"}
    spoiled = static(source, tmp_path / "spoiled", **given, **adaround)
    assert spoiled.verification is not None
    assert spoiled.verification.errors == plain.verification.errors
    assert model_bytes(tmp_path / "spoiled") == model_bytes(tmp_path / "plain")
    (note,) = (note for note in spoiled.notes if "left out" in note)
    assert note.startswith("round_type='adaround'")


def test_outputs_that_cannot_be_right_count_as_wrong() -> None:
    def compared(output: Any, expected: Any) -> OutputDifference:
        check = Check.__new__(Check)
        check._parts = [Compared("y")]
        return check._compared([[expected]], [[output]])[0]

    ones = np.resize([1, -1], (1, 2, 3)).astype(np.float32)
    assert compared(ones, ones).power == 0
    assert compared(0 * ones, ones).power == 1
    assert compared(ones, 0 * ones).power == 1
    for wrong in (ones * np.nan, ones[:, :1]):
        assert np.isnan(compared(wrong, ones).power)
        assert "'y'" in str(compared(wrong, ones))
    assert compared(ones, ones * np.nan).similarity is None  # nothing is known


def test_scores_vary_from_row_to_row_not_from_column_to_column() -> None:
    """Scores of 1, 5 and 9 beside one another: what they say is how they vary between samples."""
    scores = np.array([1, 5, 9]) + programs.random((64, 3), 1)
    errors = programs.random(scores.shape, 2) / 100
    sums = OutputSums(least=0)
    for rows in (slice(0, 60), slice(60, 61), slice(61, 64)):
        sums.add(scores[rows], scores[rows] + errors[rows])
    variation = scores.var(axis=0, ddof=1).mean()
    assert sums.power == pytest.approx(np.square(errors).mean() / variation, rel=1e-2)
    sums = OutputSums(least=0)
    for columns in (2, 3):  # they cannot be told apart
        sums.add(scores[:, :columns], scores[:, :columns] + errors[:, :columns])
    assert sums.power < 1e-3


def to_halves(values: Any) -> Any:
    return np.rint(values * np.float32(2)) / np.float32(2)


def roundings_of_convolutions(model: Model, by_channel: bool) -> dict[str, Rounding]:
    """Return a rounding for what each convolution reads, in their order."""
    names = [op.input("Input") for op in model.ops() if op.type == "conv2d"]
    return {name: Rounding(to_halves, by_channel) for name in names}


@pytest.mark.parametrize("channels", [16, 24])
def test_what_rounding_one_tensor_does_to_the_outputs(tmp_path: Path, channels: int) -> None:
    """OneDNN keeps 16 channels in an order of its own, and 24 with padding."""
    net = Net([-1, 4, 10, 10]).conv(channels).act("relu").conv(channels).conv(4).end()
    source, feed = net.save(tmp_path / "in"), {"x": IMAGES[:2]}
    model = load_model(source)
    tensors = roundings_of_convolutions(model, by_channel=False)
    found = effects_of_rounding(model, tensors, feed)
    assert list(found) == list(tensors)
    (expected,), (output,) = (
        paddle_run.run(source, {"x": values}) for values in (IMAGES[:2], to_halves(IMAGES[:2]))
    )
    assert found["x"] == pytest.approx(np.square(output - expected).mean() / expected.var(), 1e-3)
    # A grid for each channel needs the order of the program, that of Paddle's own kernels.
    by_channel = roundings_of_convolutions(model, by_channel=True)
    assert effects_of_rounding(model, by_channel, feed) == pytest.approx(found, rel=1e-2)
    assert min(found.values()) > 0


def test_a_large_model_runs_from_the_segment_on_that_is_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net([-1, 4, 10, 10]).conv(8).act("relu").conv(8).act("relu").conv(8).conv(4).end()
    model, feed = load_model(net.save(tmp_path / "in")), {"x": IMAGES[:2]}
    tensors = roundings_of_convolutions(model, by_channel=False)
    expected = effects_of_rounding(model, tensors, feed)
    monkeypatch.setattr(segments, "LEAST_BYTES", 1 << 10)
    assert len(segments.cut(model)) > 2
    assert effects_of_rounding(model, tensors, feed) == pytest.approx(expected, rel=1e-4)


def test_pads_run_by_paddles_own_kernel(tmp_path: Path) -> None:
    """OneDNN's writes outside of its memory, which kills the process or changes other tensors."""
    net = programs.ProgramBuilder()
    x, w = net.feed("x", [-1, 4, 4000]), net.parameter("w", programs.random((4254, 16)))
    pads: dict[str, Any] = {"paddings": [0, 0, 0, 0, 127, 127], "pad_value": 0.0}
    padded = net.op("pad", {"X": x}, ("Out", "padded"), [-1, 4, 4254], pads)
    product = {"X": padded, "Y": w}
    net.fetch(net.op("matmul_v2", product, ("Out", "y"), [-1, 4, 16], programs.STRAIGHT))
    source, feed = net.save(tmp_path / "in"), {"x": programs.random((2, 4, 4000), 1)}
    result = static(source, tmp_path / "out", data_loader=[feed])
    assert result.verification is not None
    assert result.verification.errors[0].power < 1e-3
    (expected,) = paddle_run.run(source, feed)
    for directory in (source, tmp_path / "out"):
        (output,) = run_outputs(make_predictor(directory, threads=1), feed)
        assert paddle_run.relative_error(output, expected) < 0.03


def test_a_product_in_float_runs_by_onednn(tmp_path: Path) -> None:
    """Paddle's own kernel, that of ``mul``, takes two to three times as long."""
    net = programs.ProgramBuilder()
    name, dims = net.feed("x", [-1, 5, 16]), [-1, 5, 16]
    for output in ("first", "second", "third"):
        weight = net.parameter(f"{output}.w", programs.random((16, 16)))
        product = {"X": name, "Y": weight}
        name = net.op("matmul_v2", product, ("Out", output), dims, programs.STRAIGHT)
    net.fetch(name)
    source, feed = net.save(tmp_path / "in"), {"x": programs.random((4, 5, 16), 1)}
    static(source, tmp_path / "out", data_loader=[feed], skip_tensor_list=["second"])
    predictor, seen = make_predictor(tmp_path / "out", threads=1), set[str]()
    predictor.register_output_hook(lambda op_type, *_: seen.add(op_type))
    run_outputs(predictor, feed)
    assert {"fc", "matmul_v2"} <= seen
    assert "mul" not in seen


def detector() -> programs.ProgramBuilder:
    """A detector: boxes of a hundred beside scores, of which the best are left."""
    net = Net([-1, 4, 10, 10]).conv(8).act("relu")
    x, y = net.last, ["boxes", "logits"]
    for seed, name in enumerate(y):
        w = net.parameter(f"{name}.w", (100.0 if not seed else 1.0) * programs.random((4, 8, 3, 3)))
        net.op("conv2d", {"Input": x, "Filter": w}, ("Output", name), [-1, 4, 10, 10], CONV)
    net.op("sigmoid", {"X": "logits"}, ("Out", "scores"), [-1, 4, 10, 10])
    proto.add_var(net.block, "both", proto.FP32, [-1, 8, 10, 10])
    net._add("concat", {"X": ["boxes", "scores"]}, {"Out": ["both"]}, {"axis": 1})
    proto.add_var(net.block, "best", proto.data_type_of("int64"), [-1, 10, 10])
    net._add("arg_max", {"X": ["scores"]}, {"Out": ["best"]}, {"axis": 1, "dtype": 3})
    net.fetch("both")
    net.fetch("best")
    return net


def test_what_decides_and_parts_of_other_ranges_are_compared(tmp_path: Path) -> None:
    source = detector().save(tmp_path / "in")
    parts = compared_parts(load_model(source))
    assert [str(part) for part in parts] == ["both[:, 0:4]", "both[:, 4:8]", "scores"]
    assert [part.least > 0 for part in parts] == [False, True, True]
    found = static(source, tmp_path / "out").verification
    assert found is not None
    both, scores = paddle_run.run(source, {"x": IMAGES})[0], "both[:, 4:8]"
    output = paddle_run.run(tmp_path / "out", {"x": IMAGES}, "float")[0]
    power = np.square((output - both)[:, 4:]).mean() / both[:, 4:].var()
    (error,) = (error for error in found.errors if error.name == scores)
    assert error.power == pytest.approx(power, rel=1e-3)
    assert load_model(tmp_path / "out").fetches == ["both", "best"]
    compared = compare(source, tmp_path / "out", data_loader=[IMAGES]).worst("int8 run")
    (percent,) = (one.error_percent for one in compared if one.name == scores)
    assert percent == pytest.approx(100 * math.sqrt(power), rel=1e-3)


def places(*, last: bool) -> programs.ProgramBuilder:
    """Boxes and scores of the places of two grids, as YOLOX writes them if they come ``last``."""
    net, levels = programs.ProgramBuilder(), list[str]()

    def joined(names: list[str], output: str, dims: list[int], axis: int) -> None:
        proto.add_var(net.block, output, proto.FP32, dims)
        net._add("concat", {"X": names}, {"Out": [output]}, {"axis": axis})

    for size in (4, 2):
        dims = [size, size]
        boxes = net.feed(f"boxes{size}", [-1, 4, *dims])
        logits = net.feed(f"logits{size}", [-1, 3, *dims])
        scores = net.op("sigmoid", {"X": logits}, ("Out", f"scores{size}"), [-1, 3, *dims])
        joined([boxes, scores], f"both{size}", [-1, 7, *dims], 1)
        flat = [-1, 7, size * size]
        shape = {"shape": flat}
        levels.append(
            net.op("reshape2", {"X": f"both{size}"}, ("Out", f"level{size}"), flat, shape)
        )
    joined(levels, "y", [-1, 7, 20], 2)
    if last:
        net.op("transpose2", {"X": "y"}, ("Out", "turned"), [-1, 20, 7], {"axis": [0, 2, 1]})
    net.fetch("turned" if last else "y")
    return net


def test_parts_lie_along_axes_that_move(tmp_path: Path) -> None:
    found = [
        compared_parts(load_model(places(last=last).save(tmp_path / str(last))))
        for last in (False, True)
    ]
    assert [str(part) for part in found[0]] == ["y[:, 0:4]", "y[:, 4:7]"]
    assert [str(part) for part in found[1]] == ["turned[:, :, 0:4]", "turned[:, :, 4:7]"]
    assert [part.least > 0 for part in (*found[0], *found[1])] == [False, True] * 2


@pytest.mark.parametrize("moves", ["reshape2", "relu"])
def test_an_op_may_write_what_it_reads(tmp_path: Path, moves: str) -> None:
    net = programs.ProgramBuilder()
    dims, joined = [-1, 4, 2, 2], [-1, 8, 2, 2]
    names = [net.feed("x", dims), net.feed("z", dims)]
    proto.add_var(net.block, "y", proto.FP32, joined)
    net._add("concat", {"X": names}, {"Out": ["y"]}, {"axis": 1})
    net._add(moves, {"X": ["y"]}, {"Out": ["y"]}, {"shape": joined} if moves == "reshape2" else {})
    net.fetch("y")
    assert [str(part) for part in compared_parts(load_model(net.save(tmp_path)))] == ["y"]


def test_parts_are_found_at_once(tmp_path: Path) -> None:
    """Of a tensor that is joined with itself again and again, there are 2^40 ways back."""
    net = programs.ProgramBuilder()
    name = net.feed("x", [-1, 1])
    for number in range(40):
        proto.add_var(net.block, f"y{number}", proto.FP32, [-1, -1])
        net._add("concat", {"X": [name, name]}, {"Out": [f"y{number}"]}, {"axis": 1})
        name = f"y{number}"
    net.fetch(name)
    assert [str(part) for part in compared_parts(load_model(net.save(tmp_path)))] == ["y39"]


def test_what_pyquant_run_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def adding(size: int) -> str:
        net = programs.ProgramBuilder()
        both = {
            "X": net.feed("x", [-1, 3, -1]),
            "Y": net.parameter("b", programs.random((1, 3, size))),
        }
        net.fetch(net.op("elementwise_add", both, ("Out", "y"), [-1, 3, -1], {"axis": -1}))
        return str(net.save(tmp_path / f"{size}"))

    fixed, any_size = adding(8), adding(1)
    for number, size in enumerate((8, 9)):
        np.save(tmp_path / f"{number}.npy", programs.random((1, 3, size)))
    np.save(tmp_path / "none", np.zeros((0, 3, 8), np.float32))
    for model, data, said in (
        (fixed, tmp_path / "1.npy", r"batch 0: .*\[1, 3, 9\]"),
        (any_size, tmp_path / "none.npy", r"none\.npy"),
    ):
        assert main(["run", "--no-isolate", model, "--data", str(data)]) == 1
        assert re.search(said, capsys.readouterr().err)
    (tmp_path / "none.npy").unlink()
    assert main(["run", "--no-isolate", any_size, "--data", str(tmp_path)]) == 1
    assert "size" in capsys.readouterr().err
