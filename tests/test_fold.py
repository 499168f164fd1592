"""Folding: fewer ops, the same outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle_run
import programs
import pytest
from programs import CONV, Net, ProgramBuilder

from pyquant import cli, fold, load_model, save_model
from pyquant.program import proto

UNPADDED = {**CONV, "paddings": [0, 0]}
Arrays = dict[str, "np.ndarray[Any, Any]"]


def folded(
    net: ProgramBuilder, directory: Path, feed: Arrays, keep: tuple[str, ...] = ()
) -> Counter[str]:
    """Fold ``net``; check that it computes the same; return how many ops of each type are left."""
    net.save(directory / "float")
    model = load_model(directory / "float")
    fold(model, keep)
    save_model(model, directory / "folded", "m.pdmodel", "m.pdiparams")
    outputs = [
        paddle_run.predict(directory / name / "m.pdmodel", directory / name / "m.pdiparams", feed)
        for name in ("float", "folded")
    ]
    for expected, actual in zip(*outputs):
        assert expected.std() > 0
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    return Counter(op.type for op in model.ops() if op.type not in ("feed", "fetch"))


IMAGES = [2, 4, 6, 6]
CHANNELS = np.linspace(-2, 1.5, 4)
DEPTHWISE = {**CONV, "groups": 4}
FEED = {"x": programs.random((2, 4, 6, 6), 9)}

IMAGE_NETS: dict[str, tuple[Callable[[Net], Any], dict[str, int]]] = {
    "batch_norm behind": (lambda n: n.conv(5).batch_norm(), {"conv2d": 1, "elementwise_add": 1}),
    "batch_norm before": (
        lambda n: n.act().batch_norm().conv(5, UNPADDED),
        {"sigmoid": 1, "conv2d": 1, "elementwise_add": 1},
    ),
    "batch_norm before padding stays": (
        lambda n: n.act().batch_norm().conv(5),
        {"sigmoid": 1, "batch_norm": 1, "conv2d": 1},
    ),
    "chain behind": (
        lambda n: (
            n.conv(4)
            .constant("elementwise_add", CHANNELS, 1)
            .constant("elementwise_mul", [0.7])
            .constant("elementwise_sub", CHANNELS.reshape(1, 4, 1, 1), first=True)
            .constant("elementwise_div", [3.0])
        ),
        {"conv2d": 1, "elementwise_add": 1},
    ),
    "factor alone": (lambda n: n.conv(4).constant("elementwise_mul", [0.7]), {"conv2d": 1}),
    "depthwise": (
        lambda n: n.conv(4, DEPTHWISE, "depthwise_conv2d").batch_norm(),
        {"depthwise_conv2d": 1, "elementwise_add": 1},
    ),
    "groups": (
        lambda n: (
            n.act()
            .constant("elementwise_mul", CHANNELS, 1)
            .constant("elementwise_add", CHANNELS, 1)
            .conv(6, {**UNPADDED, "groups": 2})
            .constant("elementwise_mul", np.arange(1, 7), 1)
        ),
        {"sigmoid": 1, "conv2d": 1, "elementwise_add": 1},
    ),
    "transposed": (
        lambda n: (
            n.act()
            .constant("elementwise_mul", CHANNELS, 1)
            .conv(4, {**CONV, "groups": 2}, "conv2d_transpose")
            .batch_norm()
        ),
        {"sigmoid": 1, "conv2d_transpose": 1, "elementwise_add": 1},
    ),
    "before padding the factor alone": (
        lambda n: (
            n.act().constant("elementwise_mul", [1.7]).constant("elementwise_add", [0.4]).conv(3)
        ),
        {"sigmoid": 1, "scale": 1, "conv2d": 1},
    ),
    "before padding per channel": (
        lambda n: (
            n.act()
            .constant("elementwise_mul", [1.7, -1, 2, 3], 1)
            .constant("elementwise_add", CHANNELS, 1)
            .conv(3)
        ),
        {"sigmoid": 1, "elementwise_add": 1, "conv2d": 1},
    ),
    "a factor of zero divides nothing": (
        lambda n: (
            n.act()
            .constant("elementwise_mul", [1.7, 0, 2, 3], 1)
            .constant("elementwise_add", CHANNELS, 1)
            .conv(3)
        ),
        {"sigmoid": 1, "elementwise_mul": 1, "elementwise_add": 1, "conv2d": 1},
    ),
    "scalars between others": (
        lambda n: (
            n.act()
            .constant("elementwise_mul", [1.7])
            .constant("elementwise_add", [0.4])
            .act("tanh")
            .conv(3)
        ),
        {"sigmoid": 1, "scale": 1, "tanh": 1, "conv2d": 1},
    ),
    "along another axis": (
        lambda n: n.conv(4).constant("elementwise_add", np.arange(6.0)),
        {"conv2d": 1, "elementwise_add": 1},
    ),
}


@pytest.mark.parametrize("name", IMAGE_NETS)
def test_convolutions(name: str, tmp_path: Path) -> None:
    build, expected = IMAGE_NETS[name]
    net = Net(IMAGES)
    build(net)
    assert folded(net.end(), tmp_path, FEED) == expected


MATRIX_NETS: dict[str, tuple[Callable[[Net], Any], dict[str, int]]] = {
    "both sides": (
        lambda n: (
            n.act()
            .constant("elementwise_mul", np.linspace(1, 2, 8))
            .constant("elementwise_add", np.linspace(-1, 1, 8))
            .matmul(5, trans_y=False)
            .constant("elementwise_add", np.arange(5.0))
            .constant("elementwise_mul", np.arange(1, 6.0))
        ),
        {"sigmoid": 1, "matmul_v2": 1, "elementwise_add": 1},
    ),
    "transposed": (
        lambda n: (
            n.act()
            .constant("elementwise_sub", np.linspace(-1, 1, 8))
            .matmul(5, trans_y=True)
            .constant("elementwise_mul", np.arange(1, 6.0))
        ),
        {"sigmoid": 1, "matmul_v2": 1, "elementwise_add": 1},
    ),
    "alpha": (
        lambda n: (
            n.act()
            .constant("elementwise_sub", np.linspace(-1, 1, 8))
            .then(
                "matmul",
                {"X": "t2", "Y": n.parameter("w", programs.random((8, 8)))},
                "Out",
                {"alpha": 0.5, "transpose_X": False, "transpose_Y": False},
            )
        ),
        {"sigmoid": 1, "matmul": 1, "elementwise_add": 1},
    ),
    "the last axis alone": (
        lambda n: n.act().constant("elementwise_mul", np.ones((3, 1))).matmul(5, trans_y=False),
        {"sigmoid": 1, "elementwise_mul": 1, "matmul_v2": 1},
    ),
    "dropout": (
        lambda n: (
            n.act()
            .then("dropout", {"X": n.last}, "Out", {"dropout_prob": 0.3, "is_test": True})
            .matmul(5, trans_y=False)
        ),
        {"sigmoid": 1, "matmul_v2": 1},
    ),
}


@pytest.mark.parametrize("name", MATRIX_NETS)
def test_matrices(name: str, tmp_path: Path) -> None:
    build, expected = MATRIX_NETS[name]
    net = Net([2, 3, 8])
    build(net)
    assert folded(net.end(), tmp_path, {"x": programs.random((2, 3, 8), 9)}) == expected


def test_several_readers(tmp_path: Path) -> None:
    net = Net(IMAGES).act().constant("elementwise_mul", [3.0]).constant("elementwise_add", [0.1])
    shared = net.last
    net.conv(3, UNPADDED).end()
    net.last, net.dims = shared, IMAGES
    net.conv(5, UNPADDED).end()
    counts = folded(net, tmp_path, FEED)
    assert counts == {"sigmoid": 1, "conv2d": 2, "elementwise_add": 2}


def test_a_reader_that_cannot_take_it_keeps_it(tmp_path: Path) -> None:
    net = Net(IMAGES).act().constant("elementwise_mul", [3.0])
    shared = net.last
    net.conv(3, UNPADDED).end()
    net.last, net.dims = shared, IMAGES
    net.act("tanh").end()
    counts = folded(net, tmp_path, FEED)
    assert counts == {"sigmoid": 1, "elementwise_mul": 1, "conv2d": 1, "tanh": 1}


def test_a_weight_of_two_ops_gets_two_values(tmp_path: Path) -> None:
    net = Net(IMAGES).conv(4, UNPADDED)
    first = net.last
    net.constant("elementwise_mul", [3.0]).end()
    net.then("conv2d", {"Input": first, "Filter": "w1"}, "Output", UNPADDED).end()
    counts = folded(net, tmp_path, FEED)
    assert counts == {"conv2d": 2, "elementwise_mul": 1}  # the first output has two readers
    net = Net(IMAGES).conv(4, UNPADDED).constant("elementwise_mul", [3.0])
    net.then("conv2d", {"Input": net.last, "Filter": "w1"}, "Output", UNPADDED).end()
    assert folded(net, tmp_path / "chain", FEED) == {"conv2d": 2}


def test_outputs_and_kept_tensors_stay(tmp_path: Path) -> None:
    net = Net(IMAGES).conv(4).constant("elementwise_mul", [3.0])
    net.fetch(net.last)
    net.constant("elementwise_add", [1.0]).act().end()
    counts = folded(net, tmp_path, FEED)
    assert counts == {"conv2d": 1, "elementwise_add": 1, "sigmoid": 1}
    net = Net(IMAGES).conv(4).constant("elementwise_mul", [3.0]).act().end()
    product = net.block.ops[1].outputs[0].arguments[0]
    counts = folded(net, tmp_path / "kept", FEED, keep=(product,))
    assert counts == {"conv2d": 1, "elementwise_mul": 1, "sigmoid": 1}


def test_constants_are_computed(tmp_path: Path) -> None:
    net = Net([2, 3, 8])
    ones = {"shape": [8], "value": 1.5, "dtype": proto.FP32}
    filled = net.op("fill_constant", {}, ("Out", "filled"), [8], ones)
    net.then("elementwise_max", {"X": net.last, "Y": filled}, "Out", {"axis": -1})
    table = net.parameter("table", programs.random((8, 3)))
    axes = {"axis": [1, 0]}
    swapped = net.op("transpose2", {"X": table}, ("Out", "swapped"), [3, 8], axes)
    doubled = net.op("scale", {"X": swapped}, ("Out", "doubled"), [3, 8], {"scale": 2.0})
    net.then("elementwise_add", {"X": net.last, "Y": doubled}, "Out", {"axis": -1}).act().end()
    counts = folded(net, tmp_path, {"x": programs.random((2, 3, 8), 9)})
    assert counts == {"elementwise_max": 1, "elementwise_add": 1, "sigmoid": 1}
    assert set(load_model(tmp_path / "folded").parameters) == {"doubled", "filled"}


def test_what_cannot_be_folded_is_as_it_was(tmp_path: Path) -> None:
    programs.linear_net("matmul_v2").save(tmp_path / "in")
    model = load_model(tmp_path / "in")
    before = model.program.SerializeToString()
    fold(model)
    assert model.program.SerializeToString() == before
    assert model.folded is None


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Net(IMAGES).conv(4).batch_norm().end().save(tmp_path / "in")
    assert cli.main(["fold", str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    assert "4 ops -> 4" in capsys.readouterr().out
    assert load_model(tmp_path / "out").model_path.name == "m.pdmodel"


def test_ops_at_kept_tensors_stay(tmp_path: Path) -> None:
    net = Net(IMAGES).act().constant("elementwise_add", [1.0]).conv(4, UNPADDED).end()
    output = net.block.ops[-1].outputs[0].arguments[0]
    for kept in ("w2", output):
        counts = folded(net, tmp_path / kept, FEED, keep=(kept,))
        assert counts == {"sigmoid": 1, "elementwise_add": 1, "conv2d": 1}
