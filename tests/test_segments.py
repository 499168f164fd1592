"""Calibration in segments: the same result in less memory, and what can go wrong on the way."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import programs
import pytest
from decoders import decoder, encoder, tokens
from static_runs import model_bytes

import pyquant
from pyquant import (
    ActivationError,
    Calibration,
    CalibrationDataError,
    CalibrationFileError,
    ModelFileError,
    OutputError,
    SettingError,
    UnsupportedError,
    calibrate,
    quant_post_static,
)
from pyquant.calibration import sequential
from pyquant.calibration.moments import InputMoments
from pyquant.memory import as_text, seconds_as_text, size_in_bytes
from pyquant.program import proto, segments
from pyquant.program.op import make_op

pytestmark = pytest.mark.any_isa

LIMIT, LEAST_BYTES = "100GB", 1 << 14
NETS = {
    "convolutions": lambda path: programs.conv_net().save(path),
    "encoder": encoder,
    "decoder": decoder,
}
DATA: dict[str, list[Any]] = {
    "convolutions": [programs.random((2, 3, 8, 8), seed) for seed in range(3)],
    "encoder": tokens(3),
    "decoder": tokens(3),
}


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut small networks, too, and let small weights be inputs."""
    monkeypatch.setattr(segments, "LEAST_BYTES", LEAST_BYTES)
    monkeypatch.setattr(segments, "_WORTH_AN_INPUT", 1)


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no model fit into memory as a whole."""
    monkeypatch.setattr(sequential, "whole_bytes", lambda model: 1 << 62)


def quantized(source: Path, output: Path, data: Any, **options: Any) -> bytes:
    result = quant_post_static(None, source, output, data_loader=data, verify=False, **options)
    return model_bytes(result.model_path.parent)


OPTIONS: dict[str, dict[str, Any]] = {
    "auto, equalized": {"algo": "auto", "equalize": True},
    "KL, adaround": {"algo": "KL", "round_type": "adaround"},
    "avg, uncorrected": {"algo": "avg", "bias_correction": False},
    "abs_max, QDQ": {"algo": "abs_max", "deploy_backend": "QDQ"},
    "defaults": {},
}


_CUTS = {"convolutions": 1 << 10, "encoder": 1 << 12, "decoder": LEAST_BYTES}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("net", NETS)
def test_segments_make_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, net: str, options: str
) -> None:
    monkeypatch.setattr(segments, "LEAST_BYTES", _CUTS[net])
    source, given = NETS[net](tmp_path / "in"), OPTIONS[options]
    assert len(segments.cut(pyquant.load_model(source))) > 1
    expected = quantized(source, tmp_path / "whole", DATA[net], **given)
    monkeypatch.setattr(sequential, "whole_bytes", lambda model: 1 << 62)
    again = quantized(source, tmp_path / "parts", iter(DATA[net]), memory_limit=LIMIT, **given)
    assert again == expected


def test_weights_that_are_inputs_compute_what_parameters_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = decoder(tmp_path / "in")
    model = pyquant.load_model(source)
    inputs = [segments.segment_model(model, one)[1] for one in segments.cut(model)]
    read = {name for op in model.ops() if op.type == "matmul_v2" for name in op.inputs("Y")}
    found = {name for weights in inputs for name in weights}
    assert len(found & read) > len(read & model.parameters.keys()) / 2
    as_inputs = quantized(source, tmp_path / "inputs", DATA["decoder"])
    monkeypatch.setattr(segments, "_WORTH_AN_INPUT", 1 << 40)
    assert not any(segments.segment_model(model, one)[1] for one in segments.cut(model))
    assert as_inputs == quantized(source, tmp_path / "files", DATA["decoder"])


@pytest.mark.usefixtures("tight")
def test_what_does_not_fit_in_memory_lies_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = decoder(tmp_path / "in")
    expected = quantized(source, tmp_path / "memory", tokens(3), memory_limit=LIMIT)
    monkeypatch.setattr(sequential, "_SHARE_IN_MEMORY", 1 << 62)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert quantized(source, tmp_path / "files", tokens(3), memory_limit=LIMIT) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "in", "memory"]


def test_a_model_that_fits_runs_as_a_whole(tmp_path: Path, caplog: Any) -> None:
    source = decoder(tmp_path / "in")
    expected = quantized(source, tmp_path / "whole", tokens(2))
    assert quantized(source, tmp_path / "limit", tokens(2), memory_limit=LIMIT) == expected
    assert "segments" not in caplog.text


@pytest.mark.usefixtures("tight")
def test_it_says_what_it_takes(tmp_path: Path, caplog: Any) -> None:
    source = decoder(tmp_path / "in")
    result = quant_post_static(
        None, source, tmp_path / "out", data_loader=tokens(2), memory_limit=LIMIT
    )
    assert "in 6 segments" in caplog.text
    assert re.search(r"reads 164 KB of weights once, and takes about \d+ s and \d", caplog.text)
    assert result.verification is None
    assert any("check is left out" in note for note in result.notes)


@pytest.mark.usefixtures("tight")
def test_less_than_a_segment_needs_is_refused(tmp_path: Path) -> None:
    source = decoder(tmp_path / "in")
    with pytest.raises(SettingError, match=r"^memory_limit: 50 MB .*'layer\d\.\w+'.*Give .* MB"):
        calibrate(source, data_loader=tokens(2), memory_limit="50MB")


@pytest.mark.usefixtures("tight")
def test_moments_count_against_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The sums are as if of inputs that are as many as those of a large model."""
    source = decoder(tmp_path / "in")
    given: dict[str, Any] = {"data_loader": tokens(2), "round_type": "adaround", "verify": False}
    monkeypatch.setattr(InputMoments, "nbytes", 10**9)
    said = r"^memory_limit: 1 GB .*whose moments \d GB\. Give .* GB .*leave out adaround"
    with pytest.raises(SettingError, match=said):
        quant_post_static(None, source, tmp_path / "out", memory_limit="1GB", **given)
    monkeypatch.setattr(InputMoments, "nbytes", 0)
    monkeypatch.setattr(InputMoments, "rounding_bytes", 10**12)
    with pytest.raises(SettingError, match=r"^memory_limit: 100 GB .*Give .* GB"):
        quant_post_static(None, source, tmp_path / "out", memory_limit=LIMIT, **given)


