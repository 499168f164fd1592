"""Set-up that must precede the first import of Paddle or of a test module."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Paddle's Executor reads a .pdmodel only with PIR switched off.
os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112

# The workers and their child processes share the cores. Threads that spin while they wait take a
# third of the time away from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The helpers come first, without the tests, which so cannot import one another. The checkout, for
# bench, comes last, so that its source folder pyquant/ does not hide the installed package.
sys.path.insert(0, str(Path(__file__).parent / "helpers"))
sys.path.append(str(Path(__file__).parent.parent))


@pytest.fixture(scope="session", autouse=True)
def outside_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave the checkout: `python -c` and Ray's workers import from their directory first."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("outside"))
    yield
    os.chdir(before)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return the directory of a small network, `programs.conv_net`."""
    from programs import conv_net

    return conv_net().save(tmp_path / "in")


@pytest.fixture
def int8_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small ops be int8, although they save no time: what is tested is what they compute."""
    from dataclasses import replace

    from pyquant.program.targets.profiles import DEPLOY_BACKENDS

    for name, target in DEPLOY_BACKENDS.items():
        monkeypatch.setitem(DEPLOY_BACKENDS, name, replace(target, least_multiplications=0))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of all networks of `pir_cases`, as `pir_export` writes them once."""
    from pir_process import run_with_pir

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # which the workers share
    directory, written = root / "pir", root / "pir written"
    with (root / "pir lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not written.exists():
            directory.mkdir()
            run_with_pir("pir_export.py", directory)
            written.touch()
    return directory


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """Heed Ctrl-C even in a process started in the background, where shells make it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def restored_isa():
    """Restore the instruction set."""
    from pyquant import _native

    before = _native.isa()
    yield
    _native.set_isa(before)
