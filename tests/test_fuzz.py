"""A short run of the fuzzer, and its finds: python -m bench.fuzz goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import pyquant
from bench.fuzz.__main__ import _would_run
from bench.fuzz.cases import KINDS, Cases, WrongModelError, check_network
from bench.fuzz.networks import random_plan
from bench.fuzz.shrinking import shrunk_test

pytestmark = pytest.mark.any_isa

CASES = {"model": 60, "json": 60, "parameters": 30, "calibration": 60, "network": 2}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    return Cases(0, tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_pyquants_errors(cases: Cases, kind: str) -> None:
    outcomes = Counter(
        cases.run(number, (kind,), lambda stage: None) for number in range(CASES[kind])
    )
    assert outcomes.total() == CASES[kind]
    assert outcomes["taken"]
    assert len(outcomes) > 1 or kind == "network"


def test_a_find_shrinks_to_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug: folding is wrong for networks with both a pooling and a batch_norm."""
    fold = pyquant.fold

    def wrong(model: Any) -> None:
        types = {op.type for op in model.ops()}
        fold(model)
        if {"pool2d", "batch_norm"} <= types:
            for name, tensor in model.parameters.items():
                model.parameters[name] = np.asarray(tensor) * np.float32(2)

    monkeypatch.setattr(pyquant, "fold", wrong)
    plans = map(random_plan, map(Random, range(1000)))
    plan = next(
        one
        for one in plans
        if {"pooling", "batch_norm"} <= dict(one.layers).keys() and len(one.layers) > 8
    )
    text = shrunk_test(plan, check_network, tmp_path)
    assert "fold: WrongModelError" in text
    found: dict[str, Any] = {}
    exec(text, found)
    with pytest.raises(WrongModelError, match="folded: output 0 errs"):
        found["test_shrunk"](tmp_path)
    assert set(re.findall(r"\('(\w+)', ", text)) == {"batch_norm", "pooling"}
    assert "shape=(1, 1, 2, 2)" in text


def test_time_in_which_a_process_is_stopped_is_not_its_own() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            while _would_run(process.pid):  # until it sleeps
                pass
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            assert _would_run(process.pid)
        finally:
            process.kill()