@pytest.mark.usefixtures("tight")
def test_no_room_for_moments_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = decoder(tmp_path / "in")

    def full(**options: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OutputError, match=r"^/\S*: a temporary file of \d+ bytes.*TMPDIR"):
        quantized(source, tmp_path / "out", tokens(1), memory_limit=LIMIT, round_type="adaround")
    assert not (tmp_path / "out" / "model.pdmodel").exists()


@pytest.mark.parametrize("size", ["two", "", "-1GB", "5 XB", 0, True, "1e400"])
def test_what_is_no_size_is_refused(tmp_path: Path, size: Any) -> None:
    with pytest.raises(SettingError, match=r"^memory_limit: "):
        calibrate(tmp_path, data_loader=tokens(2), memory_limit=size)


def test_sizes_are_read_and_written() -> None:
    sizes = {"2GB": 2 * 10**9, "1.5 MiB": 3 << 19, 7: 7, "8": 8, "3kb": 3000}
    assert {text: size_in_bytes("x", text) for text in sizes} == sizes
    assert [as_text(size) for size in (2.5e9, 3e6, 4000)] == ["2.5 GB", "3 MB", "4 KB"]
    times = [seconds_as_text(seconds) for seconds in (0.2, 119, 180, 9000)]
    assert times == ["1 s", "119 s", "3 min", "2 h"]


