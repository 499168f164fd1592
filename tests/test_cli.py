"""The command line, in this process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from static_runs import model_bytes

import pyquant
from pyquant import quant_post_static
from pyquant.calibration.run import CHECKPOINT_EVERY
from pyquant.calibration.thresholds import ALGORITHMS, AUTO
from pyquant.cli import choices, main
from pyquant.cli.arguments import CHECKPOINT_EVERY as CLI_CHECKPOINT_EVERY
from pyquant.cli.words import in_cli_words
from pyquant.dynamic import DYNAMIC_QUANTIZE_TYPES, GROUP_SIZES, WEIGHT_BITS
from pyquant.program.quantizable import ACTIVATION_OP_TYPES, WEIGHT_ONLY_OP_TYPES
from pyquant.program.targets.profiles import DEPLOY_BACKENDS
from pyquant.program.targets.saturation import PROCESSORS
from pyquant.program.weights import WEIGHT_QUANTIZE_TYPES
from pyquant.static_mode.options import ROUND_TYPES

pytestmark = pytest.mark.any_isa

IMAGES = programs.random((6, 3, 8, 8), 9)


def test_inspect_lists_inputs_ops_and_weights(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(source)]) == 0
    text = capsys.readouterr().out
    assert "x FP32[-1, 3, 8, 8]" in text
    assert "2 conv2d" in text
    assert "first.w" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"pyquant {pyquant.__version__}\n"


def test_the_installed_distribution_has_this_version() -> None:
    assert metadata.version("pyquant-paddle") == pyquant.__version__


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
    arguments = ["static", "--no-isolate", str(source), "-o", str(out), "--data", str(data)]
    assert main([*arguments, "--algo", "kl", "--no-verify", "--verbose"]) == 0
    text = capsys.readouterr().out
    for name in ("x", "b", "f"):
        assert re.search(rf"^threshold +\d+\.\d+ +{name}$", text, re.MULTILINE)
    assert "quantized 3 activations, 3 weights" in text
    assert (out / "model.pdmodel").is_file()


def static_arguments(source: Path, directory: Path, *options: str) -> list[str]:
    """Return the arguments to quantize a model into ``directory``, with data from there."""
    np.savez(directory / "data.npz", x=IMAGES)
    data = ["--data", str(directory / "data.npz")]
    return ["static", str(source), "-o", str(directory), *data, *(options or ["--no-isolate"])]


def test_static_for_another_target(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = static_arguments(source, tmp_path)
    for target, activations in (("ARM", 3), ("TensorRT", 5)):
        assert main([*arguments, "--deploy-backend", target, "--full-quantize"]) == 0
        assert f"quantized {activations} activations" in capsys.readouterr().out


def test_static_for_accuracy(tmp_path: Path, source: Path) -> None:
    arguments = static_arguments(source, tmp_path)
    arguments += ["-o", str(tmp_path / "out"), "--algo", "auto", "--equalize"]
    assert main([*arguments, "--round-type", "adaround", "--no-bias-correction"]) == 0
    accurate: dict[str, Any] = {"algo": "auto", "equalize": True, "round_type": "adaround"}
    accurate["bias_correction"] = False
    for name, options in (("accurate", accurate), ("plain", {})):
        data = tmp_path / "data.npz"
        quant_post_static(None, source, tmp_path / name, data_loader=data, **options)
    written = model_bytes(tmp_path / "out")
    assert written == model_bytes(tmp_path / "accurate")
    assert written != model_bytes(tmp_path / "plain")


def test_ctrl_c_is_named(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for raised, code, said in (
        (KeyboardInterrupt, 130, "pyquant: interrupted\n"),
        (MemoryError, 1, "pyquant: there is not enough memory. Give a smaller --batch-size.\n"),
    ):

        def stop(*_: object, raised: type[BaseException] = raised) -> None:
            raise raised

        monkeypatch.setattr("pyquant.program.model.read_program", stop)
        assert main(["inspect", str(source)]) == code
        assert capsys.readouterr().err == said


def test_results_show_themselves(source: Path, tmp_path: Path) -> None:
    result = quant_post_static(None, source, tmp_path / "out", data_loader=[IMAGES])
    path = tmp_path / "out" / "model.pdmodel"
    assert repr(result) == f"<QuantizationResult: 3 activations, 3 weights, {path}>"
    for shown in (result, result.verification):
        assert f">{escape(str(shown))}</pre>" in shown._repr_html_()
    comparison = pyquant.compare(source, tmp_path / "out", data_loader=[IMAGES])
    assert re.fullmatch(
        rf"<Comparison: \d+ tensors, outputs from \d+\.\d dB, {path}>", repr(comparison)
    )
    assert "activations: 3, worst first" in comparison._repr_html_()
    assert json.loads(json.dumps(comparison.to_dict()))["samples"] == 6


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


@pytest.mark.parametrize(
    "code", ["import pyquant", "from pyquant.cli import main; main(['--help'])"]
)
def test_neither_import_nor_help_takes_paddle_or_numpy(code: str) -> None:
    ends = f"import sys\ntry:\n  {code}\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", ends], capture_output=True, text=True, check=True)
    modules = ran.stdout.splitlines()[-1]
    assert "'pyquant.version'" in modules
    assert "'paddle'" not in modules
    assert "'numpy'" not in modules


def test_a_function_is_not_hidden_by_a_module() -> None:
    code = "import pyquant.cli.compare, pyquant.comparing, pyquant; pyquant.compare.__call__"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_can_be_imported() -> None:
    assert {type(getattr(pyquant, name)).__name__ for name in pyquant.__all__} <= {
        *("str", "module", "function", "type", "ABCMeta")
    }


def test_choices_are_those_of_the_functions() -> None:
    assert set(choices.ALGORITHMS) == {*ALGORITHMS, AUTO}
    assert tuple(ACTIVATION_OP_TYPES) == choices.ACTIVATION_OP_TYPES
    assert tuple(WEIGHT_ONLY_OP_TYPES) == choices.WEIGHT_ONLY_OP_TYPES
    assert tuple(filter(None, DEPLOY_BACKENDS)) == choices.DEPLOY_BACKENDS
    assert choices.PROCESSORS == PROCESSORS
    assert choices.ROUND_TYPES == ROUND_TYPES
    assert choices.WEIGHT_QUANTIZE_TYPES == WEIGHT_QUANTIZE_TYPES
    assert choices.DYNAMIC_QUANTIZE_TYPES == DYNAMIC_QUANTIZE_TYPES
    assert tuple(map(str, GROUP_SIZES)) == choices.GROUP_SIZES
    assert tuple(map(str, WEIGHT_BITS)) == choices.WEIGHT_BITS
    assert CLI_CHECKPOINT_EVERY == CHECKPOINT_EVERY


def test_paddle_says_nothing(
    tmp_path: Path, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", str(tmp_path / "out")]
    assert main([*static_arguments(source, tmp_path, *out), "--deploy-backend", "qdq"]) == 0
    assert capfd.readouterr().err == ""


def test_what_takes_time_is_logged(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dynamic", str(source), "-o", str(tmp_path / "out"), "--verbose"]) == 0
    assert re.search(r"^pyquant: save: \d+\.\d+ s$", capsys.readouterr().err, re.MULTILINE)


def answered(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    """Run a command; return the JSON that it prints."""
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_every_command_answers_in_json(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data.npz", tmp_path / "out"
    np.savez(data, x=IMAGES)
    samples = ["--data", data]
    static = answered(capsys, "static", "--no-isolate", source, "-o", out, *samples)
    assert static["model_path"] == str(out / "model.pdmodel")
    assert static["verification"]["error_percent"] < 5
    assert {one["kind"] for one in static["quantized"]} == {"activation", "weight"}
    assert answered(capsys, "inspect", source)["ops"]["conv2d"] == 2
    assert len(answered(capsys, "convert", source, tmp_path / "c")["files"]) == 2
    folded = answered(capsys, "fold", "--no-isolate", source, tmp_path / "f")
    assert folded["ops_after"] <= folded["ops_before"]
    dynamic = answered(capsys, "dynamic", source, "-o", tmp_path / "d", "--test-model")
    assert Path(dynamic["test_model_path"]).is_file()
    verified = answered(capsys, "verify", "--no-isolate", source, out, *samples)
    assert verified["met"]
    assert verified["errors"][0]["name"] == "y"
    compared = answered(capsys, "compare", "--no-isolate", source, out, *samples)
    assert compared["least_sqnr"] == min(
        one["error"]["sqnr"] for one in compared["tensors"] if one["kind"] in RUNS
    )
    run = answered(capsys, "run", "--no-isolate", out, *samples)
    assert run["outputs"][0]["shape"] == [6, 10]
    calibrate = ["calibrate", "--no-isolate", source, *samples]
    shard = answered(capsys, *calibrate, "-o", tmp_path / "s.npz")
    assert shard == {"calibration": str(tmp_path / "s.npz"), "batches": 1, "activations": 3}
    merged = answered(capsys, "merge", tmp_path / "s.npz", "-o", tmp_path / "m.npz")
    assert merged["batches"] == 1
    wrong = answered(capsys, "inspect", tmp_path / "nowhere", code=1)
    assert wrong["error"] == "ModelFileError"
    assert "nowhere" in wrong["message"]


RUNS = ("simulated", "int8 run")


def test_bars_have_an_exit_code(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, out = static_arguments(source, tmp_path), str(tmp_path / "out")
    assert main([*arguments, "-o", out]) == 0
    samples = ["--data", str(tmp_path / "data.npz")]
    pair = ["--no-isolate", str(source), out, *samples]
    for passes, fails, option in (("20", "80", "--fail-below"), ("20", "0.01", "--max-error")):
        command = "compare" if option == "--fail-below" else "verify"
        assert main([command, *pair, option, passes]) == 0
        assert "\nmet: " in capsys.readouterr().out
        assert main([command, *pair, option, fails]) == 3
        assert "\nmissed: " in capsys.readouterr().out
    assert main(["dynamic", str(source), "-o", out, "--op-types", "lookup_table"]) == 3
    with pytest.raises(SystemExit) as end:
        main(["static", str(source)])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 2  # one line each


def test_quiet_prints_nothing(
    tmp_path: Path, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["dynamic", str(source), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("batch_size: 0 is less than 1.", "--batch-size: 0 is less than 1."),
        ("Leave out verify=False.", "Leave out --no-verify."),
        ("by skip_tensor_list or eval_function.", "by --skip or --eval."),
        (
            "one of batch_generator, sample_generator, data_loader is needed",
            "one of --data is needed",
        ),
        ("Leave out group_size.", "Leave out --group-size."),
        ("choose algo='KL' or equalize=True", "choose --algo KL or --equalize"),
        ("the data and the algorithm of a/batch_size/x", None),
        ("'batch_size' is not an input of the model", None),
    ],
)
def test_messages_name_options(said: str, expected: str | None) -> None:
    assert in_cli_words(said) == (expected or said)


def test_eval_and_thresholds_come_from_files(
    tmp_path: Path,
    source: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cli_metric.py").write_text("def rate(predictor):\n    return 1.0\n")
    Path("scales.json").write_text('{"x": 2.5}')
    arguments = static_arguments(source, tmp_path, "-o", str(tmp_path / "out"))
    scales = ["--scale-dict", "scales.json", "--same-scale", "b", "f", "--weight-bits", "7"]
    found = answered(capsys, *arguments, "--eval", "cli_metric:rate", "--max-drop", "0", *scales)
    thresholds = {one["name"]: one["threshold"] for one in found["quantized"]}
    assert thresholds["x"] == 2.5
    assert thresholds["b"] == thresholds["f"]
    assert any(note.startswith("accuracy control") for note in found["notes"])
    for wrong, said in (("cli_metric:none", "cannot be imported"), ("nothing", "MODULE:FUNCTION")):
        assert main([*arguments, "--eval", wrong]) == 1
        assert said in capsys.readouterr().err


def test_inspect_says_how_a_model_was_quantized(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*static_arguments(source, tmp_path), "-o", str(tmp_path / "int8")]
    assert main([*arguments, "--algo", "KL", "--deploy-backend", "qdq"]) == 0
    said = capsys.readouterr().out
    assert f"pyquant run {tmp_path}/int8/model.pdmodel --data {tmp_path}/data.npz\n" in said
    assert main(["inspect", str(tmp_path / "int8")]) == 0
    text = capsys.readouterr().out
    version = re.escape(pyquant.__version__)
    assert re.match(r"int8   1 activations of 8 bits, 2 weights of 16 bits, 1 weights", text)
    assert re.search(rf"^by     pyquant {version} for QDQ, .* from \w+\.pdmodel", text, re.M)
    assert re.search(r"^with   .*algo='KL'", text, re.M)
    assert re.search(r"^check  outputs within \d\.\d\d % of float's", text, re.M)
    path = tmp_path / "int8" / "pyquant.json"
    record = json.loads(path.read_text())
    record["verification"].update(error_percent=None, speedup=None)
    path.write_text(json.dumps(record))
    assert main(["inspect", str(tmp_path / "int8")]) == 0
    assert "outputs within nan %" in capsys.readouterr().out
    for damaged in ("[" * 100_000, "{}", json.dumps({**record, "source": "x"})):
        path.write_text(damaged)
        assert main(["inspect", str(tmp_path / "int8")]) == 0
        assert "it has no pyquant.json beside it" in capsys.readouterr().out
    path.unlink()
    assert main(["inspect", str(tmp_path / "int8")]) == 0
    assert "it has no pyquant.json beside it" in capsys.readouterr().out


def test_settings_may_be_sets(tmp_path: Path, source: Path) -> None:
    result = pyquant.quant_post_dynamic(source, tmp_path, skip_tensor_list={"y", "first.w"})
    record = json.loads((result.model_path.parent / "pyquant.json").read_text())
    assert record["settings"]["skip_tensor_list"] == ["first.w", "y"]


def test_what_dynamic_wrote_is_found_by_its_directory(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "out", tmp_path / "data.npz"
    np.savez(data, x=IMAGES)
    assert main(["dynamic", str(source), "-o", str(out), "--test-model"]) == 0
    found = answered(capsys, "inspect", out)
    assert found["model"] == str(out / "quantized_model" / "model.pdmodel")
    assert found["record"]["target"] == "Paddle"
    assert found["quantized"] == {"weights of 8 bits": 3}
    assert answered(capsys, "run", "--no-isolate", out, "--data", data)["batches"] == 1
    assert (
        answered(capsys, "compare", "--no-isolate", source, out, "--data", data)["least_sqnr"] > 30
    )
