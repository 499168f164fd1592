"""A short run of the fuzzer, and its finds: python -m bench.fuzz goes on."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.fuzz.cases import KINDS, Cases

pytestmark = pytest.mark.any_isa

CASES = {"model": 60, "json": 40, "parameters": 30, "calibration": 60, "network": 2}


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
