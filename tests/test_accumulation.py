"""Pyramids of images multiplied by factors: integers where every part can be, float elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import paddle_run
import pytest
from onednn_log import executed
from onednn_runs import check_run, images, op_types, quantized
from programs import UNPADDED, Net
from pyramids import CHANNELS, DIMS, MEAN, add, halved, means, pyramid, squeezed

from pyquant import compare, load_model, save_model
from pyquant.program import proto
from pyquant.program.folding.pooling import move_poolings
from pyquant.program.model import Model
from pyquant.program.op import ops_of
from pyquant.program.quantizable import ACTIVATION_OP_TYPES, find_weighted_ops
from pyquant.program.targets.onednn.plan import plan_onednn

BINARY = ("fused_elementwise_mul", "fused_elementwise_add")


@pytest.mark.usefixtures("int8_of_any_size")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"round_type": "adaround"},
        {"equalize": True},
        {"algo": "auto"},
        {"weight_quantize_type": "abs_max"},
        {"bias_correction": False},
        {"eval_function": lambda predictor: 1.0},
    ],
    ids=lambda options: next(iter(options), "default"),
)
def test_a_pyramid_is_of_integers(options: dict[str, Any], tmp_path: Path) -> None:
    data = images(0, tuple(DIMS))
    result = quantized(pyramid(), tmp_path, data, **options)
    types = op_types(tmp_path)
    assert [types[op] for op in (*BINARY, "requantize", "dequantize")] == [2, 2, 2, 0]
    # The convolution of a mean is folded into its reader, and has a weight of its own.
    assert types["conv2d"] == len(result.kept_float) == 4
    assert all("int16" in op.reason for op in result.kept_float)
    check_run(tmp_path, data, 0.05)


@pytest.mark.usefixtures("int8_of_any_size")
def test_the_mean_of_a_convolution_has_its_weight(tmp_path: Path) -> None:
    """In int8 where no linear op reads the mean: the convolution would be folded into it."""
    data = images(0, tuple(DIMS))
    result = quantized(level(factor_of=squashed_means), tmp_path, data)
    assert [op_types(tmp_path)[op] for op in (*BINARY, "conv2d")] == [1, 1, 1]
    assert ["int16" in op.reason for op in result.kept_float] == [False]
    check_run(tmp_path, data, 0.05)


@pytest.mark.usefixtures("int8_of_any_size")
def test_a_pyramid_on_integers_of_a_convolution(tmp_path: Path) -> None:
    """The smallest level is written as integers, unless unsigned: these do not add to signed."""
    data = images(0, tuple(DIMS))
    for act, count in (("tanh", 2), ("relu", 1)):
        quantized(pyramid(act), tmp_path / act, data)
        assert op_types(tmp_path / act)["fused_elementwise_add"] == count
        check_run(tmp_path / act, data, 0.05)


@pytest.mark.usefixtures("int8_of_any_size")
@pytest.mark.parametrize("how", ["float", "int8"])
def test_pyramids_run_in_int8(how: str, tmp_path: Path) -> None:
    """Also under the int8 passes, which would leave out the op that shifts the sums."""
    data = images(0, tuple(DIMS))
    quantized(pyramid(), tmp_path, data)
    ran = executed(tmp_path / "int8" / "model.pdmodel", data, tmp_path, how)
    binary = [one.types for one in ran if one.kind == "binary" and "f32" not in one.types]
    assert len(binary) == 4
    assert all(types.count("s8:") == 3 for types in binary)
    shifted = [one for one in ran if re.search(r"src[_:]s8.*dst[_:]u8", one.types)]
    assert [one.kind for one in shifted] == ["reorder"] * 2


def test_means_of_outputs_are_outputs_of_means(tmp_path: Path) -> None:
    data = images(0, tuple(DIMS))
    source = pyramid().save(tmp_path / "float")
    model, untouched = load_model(source), load_model(source)
    pooled = [op.input("X") for op in averages(model)]
    assert move_poolings(model, ()) == {f"{name}.before" for name in written(untouched)} | {
        f"{name}.product" for name in written(untouched)
    }
    after = [op.input("X") for op in averages(model)]
    assert len(after) == len(pooled) == 2
    assert set(after).isdisjoint(pooled)
    paths = save_model(model, tmp_path / "moved", "m.pdmodel", "m.pdiparams")
    expected = paddle_run.run(tmp_path / "float", {"x": data})
    for given, actual in zip(expected, paddle_run.predict(*paths[:2], {"x": data})):
        assert paddle_run.relative_error(actual, given) < 1e-5
    assert move_poolings(untouched, pooled) == set()


def test_a_feature_map_that_is_declared_as_a_vector(tmp_path: Path) -> None:
    """It stays as it is: the fuzzer found it."""
    model = load_model(pyramid().save(tmp_path))
    pooled = {op.input("X") for op in averages(model)}
    for var in model.program.blocks[0].vars:
        if var.name in pooled:
            del proto.tensor_desc(var).dims[1:]
    assert move_poolings(model, ()) == set()


def written(model: Model) -> list[str]:
    return [next(iter(op.writes())) for op in averages(model)]


def averages(model: Model) -> list[Any]:
    return [op for op in model.ops() if op.attr("pooling_type", "") == "avg"]


def test_a_pyramid_is_compared(tmp_path: Path) -> None:
    data = images(0, tuple(DIMS))
    quantized(pyramid(), tmp_path, data)
    model = load_model(tmp_path / "int8")
    sums = {op.output() for op in model.ops() if op.type == BINARY[1]}
    found = compare(tmp_path / "float", model, [data])
    errors = {tensor.name: tensor.error for tensor in found.tensors if tensor.kind == "activation"}
    assert sums <= errors.keys()
    assert all(errors[name].sqnr > 25 for name in sums)


def test_what_fewer_ops_need_is_observed_for_all(tmp_path: Path) -> None:
    model = load_model(pyramid().save(tmp_path))
    move_poolings(model, ())
    ops, _ = find_weighted_ops(model, ACTIVATION_OP_TYPES, ())
    ops = [op for op in ops if model.dims()[op.activation][2:] != [1, 1]]
    known = set(plan_onednn(model, ops).observed)
    assert len(plan_onednn(model, ops).accumulated) == 2
    for count in range(len(ops)):
        for some in combinations(ops, count):
            assert known.issuperset(plan_onednn(model, some).observed)


def level(
    base: str = "upsampled",
    fetched: Callable[[str, str, str], str] | None = None,
    factor_of: Callable[[Net, str], str] | None = None,
) -> Net:
    """One level; its image, product or sum may be fetched as well."""
    net = Net(DIMS)
    if base == "upsampled":
        halved(net, "x", DIMS).conv(CHANNELS, UNPADDED).act("softsign").nearest(2)
    else:
        net.conv(CHANNELS, UNPADDED).act("softsign")
    above = net.last
    net.last, net.dims = "x", DIMS
    image = squeezed(net, factor_of)
    scaled = net.last
    total = add(net, scaled, above)
    net.conv(24).act("relu").end()
    if fetched is not None:
        net.last, net.dims = fetched(image, scaled, total), [*DIMS[:1], CHANNELS, *DIMS[2:]]
        net.act("exp").end()
    return net


def squashed_means(net: Net, image: str) -> str:
    net.dims = [*net.dims[:2], 1, 1]
    return net.then("pool2d", {"X": image}, "Out", MEAN).act("sigmoid").last


def of_each_position(net: Net, image: str) -> str:
    return net.conv(1, UNPADDED).act("sigmoid").last


def of_each_sample(net: Net, image: str) -> str:
    factor = means(net, image)
    net.dims = [*net.dims[:1], 1, 1, 1]
    attributes = {"dim": [1], "keep_dim": True, "reduce_all": False}
    return net.then("reduce_mean", {"X": factor}, "Out", attributes).last


BROKEN: dict[str, Callable[[], Net]] = {
    "the image is read elsewhere": lambda: level(fetched=lambda image, scaled, total: image),
    "the product is read elsewhere": lambda: level(fetched=lambda image, scaled, total: scaled),
    "the sum is read elsewhere": lambda: level(fetched=lambda image, scaled, total: total),
    "the factor is one of positions": lambda: level(factor_of=of_each_position),
    "the factor is one of samples": lambda: level(factor_of=of_each_sample),
    "what is added is as large": lambda: level(base="as large"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_pay_stays_in_float(name: str, tmp_path: Path) -> None:
    data = images(0, tuple(DIMS))
    quantized(BROKEN[name](), tmp_path, data)
    types = op_types(tmp_path)
    assert not {*BINARY, "requantize"} & types.keys()
    assert not any(name.endswith(".before") for name in load_model(tmp_path / "int8").dims())
    check_run(tmp_path, data, 0.05)


def test_an_output_in_between_stays_in_float(tmp_path: Path) -> None:
    for index in range(3):
        net = level()
        net.fetch(fetchable(net)[index])
        quantized(net, tmp_path / str(index), images(0, tuple(DIMS)))
        assert not {*BINARY, "requantize"} & op_types(tmp_path / str(index)).keys()


def fetchable(net: Net) -> list[str]:
    """Return the image, the product and the sum."""
    ops = ops_of(net.block)
    product = next(op for op in ops if op.type == "elementwise_mul")
    total = next(op for op in reversed(ops) if op.type == "elementwise_add")
    return [
        str(product.input("X")),
        *(str(op.output()) for op in (product, total)),
    ]


def test_nothing_is_moved_in_a_model_that_is_not_optimized(tmp_path: Path) -> None:
    quantized(level(), tmp_path / "moved", images(0, tuple(DIMS)))
    assert op_types(tmp_path / "moved")["fused_elementwise_add"] == 1
    quantized(level(), tmp_path / "left", images(0, tuple(DIMS)), optimize_model=False)
    assert not {*BINARY} & op_types(tmp_path / "left").keys()
