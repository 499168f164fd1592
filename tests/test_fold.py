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
from programs import CONV, UNPADDED, Net, ProgramBuilder

from bench.ocr import lines, models, pages
from pyquant import calibrate, cli, fold, load_model, save_model
from pyquant.program import proto
from pyquant.program.op import Op

pytestmark = pytest.mark.any_isa

Arrays = dict[str, "np.ndarray[Any, Any]"]


def folded(
    net: ProgramBuilder, directory: Path, feed: Arrays, keep: tuple[str, ...] = ()
) -> Counter[str]:
    """Fold ``net``; check that it computes the same; return how many ops of each type are left."""
    net.save(directory / "float")
    model = load_model(directory / "float")
    fold(model, keep)
    save_model(model, directory / "folded", "m.pdmodel", "m.pdiparams")
    outputs = [paddle_run.run(directory / name, feed) for name in ("float", "folded")]
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
    net = Net(IMAGES).conv(4, UNPADDED).constant("elementwise_mul", [3.0]).act()
    net.then("conv2d", {"Input": net.last, "Filter": "w1"}, "Output", UNPADDED).end()
    assert folded(net, tmp_path / "chain", FEED) == {"conv2d": 2, "sigmoid": 1}


def test_a_weight_that_is_yet_to_be_made_is_not_read_as_it_was(tmp_path: Path) -> None:
    net = Net(IMAGES).conv(5).constant("elementwise_mul", [2.0]).end()
    model = load_model(net.save(tmp_path / "float"))
    stored = model.parameters["w1"]
    fold(model, settle=False)
    assert model.parameters["w1"].shape == stored.shape
    assert np.isnan(model.parameters["w1"]).all()
    np.testing.assert_array_equal(model.made("w1"), 2 * stored)
    model.settle()
    np.testing.assert_array_equal(model.parameters["w1"], 2 * stored)


def test_a_weight_that_is_read_transposed_is_transposed(tmp_path: Path) -> None:
    net = Net([2, 3, 8]).matmul(5, trans_y=True).act().matmul(5, trans_y=True)
    net.constant("elementwise_mul", np.arange(1.0, 6.0)).end()
    model = load_model(net.save(tmp_path / "float"))
    shared = model.parameters["w2"]
    fold(model)
    first, second = (op for op in model.ops() if op.type == "matmul_v2")
    assert not first.attr("trans_y", True)
    assert not second.attr("trans_y", True)
    assert model.parameters[first.input("Y")].shape == (8, 5)
    expected = (np.arange(1.0, 6.0, dtype=np.float32)[:, None] * shared).T
    np.testing.assert_array_equal(model.parameters[second.input("Y")], expected)
    assert folded(net, tmp_path, {"x": programs.random((2, 3, 8), 9)})["matmul_v2"] == 2


def test_a_shared_weight_stays_transposed(tmp_path: Path) -> None:
    """As an embedding does that the last product reads, too: two would take twice the memory."""
    net = Net([2, 3, 8]).matmul(8, trans_y=True).act()
    net.then("matmul_v2", {"X": net.last, "Y": "w1"}, "Out", {"trans_y": True}).end()
    model = load_model(net.save(tmp_path / "float"))
    fold(model)
    assert [op.attr("trans_y", False) for op in model.ops() if op.type == "matmul_v2"] == [True] * 2


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


def test_constants_that_paddle_cannot_compute_stay(tmp_path: Path) -> None:
    """Constants computed together with them stay, too; everything else is folded."""
    net = Net([2, 3, 8])
    half = proto.paddle_dtype(np.dtype(np.float16))
    root = net.parameter("squares", programs.random((8,)) ** 2)
    for op_type, data_type, attributes in (
        ("cast", half, {"in_dtype": proto.FP32, "out_dtype": half}),
        ("sqrt", half, {}),  # Paddle has no such kernel for CPUs
        ("cast", proto.FP32, {"in_dtype": half, "out_dtype": proto.FP32}),
    ):
        name = f"root{len(net.block.ops)}"
        root = net.op(op_type, {"X": root}, ("Out", name), [8], attributes)
        proto.tensor_desc(net.block.vars[-1]).data_type = data_type
    doubled = net.op("scale", {"X": root}, ("Out", "doubled"), [8], {"scale": 2.0})
    net.then("elementwise_max", {"X": net.last, "Y": root}, "Out", {"axis": -1})
    net.then("elementwise_max", {"X": net.last, "Y": doubled}, "Out", {"axis": -1})
    net.matmul(5, trans_y=False).constant("elementwise_mul", [2.0]).end().save(tmp_path)
    model = load_model(tmp_path)
    fold(model)
    constants = ["cast", "sqrt", "cast", "scale"]
    kept = ["feed", *constants, "elementwise_max", "elementwise_max", "matmul_v2", "fetch"]
    assert [op.type for op in model.ops()] == kept
    assert set(model.parameters) == {"squares", "w1"}
    calibration = calibrate(tmp_path, data_loader=[programs.random((2, 3, 8))])
    assert len(calibration.statistics) == 1  # it computes in float32