def stopping(batches: list[Any], monkeypatch: pytest.MonkeyPatch, segment: int) -> None:
    """Let calibration fail in a segment."""
    run = sequential.SegmentForward.run

    def fail(self: Any, known: Any, batch: int, statistics: Any) -> Any:
        if self._segment.first == segment and batch == len(batches) - 1:
            raise KeyError("stopped")
        return run(self, known, batch, statistics)

    monkeypatch.setattr(sequential.SegmentForward, "run", fail)


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with ``c.npz``, a calibration of ``in`` that stopped in the third segment.

    Its ``whole.npz`` is one without segments.
    """
    directory = tmp_path_factory.mktemp("stopped")
    source = decoder(directory / "in")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "LEAST_BYTES", LEAST_BYTES)
        calibrate(source, data_loader=tokens(3), checkpoint=directory / "whole.npz")
        patch.setattr(sequential, "whole_bytes", lambda model: 1 << 62)
        stopping(tokens(3), patch, segments.cut(pyquant.load_model(source))[2].first)
        given: dict[str, Any] = {"data_loader": tokens(3), "memory_limit": LIMIT}
        with pytest.raises(KeyError, match="stopped"):
            calibrate(source, checkpoint=directory / "c.npz", **given)
    return directory


@pytest.fixture
def stopped(tmp_path: Path, stopped_once: Path, tight: None) -> Path:
    """Return the checkpoint of a calibration of ``in`` that has stopped in the third segment."""
    shutil.copytree(stopped_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "c.npz"


def test_it_goes_on_with_the_segment_in_which_it_stopped(tmp_path: Path, stopped: Path) -> None:
    state = Calibration.load(stopped)
    assert state.segments == (2, 6, 0)
    for limit in (LIMIT, None):  # the second call finds all done
        done = calibrate(
            tmp_path / "in", data_loader=tokens(3), checkpoint=stopped, memory_limit=limit
        )
        assert done.segments is None
    assert stopped.read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.npz", "in", "whole.npz"]


def test_it_goes_on_without_a_limit(tmp_path: Path, stopped: Path) -> None:
    calibrate(tmp_path / "in", data_loader=tokens(3), checkpoint=stopped)
    assert stopped.read_bytes() == (tmp_path / "whole.npz").read_bytes()


@pytest.mark.usefixtures("tight")
def test_segments_go_on_behind_batches_of_the_whole(tmp_path: Path, stopped_once: Path) -> None:
    source, path = stopped_once / "in", tmp_path / "c.npz"
    calibrate(source, data_loader=tokens(1), checkpoint=path)
    calibrate(source, data_loader=tokens(3), checkpoint=path, memory_limit=LIMIT)
    assert path.read_bytes() == (stopped_once / "whole.npz").read_bytes()


def test_moments_go_on_behind_batches_of_the_whole(
    tmp_path: Path, stopped_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = stopped_once / "in", tmp_path / "out"
    given: dict[str, Any] = {"round_type": "adaround", "checkpoint": tmp_path / "c.npz"}
    expected = quantized(source, tmp_path / "whole", tokens(3), round_type="adaround")
    quantized(source, out, tokens(1), **given)
    with monkeypatch.context() as patch:
        patch.setattr(sequential, "whole_bytes", lambda model: 1 << 62)
        stopping(tokens(2), patch, segments.cut(pyquant.load_model(source))[2].first)
        with pytest.raises(KeyError, match="stopped"):
            quantized(source, out, tokens(3), memory_limit=LIMIT, **given)
    assert quantized(source, out, tokens(3), **given) == expected
    assert {file.name[:2] for file in (tmp_path / "c.npz.moments").iterdir()} == {"3-"}


def test_other_batches_are_refused(tmp_path: Path, stopped: Path) -> None:
    before = stopped.read_bytes()
    longer = [*tokens(2), np.ones((2, 12), np.int64)]
    for data in (tokens(2), tokens(4), tokens(3, seed=1), longer):
        with pytest.raises(CalibrationFileError, match=r"c\.npz: .*same data"):
            calibrate(tmp_path / "in", data_loader=data, checkpoint=stopped, memory_limit=LIMIT)
    assert stopped.read_bytes() == before


def test_what_is_not_finished_is_not_used(tmp_path: Path, stopped: Path) -> None:
    said = "2 of 6 segments"
    with pytest.raises(CalibrationFileError, match=rf"c\.npz: .*{said}"):
        quant_post_static(None, tmp_path / "in", tmp_path / "out", calibration=stopped)
    for order in (0, 1):
        pair = [Calibration.load(stopped), calibrate(tmp_path / "in", data_loader=tokens(1))]
        with pytest.raises(CalibrationFileError, match=rf"^merge: .*{said}"):
            Calibration.merge(pair[::-1] if order else pair)


@pytest.mark.parametrize("value", [[2, 2, 0], [1, 6, 3], [1, 6], "two"])
def test_strange_segments_are_refused(stopped: Path, value: Any) -> None:
    with np.load(stopped) as stored:
        arrays = dict(stored)
    header = {**json.loads(str(arrays["header"])), "segments": value}
    np.savez(stopped, **{**arrays, "header": np.array(json.dumps(header))})
    with pytest.raises(CalibrationFileError, match=r"c\.npz: .*its segments"):
        Calibration.load(stopped)


def test_another_version_is_refused(tmp_path: Path, stopped: Path) -> None:
    with np.load(stopped) as stored:
        arrays = dict(stored)
    header = {**json.loads(str(arrays["header"])), "version": 5}
    np.savez(stopped, **{**arrays, "header": np.array(json.dumps(header))})
    before = stopped.read_bytes()
    kept = sorted(path.name for path in (tmp_path / "c.npz.segments").iterdir())
    with pytest.raises(CalibrationFileError, match=r"c\.npz: its format is pyquant calibration 5"):
        calibrate(tmp_path / "in", data_loader=tokens(3), checkpoint=stopped, memory_limit=LIMIT)
    assert stopped.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "c.npz.segments").iterdir()) == kept


def test_segments_of_another_cut_are_refused(
    tmp_path: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "LEAST_BYTES", 1 << 10)
    with pytest.raises(CalibrationFileError, match=r"c\.npz: it is of 6 segments"):
        calibrate(tmp_path / "in", data_loader=tokens(3), checkpoint=stopped, memory_limit=LIMIT)


@pytest.mark.parametrize("damage", ["cut", "bit", "gone", "other"])
def test_a_damaged_file_between_segments_is_named(
    tmp_path: Path, stopped: Path, damage: str
) -> None:
    path = tmp_path / "c.npz.segments" / "1-2.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "cut":
        path.write_bytes(data[:99])
    elif damage == "bit":
        path.write_bytes(data)
    elif damage == "gone":
        path.unlink()
    else:
        np.savez(path, x=np.ones(3))
    before = stopped.read_bytes()
    with pytest.raises(CalibrationFileError, match=r"c\.npz\.segments/1-2\.npz: "):
        calibrate(tmp_path / "in", data_loader=tokens(3), checkpoint=stopped, memory_limit=LIMIT)
    assert stopped.read_bytes() == before


@pytest.mark.usefixtures("tight")
def test_no_room_between_segments_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = decoder(tmp_path / "in")
    (tmp_path / "c.npz.segments").write_text("a file")
    with pytest.raises(OutputError, match=r"c\.npz\.segments/?\S*: .*cannot be written"):
        calibrate(source, data_loader=tokens(2), checkpoint=tmp_path / "c.npz", memory_limit=LIMIT)
    monkeypatch.setattr(sequential, "_SHARE_IN_MEMORY", 1 << 62)
    monkeypatch.setattr("tempfile.tempdir", "/dev/full")
    with pytest.raises(OutputError, match=r"^/dev/full.*TMPDIR"):
        calibrate(source, data_loader=tokens(2), memory_limit=LIMIT)


@pytest.mark.usefixtures("tight")
@pytest.mark.parametrize("has_locks", [True, False])
def test_another_call_with_the_checkpoint_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_locks: bool
) -> None:
    """It would take the first one's files for its own, and leave its own ones there."""
    source, path = decoder(tmp_path / "in"), tmp_path / "c.npz"
    refused = []
    if not has_locks:
        no_locks = Mock(side_effect=OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)))
        monkeypatch.setattr("fcntl.flock", no_locks)
        # Other processes, which have locks, take temporary files without them for left behind.
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def beside() -> Iterator[Any]:
        yield tokens(2)[0]
        with pytest.raises(CalibrationFileError, match=r"c\.npz\.lock: another call") as caught:
            calibrate(source, data_loader=tokens(4)[2:], checkpoint=path, memory_limit=LIMIT)
        refused.append(caught)
        yield tokens(2)[1]

    calibrate(source, data_loader=beside(), checkpoint=path, memory_limit=LIMIT)
    assert refused
    calibrate(source, data_loader=tokens(2), checkpoint=tmp_path / "d.npz", memory_limit=LIMIT)
    assert path.read_bytes() == (tmp_path / "d.npz").read_bytes()
    assert {one.name for one in tmp_path.iterdir()} == {"in", "c.npz", "d.npz"}


