"""The command line, in this process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from static_runs import model_bytes

from pyquant import quant_post_static
from pyquant.cli import main

IMAGES = programs.random((6, 3, 8, 8), 9)


def test_inspect_lists_inputs_ops_and_weights(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(source)]) == 0
    text = capsys.readouterr().out
    assert "x FP32[-1, 3, 8, 8]" in text
    assert "2 conv2d" in text
    assert "first.w" in text


def test_dynamic(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["dynamic", str(source), "-o", str(out), "--weight-bits", "16"]) == 0
    assert "quantized 3 weights" in capsys.readouterr().out
    assert (out / "quantized_model" / "model.pdiparams").is_file()
    in_groups = ["--weight-bits", "4", "--group-size", "32", "--weight-quantize-type", "mse"]
    assert main(["dynamic", str(source), "-o", str(tmp_path / "small"), *in_groups]) == 0
    files = (at / "quantized_model" / "model.pdiparams" for at in (out, tmp_path / "small"))
    sizes = [file.stat().st_size for file in files]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("form", ["npz", "unnamed npz", "npy", "directory"])
def test_static(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    data = tmp_path / ("data.npy" if form == "npy" else "data.npz")
    if form == "npz":
        np.savez(data, x=IMAGES)
    elif form == "unnamed npz":
        np.savez(data, IMAGES)
    elif form == "npy":
        np.save(data, IMAGES)
    else:
        data = tmp_path / "data"
        data.mkdir()
        np.savez(data / "0.npz", x=IMAGES[:2])
        np.savez(data / "1.npz", x=IMAGES[2:])
    out = tmp_path / "out"
    options = ["--algo", "KL", "--no-verify"]
    assert (
        main(["static", "--no-isolate", str(source), "-o", str(out), "--data", str(data), *options])
        == 0
    )
    text = capsys.readouterr().out
    for name in ("x", "b", "f"):
        assert re.search(rf"^threshold +\d+\.\d+ +{name}$", text, re.MULTILINE)
    assert "quantized 3 activations, 3 weights" in text
    assert (out / "model.pdmodel").is_file()


def static_arguments(source: Path, directory: Path) -> list[str]:
    """Return the arguments to quantize a model into ``directory``, with data from there."""
    np.savez(directory / "data.npz", x=IMAGES)
    return ["static", str(source), "-o", str(directory), "--data", str(directory / "data.npz")]


def test_static_for_another_target(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = static_arguments(source, tmp_path)
    for target, activations in (("ARM", 3), ("TensorRT", 5)):
        assert (
            main([*arguments, "--no-isolate", "--deploy-backend", target, "--full-quantize"]) == 0
        )
        assert f"quantized {activations} activations" in capsys.readouterr().out


def test_static_for_accuracy(tmp_path: Path, source: Path) -> None:
    arguments = static_arguments(source, tmp_path)
    arguments += ["-o", str(tmp_path / "out"), "--algo", "auto", "--equalize"]
    assert (
        main([*arguments, "--no-isolate", "--round-type", "adaround", "--no-bias-correction"]) == 0
    )
    accurate: dict[str, Any] = {"algo": "auto", "equalize": True, "round_type": "adaround"}
    accurate["bias_correction"] = False
    for name, options in (("accurate", accurate), ("plain", {})):
        data = tmp_path / "data.npz"
        quant_post_static(None, source, tmp_path / name, data_loader=data, **options)
    written = model_bytes(tmp_path / "out")
    assert written == model_bytes(tmp_path / "accurate")
    assert written != model_bytes(tmp_path / "plain")


def test_errors_go_to_stderr_in_one_line(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"nothing")
    uneven = tmp_path / "uneven.npz"
    np.savez(uneven, x=IMAGES, y=IMAGES[:2])
    empty = tmp_path / "empty"
    empty.mkdir()
    files = [str(source), "-o", str(tmp_path), "--no-isolate", "--data"]
    for arguments, said in [
        (["inspect", str(tmp_path / "nowhere")], f"{tmp_path}/nowhere: "),
        (["static", *files, str(bad)], f"{bad}: "),
        (["static", *files, str(uneven)], f"{uneven}: "),
        (["static", *files, str(empty)], f"{empty}: "),
    ]:
        assert main(arguments) == 1
        message = capsys.readouterr().err
        assert said in message
        assert message.startswith("pyquant: ")
        assert message.count("\n") == 1
