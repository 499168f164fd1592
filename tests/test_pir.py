"""Paddle 3's .json models: the imported program computes the same bits."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle.base import core
from paddle_run import predict, relative_error
from programs import check_complete

from pyquant import UnsupportedError
from pyquant.program import proto
from pyquant.program.model import Model, load_model, save_model
from pyquant.program.op import Op
from pyquant.program.pir.table import TABLE
from pyquant.program.targets.openvino import check_readable

if paddle.__version__.startswith("2."):
    pytest.skip("Paddle 2 writes no .json models", allow_module_level=True)

from pir_cases import CASES, NETWORKS
from pir_process import run_with_pir

pytestmark = pytest.mark.any_isa


def check_same_bits(directory: Path, name: str, tmp_path: Path) -> None:
    failed = directory / f"{name}.error"
    assert not failed.exists(), failed.read_text()
    model = load_model(directory, f"{name}.json")
    check_complete(model)
    check_same_bits_of(model, directory, name, tmp_path)


def check_same_bits_of(model: Model, directory: Path, name: str, tmp_path: Path) -> None:
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


def give_tensors(model: Model) -> set[tuple[str, str]]:
    """Move attributes into parameters that stand for them; return op types and attributes."""
    given = set()
    for op in model.ops():
        for spec in (
            s for line in TABLE.values() if line.op_type == op.type for s in line.operands
        ):
            slots = [slot for slot in (spec.slot, spec.list_slot) if slot]
            values = np.asarray(op.value(spec.attribute or "") or ()).reshape(-1)
            if slots and values.size and not any(op.inputs(s) for s in slots):
                name = f"{op.type}.{spec.attribute}.{len(model.parameters)}"
                add_parameter(model, name, values)
                op.desc.inputs.add(parameter=slots[0], arguments=[name])
                op.remove_attrs((spec.attribute,))
                given.add((op.type, spec.attribute))
    return given


def attributes_of(op: Op) -> dict[str, Any]:
    return {attribute.name: attribute for attribute in op.desc.attrs}


def add_parameter(model: Model, name: str, values: np.ndarray[Any, Any]) -> None:
    array = values.astype(np.float32 if values.dtype.kind == "f" else np.int64)
    block = model.program.blocks[0]
    var = proto.add_var(block, name, proto.paddle_dtype(array.dtype), array.shape)
    var.persistable = True
    model.parameters[name] = array


def test_tensors_are_the_attributes_that_they_stand_for(exported: Path, tmp_path: Path) -> None:
    """A model whose attributes are moved into parameters is read as before."""
    given = set()
    for index, case in enumerate(CASES):
        name, directory = f"case{index}", tmp_path / str(index)
        model = load_model(exported, f"{name}.json")
        expected = [op.copy() for op in model.ops()]
        moved = give_tensors(model)
        if not moved:
            continue
        save_model(model, directory / "in", "m.pdmodel", "m.pdiparams")
        again = load_model(directory / "in")
        for op, before in zip(again.ops(), expected):
            assert attributes_of(op) == attributes_of(before), case
            assert op.reads() == before.reads(), case
        check_same_bits_of(again, exported, name, directory / "out")
        given |= moved
    assert {
        *[("clip", "min"), ("clip", "max"), ("scale", "scale"), ("reshape2", "shape")],
        *[("slice", "starts"), ("slice", "ends"), ("expand_v2", "shape"), ("tile", "repeat_times")],
        *[("concat", "axis"), ("split", "axis"), ("gather", "axis"), ("unsqueeze2", "axes")],
        *[("fill_constant", "shape"), ("pad3d", "paddings"), ("top_k_v2", "k")],
    } <= given, given


@pytest.mark.parametrize("name", NETWORKS)
def test_network(exported: Path, name: str, tmp_path: Path) -> None:
    check_same_bits(exported, name, tmp_path)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_in_openvino(exported: Path, name: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from openvino_run import outputs

    model = load_model(exported, f"{name}.json")
    if name in ("GRU", "SimpleRNN"):
        with pytest.raises(UnsupportedError, match="'rnn'"):
            check_readable(model)
        return
    check_readable(model)
    path, _ = save_model(model, tmp_path, "m.pdmodel", "m.pdiparams")
    arrays = dict(np.load(exported / f"{name}.0.npz"))
    feed = {var.name: arrays[var.name] for var in model.feeds}
    assert relative_error(outputs(path, feed)[0], arrays["output000"]) < 1e-5


def test_every_line_of_the_table_has_a_case() -> None:
    tested = {name.split()[0] for name in CASES}
    tested |= {"rnn"}  # the networks have it
    assert set(TABLE) - tested == set()
    assert len(TABLE) >= 150


def json_names(path: Path) -> Counter[str]:
    operations = json.loads(path.read_bytes())["program"]["regions"][0]["blocks"][0]["ops"]
    return Counter(operation["#"] for operation in operations)


# Ops that the translator to PIR renames, or leaves to the op that uses them.
TRANSLATED = {"1.data": "1.feed", "1.shape64": "1.shape"}
LEFT_OUT = {"1.full", "1.full_int_array", "p", "0.parameter", "0.combine", "0.split", "0.slice"}


def comparable(names: Counter[str]) -> Counter[str]:
    result: Counter[str] = Counter()
    for name, count in names.items():
        result[TRANSLATED.get(name, name).rstrip("_")] += 0 if name in LEFT_OUT else count
    return +result


def translated_names(path: Path) -> Counter[str]:
    desc = core.ProgramDesc(load_model(path).program.SerializeToString())
    program = paddle.pir.translate_to_pir(desc)  # owns the operations
    numbers = {"pd_op": "1", "builtin": "0"}
    parts = (operation.name().split(".") for operation in program.global_block().ops)
    return Counter(f"{numbers[dialect]}.{name}" for dialect, name in parts)


def check_round_trip(path: Path) -> None:
    original = comparable(json_names(path))
    translated = comparable(translated_names(path))
    # shape is int32 in a ProgramDesc, and range takes only operands of its result's dtype.
    casts = json_names(path)["1.shape64"] + 3 * original["1.arange"]
    added = translated - original
    assert added["1.cast"] <= casts
    assert original - translated == Counter()
    assert set(added) <= {"1.cast"}


# The translator splits a mul op into matmul and reshape; pyquant writes set_value with a tensor,
# and a clip between computed limits as maximum and minimum.
DIFFERENT = ("matmul_with_flatten", "set_value", "clip by a tensor")
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
