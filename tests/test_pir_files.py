"""Files of Paddle 3's format: the models made from them, and the errors if they are damaged.

The model in data/ was exported once by Paddle 3.3.1, so that Paddle 2 is tested on it, too.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle_run
import pytest

import pyquant
from pyquant import ModelFileError, PyquantError, SettingError, UnsupportedError, load_model
from pyquant.cli import main
from pyquant.program import proto
from pyquant.program.op import Op
from pyquant.program.op_protos import attribute_kinds

pytestmark = pytest.mark.any_isa

DATA = Path(__file__).parent / "data"
SMALL = DATA / "small.json"
PADDLE_3 = not paddle.__version__.startswith("2.")
IMAGES = np.random.default_rng(0).standard_normal((2, 3, 8, 12)).astype(np.float32)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A copy of the model, to be damaged: the path of the program."""
    for suffix in (".json", ".pdiparams"):
        shutil.copy(SMALL.with_suffix(suffix), tmp_path / f"small{suffix}")
    return tmp_path / "small.json"


def operations(document: Any) -> list[Any]:
    return document["program"]["regions"][0]["blocks"][0]["ops"]


def first(document: Any, name: str) -> Any:
    return next(operation for operation in operations(document) if operation["#"] == name)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def run(model_path: Path) -> np.ndarray[Any, Any]:
    return paddle_run.run(model_path, {"image": IMAGES})[0]


def converted(path: Path, directory: Path) -> np.ndarray[Any, Any]:
    model = load_model(path)
    return run(pyquant.save_model(model, directory, "m.pdmodel", "m.pdiparams")[0])


def test_the_model_is_found_by_directory_path_and_prefix(small: Path) -> None:
    for where in (small.parent, small, small.with_suffix("")):
        model = load_model(where)
        assert model.model_path == small
        assert len(model.parameters) == 9
        assert [var.name for var in model.feeds] == ["image"]
        assert model.fetches == ["fetch_name_0"]


def test_other_json_files_beside_the_model(small: Path) -> None:
    (small.parent / "config.json").write_text("{}")
    assert load_model(small.parent).model_path == small
    small.with_suffix(".pdiparams").rename(small.parent / "weights")
    with pytest.raises(ModelFileError, match=r"config\.json and small\.json.*model_filename"):
        load_model(small.parent)
    assert len(load_model(small.parent, "small.json", "weights").parameters) == 9


