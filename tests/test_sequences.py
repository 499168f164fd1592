"""Models of sequences of different lengths (LoD), such as PaddleNLP's older ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paddle_run import predict
from programs import INT64, ProgramBuilder, random

from pyquant import UnsupportedError, calibrate, compare, quant_post_dynamic, quant_post_static
from pyquant.cli import main
from pyquant.program import proto

IDS = np.arange(7).reshape(7, 1)
OFFSETS = [[0, 3, 7]]
HIDDEN, TAGS = 8, 5
GRU = {
    "activation": "tanh",
    "gate_activation": "sigmoid",
    "is_reverse": False,
    "origin_mode": False,
}


def tagger() -> ProgramBuilder:
    """ids[-1,1] of sequences -> lookup_table -> fc -> gru -> fc: a tag for each word."""
    net = ProgramBuilder()
    ids = net.feed("ids", [-1, 1], INT64)
    part_into_sequences(net, ids)
    table = net.parameter("table", random((50, 16), 1))
    rows = net.op("lookup_table", {"Ids": ids, "W": table}, ("Out", "rows"), [-1, 16])
    gates = dense(net, rows, "gates", (16, 3 * HIDDEN))
    inputs = {
        "Input": gates,
        "Weight": net.parameter("gru.w", random((HIDDEN, 3 * HIDDEN), 2) * np.float32(0.3)),
        "Bias": net.parameter("gru.b", random((1, 3 * HIDDEN), 4)),
    }
    hidden = net.op("gru", inputs, ("Hidden", "h"), [-1, HIDDEN], GRU)
    for slot in ("BatchGate", "BatchResetHiddenPrev", "BatchHidden"):
        proto.add_var(net.block, slot, proto.FP32, [-1, HIDDEN])
        net.block.ops[-1].outputs.add(parameter=slot, arguments=[slot])
    net.fetch(dense(net, hidden, "tags", (HIDDEN, TAGS)))
    return net


def dense(net: ProgramBuilder, source: str, name: str, shape: tuple[int, int]) -> str:
    weight = net.parameter(f"{name}.w", random(shape, 3))
    bias = net.parameter(f"{name}.b", random(shape[1:], 5))
    dims, flat = [-1, shape[1]], {"x_num_col_dims": 1, "y_num_col_dims": 1}
    product = net.op("mul", {"X": source, "Y": weight}, ("Out", f"{name}.product"), dims, flat)
    return net.op("elementwise_add", {"X": product, "Y": bias}, ("Out", name), dims, {"axis": -1})


def part_into_sequences(net: ProgramBuilder, name: str) -> None:
    var = next(var for var in net.block.vars if var.name == name)
    for field, value in var.type.ListFields():
        if field.number == 3:  # the dense tensor, whose second field is the level
            setattr(value, value.DESCRIPTOR.fields_by_number[2].name, 1)
    assert proto.lod_level(var) == 1


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tagger().save(tmp_path / "in")


def run(directory: Path, program: str) -> np.ndarray[Any, Any]:
    """Run each sequence by itself, as such models are deployed."""
    path = directory / f"{program}.pdmodel"
    feed = {"ids": IDS}
    return predict(path, path.with_suffix(".pdiparams"), feed, "optimized", OFFSETS)[0]


def static(source: Path, output: Path) -> Any:
    return quant_post_static(None, source, output, data_loader=[IDS])


def static_by_samples(source: Path, output: Path) -> Any:
    return quant_post_static(None, source, output, sample_generator=list(IDS))


def onednn(source: Path, output: Path) -> Any:
    return quant_post_static(None, source, output, data_loader=[IDS], deploy_backend="OneDNN")


def calibrated(source: Path, output: Path) -> Any:
    return calibrate(source, data_loader=[IDS])


def compared(source: Path, output: Path) -> Any:
    quantized = quant_post_dynamic(source, output)
    return compare(source, quantized.model_path, data_loader=[IDS])


@pytest.mark.parametrize("call", [static, static_by_samples, onednn, calibrated, compared])
def test_sequences_are_refused_before_anything_runs(
    tmp_path: Path, source: Path, call: Callable[[Path, Path], Any]
) -> None:
    """Without offsets, Paddle's fused gru kills the process."""
    with pytest.raises(UnsupportedError, match=r"'ids' .*lod_level 1.* quant_post_dynamic"):
        call(source, tmp_path / "out")


def test_the_command_line_refuses_them(tmp_path: Path, source: Path, capsys: Any) -> None:
    np.save(tmp_path / "data.npy", IDS)
    arguments = [str(source), "--data", str(tmp_path / "data.npy"), "-o", str(tmp_path / "out")]
    assert main(["static", "--no-isolate", *arguments]) == 1
    assert "'ids'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_dynamic_mode_takes_them(tmp_path: Path, source: Path) -> None:
    result = quant_post_dynamic(source, tmp_path / "out", weight_bits=16)
    assert {tensor.name for tensor in result.quantized} >= {"gates.w", "tags.w"}
    actual = run(result.model_path.parent, result.model_path.stem)
    assert actual.shape == (len(IDS), TAGS)
    np.testing.assert_allclose(actual, run(source, "m"), rtol=1e-3, atol=1e-3)
