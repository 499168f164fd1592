"""Reading and writing whole models."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
from paddle_run import predict
from programs import ProgramBuilder, conv_net, random

from pyquant import (
    ModelFileError,
    OutputError,
    SettingError,
    load_model,
    save_model,
)

pytestmark = pytest.mark.any_isa

FEED = {"x": random((2, 3, 8, 8), 9)}


@pytest.mark.parametrize(
    ("model_filename", "params_filename"),
    [("m.pdmodel", "m.pdiparams"), ("__model__", "__params__"), ("__model__", None)],
)
def test_a_saved_model_computes_the_same(
    tmp_path: Path, model_filename: str, params_filename: str | None
) -> None:
    source = conv_net().save(tmp_path / "in", model_filename, params_filename)
    model = load_model(source, model_filename, params_filename)
    paths = save_model(model, tmp_path / "out", model_filename, params_filename)
    params = paths[1] if params_filename else None
    expected = predict(
        source / model_filename, source / params_filename if params_filename else None, FEED
    )
    np.testing.assert_array_equal(predict(paths[0], params, FEED)[0], expected[0])


def test_files_are_found_by_directory_or_prefix(tmp_path: Path) -> None:
    conv_net().save(tmp_path)
    assert load_model(tmp_path).params_path == tmp_path / "m.pdiparams"
    assert load_model(tmp_path / "m").model_path == tmp_path / "m.pdmodel"
    conv_net().save(tmp_path / "old", "__model__", None)
    assert load_model(tmp_path / "old").params_path is None
    (tmp_path / "old.json").write_text("{}")  # beside the directory; not what is named
    assert load_model(tmp_path / "old").model_path.name == "__model__"


def test_inputs_and_outputs(tmp_path: Path) -> None:
    model = load_model(conv_net().save(tmp_path))
    assert [var.name for var in model.feeds] == ["x"]
    assert model.fetches == ["y"]


def test_two_programs_in_a_directory_must_be_told_apart(tmp_path: Path) -> None:
    conv_net().save(tmp_path)
    conv_net().save(tmp_path, "n.pdmodel", "n.pdiparams")
    with pytest.raises(ModelFileError, match=r"m\.pdmodel and n\.pdmodel.*model_filename"):
        load_model(tmp_path)


def test_a_missing_directory_and_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"/nowhere: .*model_dir"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelFileError, match=r"/x\.pdmodel: .*model_filename"):
        load_model(tmp_path, "x.pdmodel", "x.pdiparams")
    conv_net().save(tmp_path, "__model__", None)
    (tmp_path / "first.w").unlink()
    with pytest.raises(ModelFileError, match=r"/first\.w: .*params_filename"):
        load_model(tmp_path)


def test_a_damaged_program_is_refused(tmp_path: Path) -> None:
    conv_net().save(tmp_path)
    program = tmp_path / "m.pdmodel"
    data = program.read_bytes()
    for broken in (data[:-7], b"", b"not a program"):
        program.write_bytes(broken)
        with pytest.raises(ModelFileError, match=r"/m\.pdmodel: "):
            load_model(tmp_path)


def test_parameters_of_another_model_are_refused(tmp_path: Path) -> None:
    conv_net().save(tmp_path)
    other = conv_net()
    other.parameters["dense.w"] = random((128, 20))
    other.save(tmp_path / "other")
    (tmp_path / "other" / "m.pdiparams").replace(tmp_path / "m.pdiparams")
    with pytest.raises(ModelFileError, match=r"'dense\.w' is float32\[128, 20\].*FP32\[256, 10\]"):
        load_model(tmp_path)


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    model = load_model(conv_net().save(tmp_path))
    with pytest.raises(SettingError, match=r"/m\.pdmodel: "):
        save_model(model, tmp_path, "m.pdmodel", "other")
    with pytest.raises(SettingError, match=r"/m\.pdiparams: "):
        save_model(model, tmp_path / "x" / "..", "other", "m.pdiparams")


def test_program_and_parameters_must_not_be_one_file(tmp_path: Path) -> None:
    model = load_model(conv_net().save(tmp_path / "in"))
    for names in (("m", "m"), ("first.w", None)):
        with pytest.raises(SettingError, match=rf"/out/{names[0]}: "):
            save_model(model, tmp_path / "out", *names)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_the_earlier_model_and_nothing_else(tmp_path: Path) -> None:
    model = load_model(conv_net().save(tmp_path / "in"))
    paths = save_model(model, tmp_path / "out", "m", "p")
    before = [path.read_bytes() for path in paths]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OutputError, match="/out/p: "):
            save_model(model, tmp_path / "out", "m", "p")
        with pytest.raises(OutputError):
            save_model(model, tmp_path / "new" / "deep", "m", "p")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.read_bytes() for path in paths] == before
    assert sorted(tmp_path.joinpath("out").iterdir()) == sorted(paths)
    assert not (tmp_path / "new").exists()


def test_a_target_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    model = load_model(conv_net().save(tmp_path / "in"))
    (tmp_path / "file").write_text("here")
    with pytest.raises(OutputError, match=f"{tmp_path}/file"):
        save_model(model, tmp_path / "file", "m", "p")
    (tmp_path / "out" / "m").mkdir(parents=True)
    with pytest.raises(OutputError, match="/out/m: "):
        save_model(model, tmp_path / "out", "m", "p")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["m"]
    with pytest.raises(OutputError, match=r"^/proc/pyquant"):
        save_model(model, Path("/proc/pyquant"), "m", "p")


@pytest.mark.parametrize("names", [("../../strange",), ("a", "a/b")])
def test_parameters_are_written_into_the_directory_alone(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    net = ProgramBuilder()
    net.fetch(net.feed("x", [-1, 4]))
    for name in names:
        net.parameter(name, random((4,)))
    model = load_model(net.save(tmp_path / "in"))
    with pytest.raises(SettingError, match="save_params_filename"):
        save_model(model, tmp_path / "deep" / "out", "m.pdmodel", None)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_directory_of_two_models_is_refused(tmp_path: Path, source: Path) -> None:
    shutil.copytree(source, tmp_path / "two")
    for name, kind in (("other.pdmodel", "pdmodel"), ("__model__", "__model__")):
        other = tmp_path / "two" / name
        shutil.copy(next(source.glob("*.pdmodel")), other)
        with pytest.raises(ModelFileError, match=rf"two: .*there is m\.pdmodel and .*{kind}"):
            load_model(tmp_path / "two")
        other.unlink()
    (tmp_path / "two" / "pyquant.json").write_text("{}")
    (tmp_path / "two" / "config.json").write_text("{}")
    assert load_model(tmp_path / "two").model_path.name == "m.pdmodel"


def test_parameters_are_no_model(source: Path) -> None:
    with pytest.raises(ModelFileError, match=r"m\.pdiparams: holds parameters.*Give .*m\.pdmodel"):
        load_model(source / "m.pdiparams")


def test_a_result_beside_its_source_is_refused(source: Path) -> None:
    before = sorted(path.name for path in source.iterdir())
    with pytest.raises(SettingError, match=r"in: it holds m\.pdmodel.*Choose another directory"):
        save_model(load_model(source), source, "other.pdmodel", "other.pdiparams")
    assert sorted(path.name for path in source.iterdir()) == before