@pytest.mark.usefixtures("tight")
def test_a_full_disk_keeps_what_is_done(tmp_path: Path, stopped_once: Path) -> None:
    """The disk is full in a late segment; with room there, the same call goes on."""
    source, path = stopped_once / "in", tmp_path / "c.npz"
    with pytest.MonkeyPatch.context() as patch:

        def full(stream: Any, **arrays: Any) -> None:
            if "3-1" in stream.name:
                raise OSError(28, os.strerror(28))
            write(stream, **arrays)

        write = np.savez
        patch.setattr("pyquant.calibration.boundaries.np.savez", full)
        with pytest.raises(OutputError, match=r"segments/3-1\.npz: .*No space left"):
            calibrate(source, data_loader=tokens(3), checkpoint=path, memory_limit=LIMIT)
    assert Calibration.load(path).segments == (3, 6, 0)
    calibrate(source, data_loader=tokens(3), checkpoint=path, memory_limit=LIMIT)
    assert path.read_bytes() == (stopped_once / "whole.npz").read_bytes()


@pytest.mark.usefixtures("tight")
def test_nan_in_a_late_segment_keeps_the_others(tmp_path: Path) -> None:
    """A batch overflows behind the first segment."""
    source, path = nan_net(tmp_path / "in"), tmp_path / "c.npz"
    good, bad = programs.random((2, 64)), np.full((2, 64), 1e10, np.float32)
    said = r"activation 'square1' holds 128 NaN .* in batch 1"
    for _ in range(2):  # the second call begins with the segment of that
        with pytest.raises(ActivationError, match=said):
            calibrate(source, data_loader=[good, bad], checkpoint=path, memory_limit=LIMIT)
        state = Calibration.load(path)
        assert state.segments is not None
        assert state.segments.done == 2