def test_probabilities_come_out(small: Path, tmp_path: Path) -> None:
    output = converted(small, tmp_path / "out")
    assert output.shape == (2, 10)
    np.testing.assert_allclose(output.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.skipif(not PADDLE_3, reason="Paddle 2 cannot run a .json")
@pytest.mark.parametrize("bits", [8, 16])
def test_dynamic_stays_json_and_equals_its_float_twin(
    small: Path, tmp_path: Path, bits: int
) -> None:
    result = pyquant.quant_post_dynamic(
        small, tmp_path / "out", weight_bits=bits, generate_test_model=True
    )
    assert result.model_path == tmp_path / "out/quantized_model/model.json"
    assert result.test_model_path == tmp_path / "out/test_model/model.json"
    quantized, twin = run(result.model_path), run(result.test_model_path)
    np.testing.assert_array_equal(quantized, twin)
    original = run(small)
    assert not np.array_equal(quantized, original)
    np.testing.assert_allclose(quantized, original, atol=0.02 if bits == 8 else 1e-4)


@pytest.mark.parametrize("bits", [8, 16])
def test_dynamic_json_is_read_again_and_equals_the_pdmodel(
    small: Path, tmp_path: Path, bits: int
) -> None:
    as_json = pyquant.quant_post_dynamic(small, tmp_path / "a", weight_bits=bits)
    as_pdmodel = pyquant.quant_post_dynamic(
        small, tmp_path / "b", weight_bits=bits, save_model_filename="m.pdmodel"
    )
    assert as_pdmodel.model_path.suffix == ".pdmodel"
    again = converted(as_json.model_path, tmp_path / "c")
    np.testing.assert_array_equal(again, run(as_pdmodel.model_path))
    stored = load_model(as_json.model_path).parameters
    types = [array.dtype for array in stored.values()]
    assert types.count(np.dtype(f"int{bits}")) == 3
    assert sum("quantized" in name for name in stored) == 3


def test_dynamic_weights_are_those_of_a_numpy_reference(small: Path, tmp_path: Path) -> None:
    pyquant.quant_post_dynamic(small, tmp_path / "out")
    before = load_model(small).parameters
    after = load_model(tmp_path / "out/quantized_model").parameters
    name = next(name for name in before if name.startswith("linear_") and ".w_" in name)
    weight = before[name]
    threshold = np.abs(weight).max(axis=0)
    integers = np.rint(weight * (np.float32(127) * (np.float32(1) / threshold))).astype(np.int8)
    np.testing.assert_array_equal(after[f"{name}.quantized"], integers)
    np.testing.assert_array_equal(after[f"{name}@scale"].ravel(), threshold / np.float32(127))
    assert name not in after


def test_skipped_ops_keep_their_weights(small: Path, tmp_path: Path) -> None:
    before = load_model(small).parameters
    name = next(name for name in before if name.startswith("linear_") and ".w_" in name)
    pyquant.quant_post_dynamic(small, tmp_path / "out", skip_tensor_list=[name])
    after = load_model(tmp_path / "out/quantized_model").parameters
    np.testing.assert_array_equal(after[name], before[name])


def test_static_writes_a_pdmodel(small: Path, tmp_path: Path) -> None:
    result = pyquant.quant_post_static(None, small, tmp_path / "out", data_loader=[IMAGES])
    assert result.model_path.suffix == ".pdmodel"
    assert "image" in result.thresholds()
    assert any(".pdmodel" in note for note in result.notes)
    int8 = paddle_run.run(result.model_path, {"image": IMAGES}, "float")[0]
    np.testing.assert_allclose(int8, converted(small, tmp_path / "float"), atol=0.03)


def test_static_does_not_write_json(small: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"model\.json: .*\.pdmodel"):
        pyquant.quant_post_static(
            None, small, tmp_path / "out", data_loader=[IMAGES], save_model_filename="model.json"
        )
    assert not (tmp_path / "out").exists()


def test_a_pdmodel_does_not_become_json(small: Path, tmp_path: Path) -> None:
    pyquant.save_model(load_model(small), tmp_path / "in", "m.pdmodel", "m.pdiparams")
    with pytest.raises(SettingError, match=r"/m\.pdmodel: .*\.json"):
        pyquant.quant_post_dynamic(
            tmp_path / "in", tmp_path / "out", save_model_filename="model.json"
        )
    assert not (tmp_path / "out").exists()


def test_lite_format_of_json_is_a_pdmodel(small: Path, tmp_path: Path) -> None:
    result = pyquant.quant_post_dynamic(small, tmp_path / "out", lite_format=True)
    assert result.model_path.suffix == ".pdmodel"
    with pytest.raises(SettingError, match=r"Paddle-Lite .*\.pdmodel"):
        pyquant.quant_post_dynamic(
            small, tmp_path / "b", lite_format=True, save_model_filename="m.json"
        )


def test_convert(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(small), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out/small.pdmodel"),
        str(tmp_path / "out/small.pdiparams"),
    ]
    assert (tmp_path / "out/small.pdiparams").read_bytes() == SMALL.with_suffix(
        ".pdiparams"
    ).read_bytes()
    assert main(["inspect", str(small)]) == 0
    assert "depthwise_conv2d" in capsys.readouterr().out


def remove_attribute(name: str, attribute: str) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        operation = first(document, name)
        operation["A"] = [item for item in operation["A"] if item["N"] != attribute]

    return change


def set_in(path: list[Any], value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        target = document
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


def rename_op(old: str, new: str) -> Callable[[Any], None]:
    return lambda document: first(document, old).update({"#": new})


DAMAGES = [
    (set_in(["base_code", "version"], 99), UnsupportedError, "99.* 1 to 4"),
    (set_in(["base_code", "version"], "4"), UnsupportedError, "'4'.* 1 to 4"),
    (set_in(["base_code", "magic"], "pdf"), ModelFileError, "base_code.magic"),
    (set_in(["base_code"], []), ModelFileError, "base_code.magic"),
    (set_in(["program"], {}), ModelFileError, "program.regions"),
    (set_in(["program", "regions", 0, "blocks", 0, "ops"], []), ModelFileError, " ops"),
    (rename_op("1.relu", "1.glow"), UnsupportedError, r"pd_op.glow \(1x\).* op 12"),
    (rename_op("1.relu", "3.own"), UnsupportedError, r"custom_op.own \(1x\)"),
    (rename_op("1.relu", "1.if"), UnsupportedError, r"op 12 .*pd_op.if"),
    (rename_op("1.relu", "1.while"), UnsupportedError, "op 12 .*pd_op.while"),
    (remove_attribute("1.data", "name"), ModelFileError, r"op 9 \(pd_op.data\): .*name"),
    (remove_attribute("1.full_int_array", "value"), ModelFileError, "op 15 .*'value'"),
    (
        lambda document: first(document, "1.relu")["I"][0].update({"%": 12345}),
        ModelFileError,
        r"op 12 \(1.relu\): .*%12345",
    ),
    (
        lambda document: first(document, "1.relu")["O"][0].update({"%": 1}),
        ModelFileError,
        "%1 ",
    ),
    (
        lambda document: first(document, "1.relu")["A"].append(
            {"N": "shade", "AT": {"#": "0.a_i32", "D": 1}}
        ),
        UnsupportedError,
        r"op 12 \(pd_op.relu\): .*'shade'",
    ),
    (
        lambda document: first(document, "p")["O"]["TT"]["D"].__setitem__(1, [7]),
        ModelFileError,
        r"/small.pdiparams: .*float32\[10\].*FP32\[7\]",
    ),
    (
        lambda document: first(document, "p")["A"].__setitem__(3, "zzz"),
        ModelFileError,
        "/small.pdiparams: .*'zzz'",
    ),
    (lambda document: operations(document).remove(first(document, "p")), ModelFileError, "op "),
]


@pytest.mark.parametrize(("change", "error", "message"), DAMAGES)
def test_what_is_refused(small: Path, change: Any, error: Any, message: str) -> None:
    edit(small, change)
    with pytest.raises(error, match=message) as raised:
        load_model(small)
    assert str(small.with_suffix("")) in str(raised.value)


def test_truncated_json(small: Path) -> None:
    small.write_bytes(small.read_bytes()[:2000])
    with pytest.raises(ModelFileError, match=r"/small\.json: .*JSON"):
        load_model(small)


def test_missing_parameter_file(small: Path) -> None:
    small.with_suffix(".pdiparams").unlink()
    with pytest.raises(ModelFileError, match=r"/small\.pdiparams: .*params_filename"):
        load_model(small)


def test_a_missing_parameter(small: Path) -> None:
    def add(document: Any) -> None:
        extra = copy.deepcopy(first(document, "p"))
        extra["A"][3], extra["O"]["%"] = "zzz", 999
        operations(document).insert(0, extra)

    edit(small, add)
    with pytest.raises(ModelFileError, match=r"/small.pdiparams: .*9 of 10.*'zzz'"):
        load_model(small)


def test_an_input_changed_in_place_and_read_again(small: Path) -> None:
    def change(document: Any) -> None:
        relu = first(document, "1.relu")
        again = copy.deepcopy(relu)
        again["O"][0]["%"] = 999
        relu["#"] = "1.relu_"
        operations(document).insert(operations(document).index(relu) + 1, again)

    edit(small, change)
    with pytest.raises(UnsupportedError, match=r"op 12 \(pd_op\.relu_\)"):
        load_model(small)


def fetch_again(document: Any, source: str, name: str) -> None:
    """Also fetch the result of the first op ``source``."""
    fetch = copy.deepcopy(first(document, "1.fetch"))
    fetch["I"] = [{"%": first(document, source)["O"][0]["%"]}]
    fetch["O"][0]["%"] = 999
    for attribute in fetch["A"]:
        attribute["AT"]["D"] = name if attribute["N"] == "name" else 1
    operations(document).append(fetch)


def test_whole_numbers_beyond_those_of_a_float_are_attributes() -> None:
    op = Op(proto.OpDesc(type="roll"))
    kind = attribute_kinds("roll")["shifts"]
    values = [2**53 + 1, 2**63 - 1, -(2**53) - 1, 2.0]
    op.set_attr("shifts", values, kind)
    assert list(op.desc.attrs[0].longs) == values
    for value in (1.5, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="whole"):
            op.set_attr("shifts", value, kind)


def test_two_outputs_of_one_name(small: Path) -> None:
    edit(small, lambda document: fetch_again(document, "1.relu", "fetch_name_0"))
    with pytest.raises(UnsupportedError, match="'fetch_name_0'"):
        load_model(small)


@pytest.mark.parametrize("source", ["1.data", "1.softmax"])
def test_an_input_and_a_value_as_a_second_output(small: Path, tmp_path: Path, source: str) -> None:
    edit(small, lambda document: fetch_again(document, source, "second"))
    model = load_model(small)
    paths = pyquant.save_model(model, tmp_path / "out", "m.pdmodel", "m.pdiparams")
    one, two = paddle_run.run(paths[0], {"image": IMAGES})
    np.testing.assert_array_equal(two, IMAGES if source == "1.data" else one)


def test_an_output_named_as_an_input(small: Path, tmp_path: Path) -> None:
    expected = converted(small, tmp_path / "before")
    edit(small, lambda document: first(document, "1.fetch")["A"][0]["AT"].update(D="image"))
    np.testing.assert_array_equal(converted(small, tmp_path / "after"), expected)


def nodes(document: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON document: its container, and the key or index in it."""
    found = []
    pending = [document]
    while pending:
        container = pending.pop()
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            found.append((container, key))
            if isinstance(value, (dict, list)):
                pending.append(value)
    return found


JUNK = [None, True, -1, 0, 7, 2**70, -1.5, 1e300, "", "x", "\ud800", [], {}, [[]], {"#": "1.relu"}]


def mutate(document: Any, generator: random.Random) -> None:
    places = nodes(document)
    container, key = generator.choice(places)
    action = generator.randrange(4)
    if action == 0:
        container[key] = generator.choice(JUNK)
    elif action == 1:
        del container[key]
    elif action == 2:
        other, other_key = generator.choice(places)
        container[key] = copy.deepcopy(other[other_key])
    elif isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))


def quantize_or_refuse(path: Path, output: Path) -> None:
    """Only pyquant's own errors may be raised, and no output may be left half written."""
    try:
        pyquant.quant_post_dynamic(path, output)
    except PyquantError as error:
        assert str(path.parent) in str(error) or "op" in str(error)  # noqa: PT017
        assert not output.exists()
    else:
        load_model(output / "quantized_model")
        shutil.rmtree(output)


@pytest.mark.parametrize("seed", range(20))
def test_fuzzed_documents(small: Path, tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    original = json.loads(small.read_bytes())
    for _ in range(60):
        document = copy.deepcopy(original)
        for _ in range(generator.choice([1, 1, 2, 5])):
            mutate(document, generator)
        small.write_text(json.dumps(document))
        quantize_or_refuse(small, tmp_path / "out")


@pytest.mark.parametrize("suffix", [".json", ".pdiparams"])
@pytest.mark.parametrize("seed", range(5))
def test_fuzzed_bytes(small: Path, tmp_path: Path, suffix: str, seed: int) -> None:
    generator = random.Random(seed)
    damaged = small.with_suffix(suffix)
    original = damaged.read_bytes()
    for _ in range(60):
        data = bytearray(original)
        start = generator.randrange(len(data))
        size = generator.choice([1, 1, 4, 50])
        action = generator.randrange(3)
        if action == 0:
            data[start : start + size] = generator.randbytes(size)
        elif action == 1:
            del data[start : start + size]
        else:
            data = data[:start]
        damaged.write_bytes(data)
        quantize_or_refuse(small, tmp_path / "out")