def test_what_cannot_be_folded_is_as_it_was(tmp_path: Path) -> None:
    programs.linear_net("matmul_v2").save(tmp_path / "in")
    model = load_model(tmp_path / "in")
    before = model.program.SerializeToString()
    fold(model)
    assert model.program.SerializeToString() == before
    assert model.folded is None


def test_factors_beyond_float32_are_infinite_and_no_warning(tmp_path: Path) -> None:
    """As of a damaged variance; warnings are errors here."""
    net = Net(IMAGES).conv(4).batch_norm().end()
    (scale,) = (name for name in net.parameters if name.startswith("Scale"))
    (variance,) = (name for name in net.parameters if name.startswith("Variance"))
    net.parameters[scale] = np.full(4, 3e38, np.float32)
    net.parameters[variance] = np.full(4, -9.99e-4, np.float32)  # with epsilon, 1e-6
    net.save(tmp_path / "in")
    model = load_model(tmp_path / "in")
    fold(model)
    (weight,) = (model.made(name) for name, one in model.parameters.items() if one.ndim == 4)
    assert not np.isfinite(weight).all()


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


def excited(net: Net, swapped: bool = False, keep_product: bool = False) -> Net:
    """Add x + x * s, where s is computed from the mean of x over its positions."""
    x, dims = net.last, net.dims
    net.dims = [*dims[:2], 1, 1]
    mean = {"pooling_type": "avg", "ksize": [1, 1], "adaptive": True}
    s = net.then("pool2d", {"X": x}, "Out", mean).act("hard_sigmoid").last
    net.dims = dims
    first, second = (s, x) if swapped else (x, s)
    net.then("elementwise_mul", {"X": first, "Y": second}, "Out", {"axis": -1})
    if keep_product:
        net.fetch(net.last)
    first, second = (net.last, x) if swapped else (x, net.last)
    return net.then("elementwise_add", {"X": first, "Y": second}, "Out", {"axis": -1})


EXCITED = {"conv2d": 1, "pool2d": 1, "hard_sigmoid": 1, "elementwise_mul": 1}


@pytest.mark.parametrize("swapped", [False, True])
def test_a_product_added_to_its_factor(tmp_path: Path, swapped: bool) -> None:
    net = excited(Net(IMAGES).conv(4), swapped).act("tanh").end()
    assert folded(net, tmp_path, FEED) == {**EXCITED, "scale": 1, "tanh": 1}


def test_a_product_that_is_needed_itself_stays(tmp_path: Path) -> None:
    net = excited(Net(IMAGES).conv(4), keep_product=True).end()
    assert folded(net, tmp_path, FEED) == {**EXCITED, "elementwise_add": 1}
    net = excited(Net(IMAGES).conv(4)).end()
    counts = folded(net, tmp_path / "kept", FEED, keep=(net.block.ops[4].outputs[0].arguments[0],))
    assert counts == {**EXCITED, "elementwise_add": 1}


def test_a_product_with_one_as_large_or_of_another_stays(tmp_path: Path) -> None:
    net = Net(IMAGES).conv(4)
    x = net.last
    s = net.act("tanh").last
    net.then("elementwise_mul", {"X": x, "Y": s}, "Out", {"axis": -1})
    net.then("elementwise_add", {"X": x, "Y": net.last}, "Out", {"axis": -1}).end()
    counts = folded(net, tmp_path / "large", FEED)
    assert counts == {"conv2d": 1, "tanh": 1, "elementwise_mul": 1, "elementwise_add": 1}
    net = excited(Net(IMAGES).conv(4))
    other = net.then("tanh", {"X": "x"}, "Out", {}).last
    product = net.block.ops[4].outputs[0].arguments[0]
    del net.block.ops[5]
    net.then("elementwise_add", {"X": other, "Y": product}, "Out", {"axis": -1}).end()
    assert folded(net, tmp_path / "other", FEED) == {**EXCITED, "tanh": 1, "elementwise_add": 1}