def nan_net(directory: Path) -> Path:
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 64])
    for index in range(3):
        weight = net.parameter(f"w{index}", np.eye(64, dtype=np.float32))
        x = net.op(
            "matmul_v2", {"X": x, "Y": weight}, ("Out", f"x{index}"), [-1, 64], programs.STRAIGHT
        )
        x = net.op(
            "elementwise_mul", {"X": x, "Y": x}, ("Out", f"square{index}"), [-1, 64], {"axis": -1}
        )
    weight = net.parameter("w", np.eye(64, dtype=np.float32))
    net.fetch(net.op("matmul_v2", {"X": x, "Y": weight}, ("Out", "y"), [-1, 64], programs.STRAIGHT))
    return net.save(directory)


@pytest.mark.usefixtures("tight")
def test_weights_that_change_between_segments_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, path = decoder(tmp_path / "in"), tmp_path / "c.npz"
    third = segments.cut(pyquant.load_model(source))[2].first
    run = sequential.SegmentForward.run

    def change(self: Any, known: Any, batch: int, statistics: Any) -> Any:
        if self._segment.first == third:
            os.utime(source / "model.pdiparams", (1, 1))
        return run(self, known, batch, statistics)

    monkeypatch.setattr(sequential.SegmentForward, "run", change)
    with pytest.raises(ModelFileError, match=r"model\.pdiparams: .*was changed"):
        calibrate(source, data_loader=tokens(2), checkpoint=path, memory_limit=LIMIT)
    assert Calibration.load(path).segments == (2, 6, 0)
    monkeypatch.setattr(sequential.SegmentForward, "run", run)
    with (source / "model.pdiparams").open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"1234")
    with pytest.raises(CalibrationFileError, match=r"c\.npz: .*of another model"):
        calibrate(source, data_loader=tokens(2), checkpoint=path, memory_limit=LIMIT)


@pytest.mark.usefixtures("tight")
def test_a_program_that_cannot_be_cut_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = decoder(tmp_path / "in")
    monkeypatch.setattr(segments, "_PASSED_ON", {proto.data_type_of("int64")})
    data = {"data_loader": tokens(2)}
    with pytest.raises(UnsupportedError, match=r"^memory_limit: 10 MB .*in segments: .*alive"):
        calibrate(source, memory_limit="10MB", **data)
    assert calibrate(source, memory_limit=LIMIT, **data).batches == 2


