"""Static mode, and commands, in a process of their own, which may die of the model."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibrations import BATCHES
from static_runs import model_bytes

from pyquant import (
    Calibration,
    CalibrationDataError,
    CalibrationInterrupted,
    ModelCrashError,
    SettingError,
    cli,
    quant_post_static,
)
from pyquant.calibrating import calibrate
from pyquant.cli.answer import Answer

pytestmark = pytest.mark.any_isa


def child() -> int:
    """Return the only child of this thread."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text("ascii")
    return int(children.split()[-1])


def batches(then: Any = None) -> Iterator[Any]:
    """Yield a few batches, and do something to the child in between."""
    yield from BATCHES[:2]
    if then is not None:
        then()
    yield from BATCHES[2:4]


def test_it_writes_and_logs_the_same(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quant_post_static(None, source, tmp_path / "here", data_loader=batches(), verify=False)
    with caplog.at_level(logging.INFO, "pyquant"):
        result = quant_post_static(
            None, source, tmp_path / "there", data_loader=batches, verify=False, isolate=True
        )
    stages = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert [*dict.fromkeys(stages)] == [*result.seconds]
    assert result.quantized
    assert model_bytes(tmp_path / "there") == model_bytes(tmp_path / "here")


def test_a_death_names_the_op_that_ran(source: Path, tmp_path: Path) -> None:
    """As if a kernel had read outside of its memory."""

    def kill() -> None:
        os.kill(child(), signal.SIGSEGV)

    said = f"{source}: .*died .SIGSEGV. (in|after) [a-z_0-9]+,? .*'[abcfx]'\\."
    with pytest.raises(ModelCrashError, match=said):
        quant_post_static(
            None, source, tmp_path / "out", data_loader=batches(kill), isolate=True, algo="KL"
        )
    assert not (tmp_path / "out").exists()


def test_signals_end_it_at_once(source: Path, tmp_path: Path) -> None:
    """Paddle's handler of SIGTERM may wait forever, if the signal comes while Paddle loads."""
    caught = []

    def look() -> None:
        status = Path(f"/proc/{child()}/status").read_text("ascii")
        caught.append(int(status.partition("SigCgt:")[2].split()[0], 16))

    quant_post_static(None, source, tmp_path / "out", data_loader=batches(look), isolate=True)
    for number in (signal.SIGTERM, signal.SIGSEGV):
        assert not caught[0] >> (number - 1) & 1


def test_errors_are_as_without_it(source: Path, tmp_path: Path) -> None:
    wrong = [np.zeros((1, 3, 8, 8), np.int64)]
    with pytest.raises(CalibrationDataError, match="batch 0: input 'x' is int64"):
        calibrate(source, data_loader=wrong, isolate=True)
    with pytest.raises(ZeroDivisionError):
        calibrate(source, data_loader=batches(lambda: 1 / 0), isolate=True)
    with pytest.raises(SettingError, match="isolate: eval_function"):
        quant_post_static(
            *(None, source, tmp_path / "out"), data_loader=BATCHES, isolate=True, eval_function=id
        )


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_checkpoint(
    source: Path, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "c.npz"
    interrupt = batches(lambda: os.kill(os.getpid(), number))
    with pytest.raises(CalibrationInterrupted, match=r"\b[23] batch.*/c\.npz"):
        calibrate(source, data_loader=interrupt, checkpoint=path, isolate=True)
    calibrate(source, data_loader=batches(), checkpoint=path)
    assert Calibration.load(path).batches == 4


@pytest.mark.parametrize("option", [(), ("--no-isolate",)])
def test_the_command_line_isolates(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...]
) -> None:
    isolated = []

    def run(call: Any, arguments: dict[str, Any], models: Any) -> Any:
        isolated.append(call.__name__)
        return call(**arguments)

    monkeypatch.setattr(sys.modules["pyquant.calibrating"], "run_isolated", run)
    np.save(tmp_path / "x.npy", np.concatenate(BATCHES[:2]))
    arguments = ["calibrate", source, "--data", tmp_path / "x.npy", "-o", tmp_path / "c.npz"]
    assert cli.main([*map(str, arguments), *option]) == 0
    assert isolated == ([] if option else ["calibrate"])


def killed_by_data(directory: Path) -> str:
    """Write a module; return words for --data that name its function, which kills its process."""
    (directory / "killing.py").write_text(
        "import os, signal, numpy\n"
        "def some():\n"
        "    yield numpy.ones((1, 3, 8, 8), 'float32')\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    return "killing:some"


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_death_under_a_command_is_named(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    """The process in which the command works dies of the model, as far as it can tell."""
    models = [str(source)]
    if command == "compare":
        quant_post_static(None, source, tmp_path / "out", data_loader=BATCHES[:2], verify=False)
        models.append(str(tmp_path / "out"))
    monkeypatch.chdir(tmp_path)
    assert cli.main([command, *models, "--data", killed_by_data(tmp_path), "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["error"] == "ModelCrashError"
    models_and_place = f"{' and '.join(models)}: .*died .SIGSEGV. while Paddle ran it"
    assert re.search(f"^pyquant: {models_and_place}\\.", said.err)


def test_an_isolated_command_answers_the_same(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.concatenate(BATCHES[:2]))
    answers = []
    for option in ((), ("--no-isolate",)):
        arguments = ["run", str(source), "--data", str(tmp_path / "x.npy"), "--json", *option]
        assert cli.main(arguments) == 0
        answers.append(json.loads(capsys.readouterr().out)["outputs"])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("command", ["run", "compare", "verify", "fold"])
def test_a_command_that_runs_a_model_isolates_it(
    source: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    isolated = []

    def run(call: Any, arguments: dict[str, Any], models: list[Path]) -> Answer:
        isolated.append((call.__module__, models))
        return Answer("", {})

    monkeypatch.setattr("pyquant.isolation.run_isolated", run)
    more = {"run": ["--data", "x"], "fold": ["out"]}.get(command, ["int8", "--data", "x"])
    assert cli.main([command, str(source), *more]) == 0
    models = [source, Path("int8")] if "int8" in more else [source]
    assert isolated == [(f"pyquant.cli.{command}", models)]
