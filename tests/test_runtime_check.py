"""Results for other runtimes: their check repairs them, and `verify` runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import Net, random

import pyquant
from pyquant.calibration.data import Feed
from pyquant.cli import main
from pyquant.program.model import Model
from pyquant.static_mode import repair
from pyquant.static_mode.decisions import Decisions
from pyquant.static_mode.plan import OpEffect, Plan
from pyquant.static_mode.ranking import measured_ops, ranked_ops
from pyquant.verification import runtime_check
from pyquant.verification.runtime_check import Run, RuntimeCheck
from pyquant.verification.turns import Times

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.any_isa

IMAGES = random((8, 4, 10, 10), 3)


def net_of_five() -> Net:
    net = Net([-1, 4, 10, 10])
    for channels in (8, 8, 8, 8):
        net.conv(channels).act("relu")
    return net.conv(4).end()


def static(source: Path, output: Path, **options: Any) -> pyquant.QuantizationResult:
    return pyquant.quant_post_static(None, source, output, data_loader=[IMAGES], **options)


@pytest.mark.parametrize("backend", ["ONNX", "OpenVINO"])
def test_ops_that_err_too_much_stay_in_float(tmp_path: Path, backend: str) -> None:
    net = net_of_five()
    source = net.save(tmp_path / "in")
    convolutions = [op.output() for op in pyquant.load_model(source).ops() if op.type == "conv2d"]
    clipped = next(op.output() for op in pyquant.load_model(source).ops() if op.type == "relu")
    options = {"deploy_backend": backend, "algo": "abs_max", "scale_dict": {clipped: 0.3}}
    unchecked = static(source, tmp_path / "1", verify=False, **options)
    assert len(unchecked.thresholds()) >= len(convolutions)
    result = static(source, tmp_path / "2", **options)
    found = result.verification
    assert found is not None
    assert found.error_percent < 5
    kept = [op.name for op in result.kept_float if op.reason.startswith("check")]
    assert convolutions[1] in kept  # which reads it
    assert 0 < len(kept) < len(convolutions)
    (repair,) = found.repairs
    assert f"{len(kept)} op(s) kept in float, as otherwise" in repair
    assert any("computes with integers: " in one for one in result.notes)


@pytest.mark.parametrize("backend", ["ONNX", "OpenVINO"])
def test_the_float_model_predicts_only_what_does_not_run(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = net_of_five()
    source = net.save(tmp_path / "in")
    model = pyquant.load_model(source)
    convolutions = [op for op in model.ops() if op.type == "conv2d"]
    failing, filters = convolutions[3], [op.input("Filter") for op in convolutions]
    clipped = convolutions[1].input("Input")
    predicted, load = list[str](), RuntimeCheck._load_int8

    def load_int8(check: RuntimeCheck, int8: Model) -> Run:
        integers = {op.input("X") for op in int8.ops() if op.type == "dequantize_linear"}
        if integers.intersection(filters) == {failing.input("Filter")}:
            raise pyquant.UnsupportedError("no kernel")
        return load(check, int8)

    def ranked(plan: Plan, decisions: Decisions, feed: Feed) -> list[OpEffect]:
        predicted.extend(op.output for op in plan.ops)
        return ranked_ops(plan, decisions, feed)

    monkeypatch.setattr(RuntimeCheck, "_load_int8", load_int8)
    monkeypatch.setattr(repair, "ranked_ops", ranked)
    options = {"deploy_backend": backend, "algo": "abs_max", "scale_dict": {clipped: 0.3}}
    found = static(source, tmp_path / "out", **options).verification
    assert found is not None
    assert found.error_percent < 5
    assert predicted == [failing.output()]


@pytest.mark.parametrize("backend", ["ONNX", "OpenVINO"])
def test_what_is_faster_in_the_runtime_is_written(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last two convolutions do nine tenths of the work; the times are given."""
    net = Net([-1, 4, 10, 10]).conv(8).act("relu").conv(64).act("relu").conv(4).end()
    source, timed = net.save(tmp_path / "in"), list[float]()
    for expected, speedups in ((2, [1, 2, 1, 1]), (0, [0.5, 0.5, 0.5, 1])):
        timed[:] = speedups
        monkeypatch.setattr(runtime_check, "in_turns", lambda *_: Times(1, 1, timed.pop(0)))
        output = tmp_path / str(expected)
        result = static(source, output, deploy_backend=backend, plan_for="here")
        kept = [op for op in result.kept_float if op.reason.startswith("plan_for")]
        assert len(kept) == 3 - expected
        assert result.verification is not None
        assert result.verification.speedup == max(speedups)
        assert f"computes with integers: {'nothing' if expected == 0 else ''}" in result.notes[-1]
    timed[:] = [0.5]
    by_rules = static(source, tmp_path / "rules", deploy_backend=backend)
    assert by_rules.notes[-1].startswith("int8 took longer than float: plan_for='here'")
    monkeypatch.setattr("pyquant.static.is_installed", lambda runtime: False)
    with pytest.raises(pyquant.UnsupportedError, match=r"not installed\..* extra '\w+'"):
        static(source, tmp_path / "no", deploy_backend=backend, plan_for="here")


@pytest.mark.parametrize("backend", ["ONNX", "OpenVINO"])
def test_ops_are_ranked_by_outputs_and_by_what_softmax_reads(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores far apart give 0 and 1, of which integers change little."""
    net = Net([-1, 4, 10, 10]).conv(8).act("relu").conv(8).constant("elementwise_mul", [30.0])
    net.then("softmax", {"X": net.last}, "Out", {"axis": 1})
    rankings = list[list[list[OpEffect]]]()

    def keep(*given: Any) -> list[list[OpEffect]]:
        rankings.append(measured_ops(*given))
        return rankings[-1]

    monkeypatch.setattr(repair, "measured_ops", keep)
    source = net.end().save(tmp_path / "in")
    static(source, tmp_path / "out", deploy_backend=backend, algo="abs_max", max_error=0.03)
    (by_outputs, by_scores), *_ = rankings
    outputs, scores = ({one.op: one.error for one in ranked} for ranked in (by_outputs, by_scores))
    assert outputs.keys() == scores.keys()
    assert all(outputs[op] != pytest.approx(scores[op], rel=0.05) for op in outputs)


def test_verify_runs_an_onnx_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Net([-1, 4, 10, 10]).conv(8).act("relu").conv(8).end().save(tmp_path / "in")
    result = static(source, tmp_path / "out", deploy_backend="ONNX")
    for named in (result.model_path, tmp_path / "out"):
        found = pyquant.verify(source, named, data_loader=[IMAGES])
        assert result.verification is not None
        assert found.error_percent == pytest.approx(result.verification.error_percent, rel=0.05)
        assert found.departures[0].power < 1e-3
    np.savez(tmp_path / "data.npz", x=IMAGES)
    given = ["--data", str(tmp_path / "data.npz"), "--json"]
    assert main(["verify", str(source), str(result.model_path), *given]) == 0
    assert json.loads(capsys.readouterr().out)["error_percent"] < 5
    with pytest.raises(pyquant.ModelFileError, match=r"none\.onnx: there is no such file"):
        pyquant.verify(source, tmp_path / "none.onnx", data_loader=[IMAGES])
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(pyquant.UnsupportedError, match="ONNX Runtime cannot run it here"):
        pyquant.verify(source, tmp_path / "bad.onnx", data_loader=[IMAGES])