@pytest.mark.usefixtures("tight")
def test_control_flow_runs_as_a_whole(tmp_path: Path) -> None:
    source, data = branching_net(tmp_path / "in"), [programs.random((2, 64))]
    with pytest.raises(UnsupportedError, match=r"^memory_limit: 10 MB .*it has control flow"):
        calibrate(source, data_loader=data, memory_limit="10MB")
    calibrate(source, data_loader=data, memory_limit=LIMIT, checkpoint=tmp_path / "c.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequential, "whole_bytes", lambda model: 0)
        calibrate(source, data_loader=data, checkpoint=tmp_path / "d.npz")
    assert (tmp_path / "c.npz").read_bytes() == (tmp_path / "d.npz").read_bytes()


def branching_net(directory: Path) -> Path:
    """Write a program that scales a tensor in a branch, between two products."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 64])
    for index in range(2):
        weight = net.parameter(f"w{index}", programs.random((64, 64)))
        x = net.op(
            "matmul_v2", {"X": x, "Y": weight}, ("Out", f"x{index}"), [-1, 64], programs.STRAIGHT
        )
        if index == 0:
            x = scaled_in_a_branch(net, x)
    net.fetch(x)
    return net.save(directory)


def scaled_in_a_branch(net: programs.ProgramBuilder, x: str) -> str:
    yes = net.parameter("yes", np.ones(1, np.bool_))
    branch = net.program.blocks.add(idx=1, parent_idx=0)
    proto.add_var(net.block, "scaled", proto.FP32, [-1, 64])
    branch.ops.append(make_op("scale", {"X": [x]}, {"Out": ["scaled"]}, {"scale": 2.0}).desc)
    scope = net.block.vars.add(name="scope")
    scope.type.type = _STEP_SCOPES
    inputs, outputs = {"Cond": [yes], "Input": [x]}, {"Out": ["scaled"], "Scope": ["scope"]}
    op = make_op("conditional_block", inputs, outputs, {"is_scalar_condition": True})
    op.set_attr("sub_block", 1, _BLOCK)
    net.block.ops.append(op.desc)
    return "scaled"


_STEP_SCOPES, _BLOCK = 11, 8  # of VarType.Type and AttrType


def test_no_data_and_other_engines(tmp_path: Path, tight: None) -> None:
    source = decoder(tmp_path / "in")
    with pytest.raises(CalibrationDataError, match="yields nothing"):
        calibrate(source, data_loader=[], memory_limit=LIMIT)
    engine = type(sys)("ray")
    with pytest.raises(UnsupportedError, match=r"^memory_limit: engine"):
        calibrate(source, data_loader=[], memory_limit=LIMIT, engine=engine)
    for needs in ({"plan_for": "here"}, {"eval_function": lambda predictor: 1.0}):
        given: dict[str, Any] = {"data_loader": tokens(1), "memory_limit": LIMIT, **needs}
        with pytest.raises(UnsupportedError, match=rf"^{next(iter(needs))}: .*as a whole"):
            quant_post_static(None, source, tmp_path / "out", **given)


KILLED = """
import os, sys
from pyquant.calibration import sequential
from pyquant.program import segments
import numpy as np, paddle, pyquant, pyquant.static
segments.LEAST_BYTES = 1 << 14
sequential.whole_bytes = lambda model: 1 << 62
with np.load(sys.argv[2]) as stored:
    data = list(stored.values())
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        pyquant.quant_post_static(
            None, sys.argv[1], sys.argv[3], data_loader=data, checkpoint=sys.argv[4],
            memory_limit="100GB", round_type="adaround", verify=False,
        )
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_kills_cost_a_segment(tmp_path: Path, stopped_once: Path) -> None:
    """Each call is a process of its own, of one that has imported Paddle and done nothing yet.

    Two of them are killed as soon as they have saved a segment.
    """
    source, checkpoint = stopped_once / "in", tmp_path / "c.npz"
    expected = quantized(source, tmp_path / "whole", tokens(3), round_type="adaround")
    np.savez(tmp_path / "data.npz", *tokens(3))
    command = [sys.executable, "-c", KILLED, source, tmp_path / "data.npz", tmp_path / "out"]
    command.append(checkpoint)
    reached = []

    def saved() -> int:
        return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0

    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for is_killed in (True, True, False):
            before = saved()
            print(file=process.stdin, flush=True)
            child = int(process.stdout.readline())
            if is_killed:
                while saved() == before:
                    os.kill(child, 0)  # it is still there
                    time.sleep(1e-3)
                os.kill(child, signal.SIGKILL)
            ended = int(process.stdout.readline())
            state = Calibration.load(checkpoint)
            reached.append(6 if state.segments is None else state.segments.done)
        process.stdin.close()
    assert ended == 0
    assert reached == sorted(reached)
    assert reached[0] < reached[-1]
    assert model_bytes(tmp_path / "out") == expected
    assert not (tmp_path / "c.npz.segments").exists()
