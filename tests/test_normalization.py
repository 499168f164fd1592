"""A model's batch_norms show whether the data are like those that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import programs
import pytest
from paddle_run import observe
from programs import CONV, Net

from bench.accuracy.networks import build, load_weights, weights_path
from pyquant import QuantizationResult, calibrate, quant_post_static
from pyquant.cli import main

pytestmark = pytest.mark.any_isa

PIXELS = np.random.default_rng(3).integers(0, 256, (32, 3, 4, 4)).astype(np.float32)
PIXELS = np.repeat(np.repeat(PIXELS, 3, axis=2), 3, axis=3)
RIGHT = (PIXELS / 255 - np.float32(0.45)) / np.float32(0.23)


def trained(directory: Path, biased: bool = False) -> Path:
    """A network whose statistics are those of the right data."""
    net = Net([32, 3, 12, 12]).conv(8, {**CONV, "strides": [2, 2]})
    net.dims = [32, 8, 6, 6]
    if biased:
        net.constant("elementwise_add", np.linspace(-3, 3, 8), 1)
    net.batch_norm().act("relu").conv(8).batch_norm().act("relu").conv(4).end()
    files = directory / "m.pdmodel", directory / "m.pdiparams"
    for norm in (op for op in net.block.ops if op.type == "batch_norm"):
        read = {slot.parameter: slot.arguments[0] for slot in norm.inputs}
        net.save(directory)
        values = observe(*files, {"x": RIGHT}, [read["X"]])[1][read["X"]]
        net.parameters[read["Mean"]] = values.mean(axis=(0, 2, 3))
        net.parameters[read["Variance"]] = values.var(axis=(0, 2, 3))
    return net.save(directory)


def warnings_of(result: QuantizationResult) -> list[str]:
    return [note for note in result.notes if "standard deviations" in note]


def quantized(source: Path, data: Any, **options: Any) -> QuantizationResult:
    batches = [np.ascontiguousarray(data[i : i + 4], np.float32) for i in range(0, len(data), 4)]
    directory = source.parent / "int8"
    given: dict[str, Any] = {"data_loader": batches, "verify": False, **options}
    return quant_post_static(None, source, directory, **given)


@pytest.mark.parametrize("backend", [None, "OneDNN", "TensorRT", "ARM"])
@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_pixels_that_were_to_be_normalised(
    backend: str | None, optimize: bool, biased: bool, tmp_path: Path
) -> None:
    source = trained(tmp_path / "float", biased)
    options = {"deploy_backend": backend, "optimize_model": optimize, "equalize": True}
    assert not warnings_of(quantized(source, RIGHT, **options))
    for wrong in (PIXELS, PIXELS - 127.5, PIXELS[:1]):
        (warning,) = warnings_of(quantized(source, wrong, **options))
        assert "images of 0 to 255" in warning


@pytest.mark.parametrize(
    "unusual",
    [
        RIGHT[:1],
        np.concatenate([RIGHT, np.full_like(RIGHT[:8], 2.4)]),
        np.concatenate([RIGHT, np.full_like(RIGHT[:8], -2)]),
        np.full_like(RIGHT, 2.4),
        -RIGHT,
        programs.random(RIGHT.shape, 5),
        np.concatenate([RIGHT, PIXELS[:1]]),
    ],
    ids=["one", "some white", "some black", "all white", "inverted", "noise", "one of pixels"],
)
def test_unusual_images_are_none_of_it(unusual: Any, tmp_path: Path) -> None:
    source = trained(tmp_path / "float")
    assert not warnings_of(quantized(source, unusual))


def test_of_saved_calibrations_and_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = trained(tmp_path / "float")
    calibrate(source, data_loader=[PIXELS]).save(tmp_path / "pixels.npz")
    arguments = ["static", str(source), "-o", str(tmp_path / "int8")]
    assert main([*arguments, "--no-isolate", "--calibration", str(tmp_path / "pixels.npz")]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note ")]
    assert any("quarter" in note and "'t1'" in note for note in notes)


def test_nothing_is_said_without_batch_norm(tmp_path: Path) -> None:
    net = Net([32, 3, 12, 12]).conv(8).act("relu").conv(4).end()
    assert not warnings_of(quantized(net.save(tmp_path / "float"), PIXELS))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of their code in Paddle
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small"])
def test_trained_networks(name: str, tmp_path: Path) -> None:
    network = build(name)
    load_weights(network, weights_path(name))
    network.eval()
    spec = [paddle.static.InputSpec([-1, 3, 36, 36], "float32", "x")]
    paddle.jit.save(network, str(tmp_path / "float" / "m"), spec)
    gray = np.repeat(np.repeat(PIXELS[:, :1], 3, axis=1).repeat(3, axis=2), 3, axis=3)
    right = (gray / 255 - np.float32(0.286)) / np.float32(0.353)
    assert not warnings_of(quantized(tmp_path / "float", right[:8]))
    assert warnings_of(quantized(tmp_path / "float", gray[:8]))
