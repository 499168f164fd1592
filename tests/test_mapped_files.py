"""Files that others change while they are read, and files that are none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from programs import Net, conv_net

from pyquant import (
    Calibration,
    CalibrationDataError,
    CalibrationFileError,
    ModelFileError,
    load_model,
    quant_post_static,
    save_model,
)
from pyquant.calibration.source import SampleFiles
from pyquant.record import read_record

pytestmark = pytest.mark.any_isa


def large_net(directory: Path) -> Path:
    """Save a network whose parameters fill many pages."""
    return Net([1, 512]).matmul(2048, trans_x=False, trans_y=False).end().save(directory)


@pytest.mark.parametrize("size", [0, 100_000])
def test_a_parameter_file_truncated_while_it_is_mapped(tmp_path: Path, size: int) -> None:
    source = large_net(tmp_path / "in")
    model = load_model(source)
    os.truncate(source / "m.pdiparams", size)
    assert not model.parameters["w1"][-1].any()  # the process goes on
    with pytest.raises(ModelFileError, match=r"/m\.pdiparams: .*was changed"):
        save_model(model, tmp_path / "out", "m.pdmodel", "m.pdiparams")
    assert not (tmp_path / "out").exists()


def test_a_parameter_file_truncated_while_it_is_written(tmp_path: Path) -> None:
    source = large_net(tmp_path / "in")
    model = load_model(source)
    os.truncate(source / "m.pdiparams", 100_000)
    with pytest.raises(ModelFileError, match=r"/m\.pdiparams: .*was changed"):
        save_model(model, tmp_path / "out", "m.pdmodel", "m.pdiparams")
    assert not (tmp_path / "out").exists()


def test_a_parameter_file_that_another_one_replaces(tmp_path: Path) -> None:
    """What is mapped stays whole, so nothing is wrong."""
    source = large_net(tmp_path / "in")
    model = load_model(source)
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "other").replace(source / "m.pdiparams")
    save_model(model, tmp_path / "out", "m.pdmodel", "m.pdiparams")
    assert (load_model(tmp_path / "out").parameters["w1"] == model.parameters["w1"]).all()


def test_a_parameter_file_rewritten_in_place(tmp_path: Path) -> None:
    source = conv_net().save(tmp_path / "in")
    model = load_model(source)
    path = source / "m.pdiparams"
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(0, 0))
    with pytest.raises(ModelFileError, match=r"/m\.pdiparams: .*was changed"):
        save_model(model, tmp_path / "out", "m.pdmodel", "m.pdiparams")


def test_samples_truncated_while_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((1000, 3, 8, 8), np.float32) + 1)
    samples = iter(SampleFiles(path))
    assert next(samples)[0].any()
    os.truncate(path, 5000)
    with pytest.raises(CalibrationDataError, match=r"/x\.npy: it was changed"):
        list(samples)


def test_another_bus_error_still_ends_the_process(tmp_path: Path) -> None:
    """Only memory that is watched is replaced."""
    code = """
import mmap, os, sys
import numpy as np
import pyquant
pyquant.load_model(sys.argv[1])
path = sys.argv[2]
with open(path, "wb") as file:
    file.write(bytes(20000))
with open(path, "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
os.truncate(path, 0)
print(mapped[0])
"""
    source = conv_net().save(tmp_path / "in")
    command = [sys.executable, "-W", "ignore", "-c", code, source, tmp_path / "x"]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert ended.returncode == -signal.SIGBUS


def test_pipes_are_refused_by_name(tmp_path: Path, source: Path) -> None:
    """Nothing waits for somebody to write to them."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ModelFileError, match=r"/pipe: .*no regular file"):
        load_model(tmp_path, "pipe", "pipe")
    with pytest.raises(ModelFileError, match=r"/pipe: .*no regular file"):
        load_model(source, "m.pdmodel", "../pipe")
    with pytest.raises(CalibrationFileError, match=r"/pipe: .*no regular file"):
        Calibration.load(pipe)
    for given in (pipe, Path("/dev/zero")):
        with pytest.raises(CalibrationDataError, match=f"{given}: .*no regular file"):
            quant_post_static(None, source, tmp_path / "out", data_loader=given)


def test_enormous_files_are_refused_before_memory_is_taken(tmp_path: Path, source: Path) -> None:
    """Sparse ones: they take no room on the disk."""
    program = source / "m.pdmodel"
    os.truncate(program, 2**40)
    with pytest.raises(ModelFileError, match=rf"/m\.pdmodel: .*has {2**40} bytes"):
        load_model(source)
    record = tmp_path / "pyquant.json"
    record.write_text("{}")
    os.truncate(record, 2**40)
    assert read_record(tmp_path / "m.pdmodel") is None