POINTWISE_PAIRS: dict[str, tuple[Callable[[Net], Any], dict[str, int]]] = {
    "biases between and behind": (
        lambda n: n.conv(9, UNPADDED).batch_norm().conv(5, UNPADDED).batch_norm(),
        {"conv2d": 1, "elementwise_add": 1},
    ),
    "three": (
        lambda n: n.conv(9, UNPADDED).conv(8, UNPADDED).batch_norm().conv(5, UNPADDED),
        {"conv2d": 1, "elementwise_add": 1},
    ),
    "the second padded, no bias": (lambda n: n.conv(9, UNPADDED).conv(5), {"conv2d": 1}),
    "the second padded, a bias": (
        lambda n: n.conv(9, UNPADDED).batch_norm().conv(5),
        {"conv2d": 2, "elementwise_add": 1},
    ),
    "the first padded, a bias": (
        lambda n: n.conv(9).batch_norm().conv(5, UNPADDED),
        {"conv2d": 1, "elementwise_add": 1},
    ),
    "the second with strides": (
        lambda n: n.conv(9, UNPADDED).conv(5, {**CONV, "strides": [2, 2]}).act(),
        {"conv2d": 1, "sigmoid": 1},
    ),
    "the first with strides": (
        lambda n: n.conv(9, {**UNPADDED, "strides": [2, 2]}).conv(5, UNPADDED).act(),
        {"conv2d": 1, "sigmoid": 1},
    ),
    "strides between": (
        lambda n: n.conv(9, {**UNPADDED, "strides": [2, 2]}).conv(5).act(),
        {"conv2d": 2, "sigmoid": 1},
    ),
    "both of several taps": (lambda n: n.conv(9).conv(5), {"conv2d": 2}),
    "groups": (lambda n: n.conv(9, UNPADDED).conv(6, {**UNPADDED, "groups": 3}), {"conv2d": 2}),
    "a bottleneck": (lambda n: n.conv(2, UNPADDED).conv(5, UNPADDED), {"conv2d": 2}),
    "an activation between": (
        lambda n: n.conv(9, UNPADDED).act().conv(5, UNPADDED),
        {"conv2d": 2, "sigmoid": 1},
    ),
}


@pytest.mark.parametrize("name", POINTWISE_PAIRS)
def test_convolutions_in_a_row(name: str, tmp_path: Path) -> None:
    build, expected = POINTWISE_PAIRS[name]
    net = Net(IMAGES)
    build(net)
    assert folded(net.end(), tmp_path, FEED) == expected


def test_what_is_before_goes_into_the_product_of_two(tmp_path: Path) -> None:
    net = Net(IMAGES).act().constant("elementwise_add", CHANNELS, 1)
    net.conv(9, UNPADDED).conv(5, UNPADDED).end()
    assert folded(net, tmp_path, FEED) == {"sigmoid": 1, "conv2d": 1, "elementwise_add": 1}


def test_two_in_a_row_stay_if_what_is_between_is_needed(tmp_path: Path) -> None:
    net = Net(IMAGES).conv(9, UNPADDED)
    between = net.last
    net.conv(5, UNPADDED).end()
    assert folded(net, tmp_path / "kept", FEED, keep=(between,)) == {"conv2d": 2}
    assert folded(net, tmp_path / "weight", FEED, keep=("w2",)) == {"conv2d": 2}
    net.fetch(between)
    assert folded(net, tmp_path / "fetched", FEED) == {"conv2d": 2}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_matrices_in_a_row(tmp_path: Path, first: bool, second: bool) -> None:
    net = Net([2, 3, 8]).matmul(11, "matmul", transpose_Y=first)
    Op(net.block.ops[-1]).set_attr("alpha", 0.7)
    net.constant("elementwise_add", np.arange(11.0))
    w = net.parameter("w", programs.random((5, 11) if second else (11, 5), 8))
    net.dims = [2, 3, 5]
    attributes = {"alpha": 0.5, "transpose_X": False, "transpose_Y": second}
    net.then("matmul", {"X": net.last, "Y": w}, "Out", attributes).act().end()
    counts = folded(net, tmp_path, {"x": programs.random((2, 3, 8), 9)})
    assert counts == {"matmul": 1, "elementwise_add": 1, "sigmoid": 1}


