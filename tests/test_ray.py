"""Calibration on the workers of a local Ray."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from calibrations import BATCHES, quantized
from static_runs import model_bytes

from pyquant import (
    ActivationError,
    Calibration,
    calibrate,
    cli,
    load_model,
)
from pyquant.program import proto

ray = pytest.importorskip("ray")  # an optional extra

pytestmark = pytest.mark.any_isa


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, before)  # Ray has one of its own


def test_the_model_is_that_of_one_process(tmp_path: Path, source: Path) -> None:
    expected = quantized(source, tmp_path / "here", data_loader=BATCHES)
    assert quantized(source, tmp_path / "ray", data_loader=BATCHES, engine=ray) == expected


def test_a_worker_that_dies_costs_nothing(tmp_path: Path, source: Path) -> None:
    killed = []

    def killing() -> Iterator[Any]:
        for number, batch in enumerate(BATCHES):
            if number in (6, 10):
                killed.extend(kill_workers())
            yield batch

    expected = calibrate(source, data_loader=BATCHES)
    seen = calibrate(source, data_loader=killing(), engine=ray)
    assert killed
    assert seen.progress == expected.progress
    for name, statistic in expected.statistics.items():
        assert seen.statistics[name].values == statistic.values
        np.testing.assert_array_equal(seen.statistics[name].counts, statistic.counts)


def kill_workers() -> list[int]:
    """Kill every worker of this Ray that has Paddle loaded, as those that run batches have."""
    killed = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if b"ray::" not in (entry / "cmdline").read_bytes() or not is_descendant(entry):
                continue
            if "libpaddle" in (entry / "maps").read_text():
                os.kill(int(entry.name), signal.SIGKILL)
                killed.append(int(entry.name))
        except OSError:
            continue
    return killed


def is_descendant(process: Path) -> bool:
    """Return whether this process started the one at ``process``, or an ancestor of it."""
    while process.name not in ("0", "1", str(os.getpid())):
        # From "pid (name) state parent ...", where the name may hold anything.
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        process = process.with_name(parent)
    return process.name == str(os.getpid())


def test_a_checkpoint_has_the_batches_in_order(tmp_path: Path, source: Path) -> None:
    class StoppedError(Exception):
        pass

    def stopping() -> Iterator[Any]:
        yield from BATCHES[:11]
        raise StoppedError

    path = tmp_path / "c.npz"
    with pytest.raises(StoppedError):
        calibrate(source, data_loader=stopping(), engine=ray, checkpoint=path, checkpoint_every=1)
    assert 0 < Calibration.load(path).batches < 11
    calibrate(source, data_loader=BATCHES, checkpoint=path)
    expected = quantized(source, tmp_path / "whole", data_loader=BATCHES)
    assert quantized(source, tmp_path / "out", calibration=path) == expected


DRIVER = """
import sys
import numpy as np, ray
import pyquant

def batches():
    for number, batch in enumerate(np.load(sys.argv[3])):
        print(number, flush=True)
        if number == 8:
            sys.stdin.read()
        yield batch

ray.init(address=sys.argv[1], log_to_driver=False)
pyquant.calibrate(
    sys.argv[2], data_loader=batches(), engine=ray, checkpoint=sys.argv[4], checkpoint_every=1
)
"""


def test_a_driver_that_dies_leaves_its_checkpoint(tmp_path: Path, source: Path) -> None:
    """Its tasks are under way on a cluster that goes on."""
    np.save(tmp_path / "x.npy", np.stack(BATCHES))
    path, address = tmp_path / "c.npz", ray.get_runtime_context().gcs_address
    arguments = [address, source, tmp_path / "x.npy", path]
    command = [sys.executable, "-W", "ignore", "-c", DRIVER, *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as driver:
        assert driver.stdout is not None
        while driver.stdout.readline() not in ("8\n", ""):
            pass
        driver.kill()
    assert 0 < Calibration.load(path).batches <= 8
    calibrate(source, data_loader=BATCHES, engine=ray, checkpoint=path)
    calibrate(source, data_loader=BATCHES, checkpoint=tmp_path / "whole.npz")
    assert path.read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_errors_are_those_of_one_process(source: Path) -> None:
    bad = BATCHES[4].copy()
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(ActivationError, match=r"'x' .*\b1 NaN .*batch 4"):
        calibrate(source, data_loader=[*BATCHES[:4], bad, *BATCHES[5:]], engine=ray)


def test_the_command_line(tmp_path: Path, source: Path) -> None:
    np.save(tmp_path / "d.npy", np.concatenate(BATCHES))
    address = ray.get_runtime_context().gcs_address
    arguments = ["static", str(source), "--data", str(tmp_path / "d.npy"), "--batch-size", "3"]
    for name, more in (("a", []), ("b", ["--ray", address])):
        assert cli.main([*arguments, "-o", str(tmp_path / name), *more]) == 0
    assert model_bytes(tmp_path / "a") == model_bytes(tmp_path / "b")


def test_a_model_by_links_to_names_without_a_suffix(tmp_path: Path) -> None:
    """As in the cache of a model hub."""
    data = Path(__file__).parent / "data"
    (tmp_path / "hub").mkdir()
    for number, suffix in enumerate((".json", ".pdiparams")):
        shutil.copy(data / f"small{suffix}", tmp_path / str(number))
        (tmp_path / "hub" / f"model{suffix}").symlink_to(tmp_path / str(number))
    feeds = load_model(data / "small.json").feeds
    dims = {var.name: list(proto.tensor_desc(var).dims) for var in feeds}
    sizes = {name: [8 if size < 0 else size for size in shape[1:]] for name, shape in dims.items()}
    feed = {name: programs.random((2, *shape)) for name, shape in sizes.items()}
    expected = calibrate(tmp_path / "hub", data_loader=[feed])
    seen = calibrate(tmp_path / "hub", data_loader=[feed], engine=ray)
    assert seen.statistics.keys() == expected.statistics.keys()
