"""Paddle 3's .json models: what is imported computes the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle.base import core
from paddle_run import predict
from programs import check_complete

from pyquant.program.model import load_model, save_model
from pyquant.program.pir.table import TABLE

if paddle.__version__.startswith("2."):
    pytest.skip("Paddle 2 writes no .json models", allow_module_level=True)

from pir_cases import CASES, NETWORKS

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of all exported networks."""
    directory = tmp_path_factory.mktemp("pir")
    run_with_pir("pir_export.py", directory)
    return directory


def run_with_pir(script: str, directory: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "FLAGS_enable_pir_api"}
    command = [sys.executable, str(HERE / script), str(directory)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_same_bits(directory: Path, name: str, tmp_path: Path) -> None:
    failed = directory / f"{name}.error"
    assert not failed.exists(), failed.read_text()
    model = load_model(directory, f"{name}.json")
    check_complete(model)
    model_path, params_path = save_model(model, tmp_path, "m.pdmodel", "m.pdiparams")
    runs = sorted(directory.glob(f"{name}.*.npz"))
    assert runs
    for run in runs:
        arrays = dict(np.load(run))
        expected = [arrays[key] for key in arrays if key.startswith("output")]
        feed = {var.name: arrays[var.name] for var in model.feeds}
        actual = predict(model_path, params_path, feed)
        assert len(actual) == len(expected) > 0
        for ours, original in zip(actual, expected):
            assert ours.dtype == original.dtype
            np.testing.assert_array_equal(ours, original)


@pytest.mark.parametrize(("index", "name"), list(enumerate(CASES)), ids=list(CASES))
def test_op(exported: Path, index: int, name: str, tmp_path: Path) -> None:
    check_same_bits(exported, f"case{index}", tmp_path)
    operations = json_names(exported / f"case{index}.json")
    op = name.split()[0]
    assert {f"1.{op}", f"1.{op}_"} & set(operations), operations


@pytest.mark.parametrize("name", NETWORKS)
def test_network(exported: Path, name: str, tmp_path: Path) -> None:
    check_same_bits(exported, name, tmp_path)


def test_every_line_of_the_table_has_a_case() -> None:
    tested = {name.split()[0] for name in CASES}
    tested |= {"rnn"}  # which the networks have
    assert set(TABLE) - tested == set()
    assert len(TABLE) >= 150


def json_names(path: Path) -> Counter[str]:
    operations = json.loads(path.read_bytes())["program"]["regions"][0]["blocks"][0]["ops"]
    return Counter(operation["#"] for operation in operations)


# What the translator to PIR calls otherwise, or leaves to the op that uses it.
TRANSLATED = {"1.data": "1.feed", "1.shape64": "1.shape"}
LEFT_OUT = {"1.full", "1.full_int_array", "p", "0.parameter", "0.combine", "0.split", "0.slice"}


def comparable(names: Counter[str]) -> Counter[str]:
    result: Counter[str] = Counter()
    for name, count in names.items():
        result[TRANSLATED.get(name, name).rstrip("_")] += 0 if name in LEFT_OUT else count
    return +result


def translated_names(path: Path) -> Counter[str]:
    desc = core.ProgramDesc(load_model(path).program.SerializeToString())
    program = paddle.pir.translate_to_pir(desc)  # which owns the operations
    numbers = {"pd_op": "1", "builtin": "0"}
    parts = (operation.name().split(".") for operation in program.global_block().ops)
    return Counter(f"{numbers[dialect]}.{name}" for dialect, name in parts)


def check_round_trip(path: Path) -> None:
    original = comparable(json_names(path))
    translated = comparable(translated_names(path))
    # shape is int32 in a ProgramDesc, and range takes operands of its result's dtype alone.
    casts = json_names(path)["1.shape64"] + 3 * original["1.arange"]
    added = translated - original
    assert added["1.cast"] <= casts
    assert original - translated == Counter()
    assert set(added) <= {"1.cast"}


# The translator takes a mul op apart into matmul and reshape; set_value is written with a tensor.
DIFFERENT = ("matmul_with_flatten", "set_value")
ROUND_TRIPS = [(index, name) for index, name in enumerate(CASES) if not name.startswith(DIFFERENT)]


@pytest.mark.parametrize(("index", "name"), ROUND_TRIPS, ids=[name for _, name in ROUND_TRIPS])
def test_round_trip_of_an_op(exported: Path, index: int, name: str) -> None:
    check_round_trip(exported / f"case{index}.json")


@pytest.mark.parametrize("name", NETWORKS)
def test_round_trip_of_a_network(exported: Path, name: str) -> None:
    check_round_trip(exported / f"{name}.json")


def test_names_are_kept(exported: Path) -> None:
    model: Any = load_model(exported / "resnet18")
    assert [var.name for var in model.feeds] == ["x"]
    assert model.fetches == ["fetch_name_0"]
    assert any(name.startswith("conv2d_") for name in model.parameters)


def test_dynamic_equals_paddles_own_arithmetic(tmp_path: Path) -> None:
    run_with_pir("pir_dynamic.py", tmp_path)