@pytest.mark.parametrize("how", ["plain", "float"])
def test_detection(tmp_path: Path, how: str) -> None:
    """Eight sums of a product and its factor, two convolutions in a row, two transposed ones."""
    directory = models.model_dir(models.DETECTION)
    model = load_model(directory)
    fold(model)
    counts = Counter(op.type for op in model.ops())
    assert counts["elementwise_mul"] == 10
    assert [counts["conv2d_transpose"], counts["pixel_shuffle"]] == [0, 1]
    assert [counts["conv2d"], counts["depthwise_conv2d"]] == [49, 14]
    paths = save_model(model, tmp_path, "m.pdmodel", "m.pdiparams")
    images, _ = pages.render_pages(1, lines.TEST_SEED, (320, 320))
    for batch in (images, images[:, :, :160, :96]):
        expected, actual = (
            paddle_run.predict(*files, {"x": batch}, how)[0]
            for files in (models.model_paths(models.DETECTION), paths)
        )
        assert paddle_run.relative_error(actual, expected) < 1e-5


WIDE = [2, 32, 5, 6]
PAIR = np.array([-2, 1.5])
DYNAMIC = [2, 32, -1, -1]

UPSAMPLING_NETS: dict[str, tuple[list[int], Callable[[Net], Any], dict[str, int]]] = {
    "alone": (WIDE, lambda n: n.upsample(2), {"conv2d": 1, "pixel_shuffle": 1}),
    "by three": (
        [2, 36, 3, 4],
        lambda n: n.upsample(1, (3, 3)),
        {"conv2d": 1, "pixel_shuffle": 1},
    ),
    "two with all that is between": (
        DYNAMIC,
        lambda n: (
            n.upsample(8)
            .batch_norm()
            .act("relu")
            .upsample(1)
            .constant("elementwise_add", [0.3])
            .act()
        ),
        {"conv2d": 2, "elementwise_add": 2, "relu": 1, "sigmoid": 1, "pixel_shuffle": 1},
    ),
    "constants": (
        WIDE,
        lambda n: (
            n.upsample(2)
            .act("tanh")
            .constant("elementwise_mul", PAIR, 1)
            .constant("elementwise_sub", PAIR.reshape(1, 2, 1, 1), first=True)
            .constant("elementwise_add", PAIR.reshape(2, 1, 1))
            .constant("elementwise_div", [0.7])
            .act()
        ),
        {
            **{"conv2d": 1, "tanh": 1, "elementwise_mul": 1, "elementwise_sub": 1, "sigmoid": 1},
            **{"elementwise_add": 1, "elementwise_div": 1, "pixel_shuffle": 1},
        },
    ),
    "a constant of one channel": (
        WIDE,
        lambda n: n.upsample(1).act("tanh").constant("elementwise_mul", [0.7], 1),
        {"conv2d": 1, "tanh": 1, "elementwise_mul": 1, "pixel_shuffle": 1},
    ),
    "a constant along another axis": (
        WIDE,
        lambda n: n.upsample(1).constant("elementwise_add", np.arange(12.0)).act(),
        {"conv2d": 1, "pixel_shuffle": 1, "elementwise_add": 1, "sigmoid": 1},
    ),
    "a convolution behind": (
        WIDE,
        lambda n: n.upsample(2).act().conv(3),
        {"conv2d": 2, "sigmoid": 1, "pixel_shuffle": 1},
    ),
    "a third": (
        [2, 64, 2, 3],
        lambda n: n.upsample(16).act().upsample(1).act().upsample(1),
        {"conv2d": 2, "sigmoid": 2, "pixel_shuffle": 1, "conv2d_transpose": 1},
    ),
    "more to be laid out than read": (WIDE, lambda n: n.upsample(3), {"conv2d_transpose": 1}),
    "taps that overlap": (WIDE, lambda n: n.upsample(1, strides=[1, 1]), {"conv2d_transpose": 1}),
    "taps apart": (WIDE, lambda n: n.upsample(1, strides=[3, 3]), {"conv2d_transpose": 1}),
    "not square": (WIDE, lambda n: n.upsample(1, (2, 3)), {"conv2d_transpose": 1}),
    "one tap": (WIDE, lambda n: n.upsample(1, (1, 1)), {"conv2d_transpose": 1}),
    "padded": (WIDE, lambda n: n.upsample(1, paddings=[1, 1]), {"conv2d_transpose": 1}),
    "groups": (WIDE, lambda n: n.upsample(2, groups=2), {"conv2d_transpose": 1}),
    "dilated": (WIDE, lambda n: n.upsample(1, dilations=[2, 2]), {"conv2d_transpose": 1}),
    "padded outputs": (
        WIDE,
        lambda n: n.upsample(1, output_padding=[1, 1]),
        {"conv2d_transpose": 1},
    ),
    "a given size": (
        WIDE,
        lambda n: n.upsample(1, output_size=[11, 13]),
        {"conv2d_transpose": 1},
    ),
}


