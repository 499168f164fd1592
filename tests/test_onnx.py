"""Models written as ONNX: what ONNX Runtime computes is what Paddle computes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import paddle
import pytest
from onnx_run import check_near, run_onnx
from paddle_run import predict

import pyquant
from pyquant.cli import main
from pyquant.program.model import load_model
from pyquant.program.onnx_model import export
from pyquant.program.onnx_model.table import TABLE

pytestmark = pytest.mark.any_isa

IS_OLD = paddle.__version__.startswith("2.")  # which writes no .json
CASES, NETWORKS = {}, {}
if not IS_OLD:
    from pir_cases import CASES, NETWORKS

WITHOUT_A_ROW = {
    *("as_complex", "as_real", "cholesky", "complex", "digamma", "eigh", "erfinv", "fft_r2c"),
    *("fractional_max_pool2d", "gammaln", "i0", "i0e", "i1", "i1e", "imag", "inverse", "lgamma"),
    *("lu", "mode", "nextafter", "polygamma", "psroi_pool", "qr", "real", "slogdet", "solve"),
    *("svd", "triangular_solve", "viterbi_decode"),
}
NEWER_OPSET = {"bitwise_and": 18, "bitwise_or": 18, "bitwise_xor": 18, "fold": 18}
NEWER_OPSET |= {"deformable_conv": 19}
FEW_NETWORKS = ("GRU", "LSTM", "MultiHeadAttention", "SimpleRNN", "TransformerEncoder")
FEW_NETWORKS += ("mobilenet_v3_small", "shufflenet_v2", "squeezenet1_1", "googlenet", "resnet18")


def check_as_paddle(exported: Path, name: str, path: Path, opset: int = 17) -> None:
    pyquant.save_onnx(load_model(exported, f"{name}.json"), path, opset=opset)
    runs = sorted(exported.glob(f"{name}.*.npz"))
    assert runs
    for run in runs:
        arrays = dict(np.load(run))
        expected = [arrays[key] for key in arrays if key.startswith("output")]
        actual = run_onnx(path, arrays)
        assert len(actual) == len(expected) > 0
        for one, other in zip(actual, expected):
            check_near(one, other)


@pytest.mark.parametrize(
    ("index", "name"),
    [(at, name) for at, name in enumerate(CASES) if name.split()[0] not in WITHOUT_A_ROW],
)
def test_op(exported: Path, index: int, name: str, tmp_path: Path) -> None:
    opset = NEWER_OPSET.get(name, 17)
    check_as_paddle(exported, f"case{index}", tmp_path / "m.onnx", opset)


@pytest.mark.parametrize(
    ("index", "name"),
    [(at, name) for at, name in enumerate(CASES) if name.split()[0] in WITHOUT_A_ROW],
)
def test_op_without_a_row_is_named(exported: Path, index: int, name: str, tmp_path: Path) -> None:
    model = load_model(exported, f"case{index}.json")
    missing = [op for op in model.ops() if op.type not in (*TABLE, "feed", "fetch")]
    with pytest.raises(pyquant.UnsupportedError) as caught:
        pyquant.save_onnx(model, tmp_path / "out" / "m.onnx")
    assert f"{missing[0].type} -> '{missing[0].writes()[0]}'" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name in FEW_NETWORKS if name in NETWORKS])
@pytest.mark.parametrize("opset", [17, 21])
def test_network(exported: Path, name: str, opset: int, tmp_path: Path) -> None:
    check_as_paddle(exported, name, tmp_path / "m.onnx", opset)


@pytest.mark.skipif(IS_OLD, reason="Paddle 2 writes no .json models")
@pytest.mark.parametrize("name", NEWER_OPSET)
def test_op_of_a_newer_opset_is_named(exported: Path, name: str, tmp_path: Path) -> None:
    model = load_model(exported, f"case{list(CASES).index(name)}.json")
    with pytest.raises(pyquant.UnsupportedError, match=f"{name} .* needs opset 1[89], not 17"):
        pyquant.save_onnx(model, tmp_path / "m.onnx")


def test_lengths_stay_dynamic(source: Path, tmp_path: Path) -> None:
    """A batch of another size runs."""
    model = load_model(source)
    (path,) = pyquant.save_onnx(model, tmp_path / "m.onnx")
    written = onnx.load(path)
    (given,) = written.graph.input
    assert given.type.tensor_type.shape.dim[0].dim_param == f"{given.name}.0"
    assert [one.name for one in written.graph.output] == model.fetches
    assert written.opset_import[0].version == 17
    for size in (1, 3):
        feed = {given.name: np.random.default_rng(0).random((size, *FEED), np.float32)}
        expected = predict(model.model_path, model.params_path, feed)
        for one, other in zip(run_onnx(path, feed), expected):
            check_near(one, other)


FEED = (3, 8, 8)


def test_large_models_have_a_second_file(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pyquant.save_onnx(load_model(source), tmp_path / "whole.onnx")
    monkeypatch.setattr(export, "LARGEST_FILE", 100)
    monkeypatch.setattr(export, "_SMALL", 64)
    parts = pyquant.save_onnx(load_model(source), tmp_path / "m.onnx")
    assert [path.name for path in parts] == ["m.onnx", "m.onnx.data"]
    name = load_model(source).feeds[0].name
    feed = {name: np.random.default_rng(0).random((2, *FEED), np.float32)}
    for one, other in zip(run_onnx(parts[0], feed), run_onnx(whole[0], feed)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("command", ["convert", "fold"])
def test_command(
    source: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / "m.onnx"
    assert main([command, str(source), str(path), "--opset", "18", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == [str(path)]
    assert onnx.load(path).opset_import[0].version == 18


def test_opset_is_checked(source: Path, tmp_path: Path) -> None:
    with pytest.raises(pyquant.SettingError, match="opset=9: expected 17 to 24"):
        pyquant.save_onnx(load_model(source), tmp_path / "m.onnx", opset=9)
    assert main(["convert", str(source), str(tmp_path / "out"), "--opset", "18"]) == 1
    assert not list(tmp_path.glob("*.onnx"))


def test_onnx_is_no_source(source: Path, tmp_path: Path) -> None:
    (path,) = pyquant.save_onnx(load_model(source), tmp_path / "m.onnx")
    with pytest.raises(pyquant.UnsupportedError, match="reads Paddle's formats"):
        load_model(path)


def test_missing_package_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(pyquant.UnsupportedError, match="extra 'onnx'"):
        pyquant.save_onnx(load_model(source), tmp_path / "m.onnx")


def test_result_stays_as_it_was_if_writing_fails(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.mkdir()
    with pytest.raises(pyquant.OutputError):
        pyquant.save_onnx(load_model(source), path)
    assert path.is_dir()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "in", path]


def test_every_row_has_a_name_of_paddle() -> None:
    """A row of an op that Paddle lacks would never be read."""
    from pyquant.program.op_protos import attribute_kinds

    unknown = []
    for op_type in TABLE:
        try:
            attribute_kinds(op_type)
        except ValueError:
            unknown.append(op_type)
    assert not unknown or IS_OLD, unknown
    assert len(TABLE) >= 200
