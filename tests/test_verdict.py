"""What a comparison says in words, and that its command can be pasted."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import programs
import pytest

from pyquant import ComparedTensor, Comparison, Similarity, compare, save_page
from pyquant.cli import main

pytestmark = pytest.mark.any_isa

IMAGES = programs.random((6, 3, 8, 8), 9)


def comparison(run: float, simulated: float) -> Comparison:
    """Return a comparison whose output, of mean 0, has these SQNRs, in dB."""

    def output(kind: str, sqnr: float) -> ComparedTensor:
        percent = 100 * 10 ** (-sqnr / 20)
        return ComparedTensor("y", kind, ("fc",), Similarity(sqnr, 1.0), error_percent=percent)

    tensors = [
        output("simulated", simulated),
        output("int8 run", run),
        ComparedTensor("first", "op output", ("fc",), Similarity(40.0, 1.0)),
        ComparedTensor("second", "op output", ("fc",), Similarity(25.0, 1.0)),
        ComparedTensor("third", "op output", ("fc",), Similarity(24.0, 1.0)),
    ]
    settings = {"algo": "KL", "equalize": True, "skip_tensor_list": ["c"], "max_error": 2.0}
    record = {"settings": settings}
    paths, weights = (Path("in/inference.pdmodel"), Path("o/m")), {"second": "b"}
    return Comparison(*paths, 1, 4, tensors, [], record=record, weights_of=weights)


@pytest.mark.parametrize(
    ("sqnr", "headline", "percent"),
    [(40.0, "Close to float", "1 %"), (30.0, "Near float", "3.2 %"), (10.0, "Far from", "32 %")],
)
def test_the_verdict_says_what_int8_costs(sqnr: float, headline: str, percent: str) -> None:
    found = comparison(sqnr, sqnr).verdict
    assert found.headline.startswith(headline)
    said = f"'y' differs from the float model's by {percent} of its variation (rms"
    assert said in found.sentences[0]
    assert ("--skip" in found.command) == (sqnr < 40)


def test_the_command_keeps_the_settings_and_the_op_in_float_where_the_error_grows() -> None:
    found = comparison(10.0, 10.0).verdict
    assert "the op that computes 'second'" in found.sentences[-1]
    command = found.command
    assert command == (
        "pyquant static in/inference.pdmodel -o o --data DATA --algo KL --max-error 2.0 --equalize "
        "--skip c b"
    )


def test_the_command_can_be_pasted_whatever_the_paths() -> None:
    found = replace(comparison(10.0, 10.0), quantized_path=Path("my int8/model.pdmodel"))
    command = replace(found, data="'my data' --image-size 8 6").verdict.command
    words = shlex.split(command)
    assert words[3:10] == ["-o", "my int8", "--data", "my data", "--image-size", "8", "6"]


def test_times_that_are_not_known_are_not_told() -> None:
    times = {"int8_seconds": 0.001, "float_seconds": 0.002, "speedup": 2.0}
    for known, said in ((times, True), ({**times, "speedup": None}, False)):
        found = comparison(20.0, 20.0)
        record = {**(found.record or {}), "verification": known}
        sentences = replace(found, record=record).verdict.sentences
        assert any("2.00 times as fast" in one for one in sentences) == said


def test_the_verdict_tells_the_run_from_the_simulation() -> None:
    assert any("farther from float" in one for one in comparison(20.0, 30.0).verdict.sentences)
    assert any("what the program says" in one for one in comparison(29.0, 30.0).verdict.sentences)


def test_the_name_is_that_of_the_model() -> None:
    found = comparison(20.0, 20.0)
    assert found.model_name == "in"
    assert replace(found, float_path=Path("in/net.pdmodel")).model_name == "net"


def test_a_model_spoiled_on_purpose_is_mended_by_the_command(tmp_path: Path) -> None:
    """An activation whose first channel is 1000 times the others loses most; skipping it helps."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 3, 8, 8])
    large = np.array([1e4, 1, 1], np.float32)
    factors = net.parameter("factors", large)
    spoiled = net.op(
        "elementwise_mul", {"X": x, "Y": factors}, ("Out", "spoiled"), [-1, 3, 8, 8], {"axis": 1}
    )
    filters = programs.random((4, 3, 1, 1), 1)
    filters[:, 0] = 0  # the large channel is read, and tells nothing
    weight = net.parameter("w", filters)
    geometry = {
        **{"strides": [1, 1], "paddings": [0, 0], "dilations": [1, 1], "groups": 1},
        **{"padding_algorithm": "EXPLICIT", "data_format": "NCHW"},
    }
    inputs = {"Input": spoiled, "Filter": weight}
    middle = net.op("conv2d", inputs, ("Output", "middle"), [-1, 4, 8, 8], geometry)
    last = net.parameter("last", programs.random((4, 4, 1, 1), 2))
    inputs = {"Input": middle, "Filter": last}
    net.fetch(net.op("conv2d", inputs, ("Output", "y"), [-1, 4, 8, 8], geometry))
    source = net.save(tmp_path / "net")
    data, out, page = tmp_path / "data.npz", tmp_path / "out", tmp_path / "page.html"
    np.savez(data, x=IMAGES)
    options = ["--no-verify", "--no-isolate", "--no-equalize", "--no-optimize", "--algo", "abs_max"]
    assert main(["static", str(source), "-o", str(out), "--data", str(data), *options]) == 0
    before = compare(source, out, sample_generator=data, batch_size=6)
    assert before.verdict.headline == "Far from float"
    save_page(before, page)
    assert "<h2>Far from float</h2>" in page.read_text()
    program, *arguments = shlex.split(before.verdict.command)
    assert program == "pyquant"
    assert main([*arguments, "--no-verify", "--no-isolate"]) == 0
    after = compare(source, out, sample_generator=data, batch_size=6)
    assert after.verdict.headline == "Close to float"
    assert {one.name for one in after.tensors if one.kind == "activation"} == {"middle"}