@pytest.mark.parametrize("name", UPSAMPLING_NETS)
def test_upsampling(name: str, tmp_path: Path) -> None:
    dims, build, expected = UPSAMPLING_NETS[name]
    net = Net(dims)
    build(net)
    sizes = [abs(size) * (7 if size < 0 else 1) for size in dims]
    assert folded(net.end(), tmp_path, {"x": programs.random(tuple(sizes), 9)}) == expected


UPSAMPLED_TWICE = {"conv2d_transpose": 2, "relu": 1}


def test_upsampling_stays_at_what_is_needed(tmp_path: Path) -> None:
    feed = {"x": programs.random((2, 32, 5, 6), 9)}
    for kept in ("t2", "up1", "up2"):
        net = Net(WIDE).upsample(8).act("relu").upsample(1).end()
        assert folded(net, tmp_path / kept, feed, keep=(kept,)) == UPSAMPLED_TWICE
    net = Net(WIDE).upsample(8).act("relu")
    net.fetch(net.last)
    assert folded(net.upsample(1).end(), tmp_path / "fetched", feed) == UPSAMPLED_TWICE
    net = Net(WIDE).upsample(8).act("relu")
    between = net.last
    net.upsample(1).end()
    net.then("tanh", {"X": between}, "Out", {}).end()
    assert folded(net, tmp_path / "read", feed) == {**UPSAMPLED_TWICE, "tanh": 1}


def test_upsampling_of_channels_last_stays(tmp_path: Path) -> None:
    net = Net([2, 5, 6, 32])
    weight = net.parameter("w", programs.random((32, 1, 2, 2)))
    attributes = {**UNPADDED, "strides": [2, 2], "data_format": "NHWC"}
    net.dims = [2, 10, 12, 1]
    net.then("conv2d_transpose", {"Input": "x", "Filter": weight}, "Output", attributes).end()
    feed = {"x": programs.random((2, 5, 6, 32), 9)}
    assert folded(net, tmp_path, feed) == {"conv2d_transpose": 1}


def test_a_shared_weight_of_upsampling(tmp_path: Path) -> None:
    net = Net(WIDE).upsample(2).batch_norm().act("relu").end()
    attributes = {**UNPADDED, "strides": [2, 2]}
    net.then("conv2d_transpose", {"Input": "x", "Filter": "up1"}, "Output", attributes).end()
    counts = folded(net, tmp_path, {"x": programs.random((2, 32, 5, 6), 9)})
    assert counts == {"conv2d": 2, "elementwise_add": 1, "relu": 1, "pixel_shuffle": 2}


def test_a_scale_without_attributes_is_the_identity(tmp_path: Path) -> None:
    net = Net([4, 8, 6, 6]).conv(8)
    net.then("scale", {"X": net.last}, "Out", {}).conv(8).end()
    source = net.save(tmp_path / "in")
    model = load_model(source)
    fold(model)
    paths = save_model(model, tmp_path / "out", "m.pdmodel", "m.pdiparams")
    feed = {"x": programs.random((4, 8, 6, 6), 1)}
    (expected,) = paddle_run.run(source, feed)
    (actual,) = paddle_run.predict(paths[0], paths[1], feed)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_paddings_of_other_ops_than_convolutions(tmp_path: Path) -> None:
    """A pool3d has three paddings, which do not fit the geometry of an image."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [2, 3, 4, 6, 6])
    pooling = {"pooling_type": "max", "ksize": [2, 2, 2], "strides": [2, 2, 2]}
    attributes = {**pooling, "paddings": [0, 0, 0], "data_format": "NCDHW"}
    pooled = net.op("pool3d", {"X": x}, ("Out", "pooled"), [2, 3, 2, 3, 3], attributes)
    factors = net.parameter("factors", programs.random((3, 1, 1, 1)))
    inputs = {"X": pooled, "Y": factors}
    net.fetch(net.op("elementwise_mul", inputs, ("Out", "y"), [2, 3, 2, 3, 3], {"axis": 1}))
    source = load_model(net.save(tmp_path / "in"))
    model = load_model(tmp_path / "in")
    fold(model)
    feed = {"x": programs.random((2, 3, 4, 6, 6))}
    expected = paddle_run.predict(source.model_path, source.params_path, feed)[0]
    paths = save_model(model, tmp_path / "out", "m.pdmodel", "m.pdiparams")
    np.testing.assert_array_equal(paddle_run.predict(*paths[:2], feed)[0], expected)
