"""An activation after an activation: right in each form, however Paddle's passes fuse."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import paddle_run
import programs
import pytest
from processors import deployed
from programs import CONV, STRAIGHT, ProgramBuilder

from pyquant import (
    QuantizationResult,
    calibrate,
    compare,
    fold,
    load_model,
    quant_post_dynamic,
    quant_post_static,
    save_model,
)
from pyquant.cli import main
from pyquant.program import proto
from pyquant.program.misfusion import misfused
from pyquant.program.op_facts import ACTIVATIONS
from pyquant.verification.kernel_times import kernel_times

# What Paddle's passes fuse does not depend on the processor.
pytestmark = pytest.mark.any_isa

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "relu6": {"threshold": 6.0},
    "hard_swish": {"threshold": 6.0, "scale": 6.0, "offset": 3.0},
    "swish": {"beta": 1.0},
    "hard_sigmoid": {"slope": 0.2, "offset": 0.5},
    "leaky_relu": {"alpha": 0.1},
    "clip": {"min": -0.4, "max": 0.7},
    "gelu": {"approximate": False},
}
# The ops after the first activation; "second" stands for the second one.
TAILS = (
    *(("second",), ("second", "add"), ("second", "multiply"), ("second", "residual")),
    *(("add", "second"), ("multiply", "second"), ("residual", "second")),
)
HEADS = {
    "conv2d": ([2, 8, 4, 4], (6, 8, 3, 3), 1),
    "matmul_v2": ([4, 16], (16, 6), -1),
}
# Inputs and weights are integers times a step, which int8 represents exactly: only the rounding of
# float32 is left, of about 1e-6. A lost activation costs 2 % at least.
BOUND = 1e-4


class Chains(ProgramBuilder):
    """An output for each pair of activations, each after a linear op of its own."""

    def __init__(self, head: str, tail: tuple[str, ...], firsts: tuple[str, ...]) -> None:
        super().__init__()
        self.head, self.tail = head, tail
        dims, self.shape, _ = HEADS[head]
        self.dims = [-1, 6, *dims[2:]]
        self.feed("x", [-1, *dims[1:]])
        self.feed("residual", self.dims)
        for seed, pair in enumerate(product(firsts, ACTIVATION_TYPES)):
            self.fetch(self.chain(".".join(pair), *pair, seed))

    def chain(self, name: str, first: str, second: str, seed: int) -> str:
        y = self.biased(name, seed)
        for step in (first, *self.tail):
            y = self.step(name, second if step == "second" else step, y, seed)
        return y

    def biased(self, name: str, seed: int) -> str:
        w = self.parameter(f"{name}.w", weight(self.shape, seed))
        if self.head == "conv2d":
            inputs, slot, attributes = {"Input": "x", "Filter": w}, "Output", CONV
        else:
            inputs, slot = {"X": "x", "Y": w}, "Out"
            attributes = STRAIGHT
        y = self.op(self.head, inputs, (slot, f"{name}.product"), self.dims, attributes)
        b = self.parameter(f"{name}.b", programs.random((6,), seed))
        axis = {"axis": HEADS[self.head][2]}
        return self.op("elementwise_add", {"X": y, "Y": b}, ("Out", f"{name}.sum"), self.dims, axis)

    def step(self, name: str, step: str, source: str, seed: int) -> str:
        output = f"{name}.{len(self.block.ops)}"
        if step in ACTIVATIONS:
            attributes = ATTRIBUTES.get(step, {})
            return self.op(step, {"X": source}, ("Out", output), self.dims, attributes)
        other = "residual"
        if step != "residual":
            values = programs.random((6, *[1] * (len(self.dims) - 2)), seed + 1)
            other = self.parameter(f"{output}.c", values)
        op_type = "elementwise_mul" if step == "multiply" else "elementwise_add"
        return self.op(op_type, {"X": source, "Y": other}, ("Out", output), self.dims, {"axis": -1})


def weight(shape: tuple[int, ...], seed: int) -> Any:
    """Return even integers times a step, and zeros for every other input.

    So no pair of products that is added in 16 bits saturates, and weights stay integers where
    oneDNN halves them to be sure of that. Each channel also has a 127, for the last input, which is
    zero. oneDNN may add 128 to this input, so its neighbour has zero weights.
    """
    values = 2 * np.random.default_rng(seed).integers(-63, 64, shape)
    by_channel = values if len(shape) == 4 else values.T
    by_channel[:, 1::2] = 0
    by_channel[:, -2] = 0
    by_channel[(..., *[-1] * (values.ndim - 1))] = 127
    return (values / 32).astype(np.float32)


def data(head: str) -> paddle_run.Arrays:
    dims = HEADS[head][0]
    x = np.random.default_rng(5).integers(0, 2, dims).astype(np.float32)
    x[:, -1] = 0
    return {"x": x, "residual": programs.random((dims[0], 6, *dims[2:]), 6)}


def check(directory: Path, feed: paddle_run.Arrays, how: str, expected: list[Any]) -> None:
    actual = paddle_run.run(directory, feed, how)
    errors = map(paddle_run.relative_error, actual, expected)
    names = load_model(directory).fetches
    wrong = {name: error for name, error in zip(names, errors) if not error < BOUND}
    assert not wrong


# The time of Paddle's passes grows faster than the program.
ACTIVATION_TYPES = list(ACTIVATIONS)
CHUNKS = [ACTIVATION_TYPES[start : start + 2] for start in range(0, len(ACTIVATIONS), 2)]


def check_forms(form: str, net: ProgramBuilder, feed: paddle_run.Arrays, directory: Path) -> None:
    net.save(directory / "float")
    expected = paddle_run.run(directory / "float", feed)
    if form == "fold":
        model = load_model(directory / "float")
        fold(model)
        save_model(model, directory / "made", "m.pdmodel", "m.pdiparams")
        runs = ["float"]
    else:
        backend, runs = FORMS[form]
        quantize(directory, feed, backend)
    for how in runs:
        check(directory / "made", feed, how, expected)


FORMS = {"OneDNN": ("OneDNN", ["unfused", "float"]), "QDQ": ("QDQ", ["plain", "int8"])}


def quantize(directory: Path, feed: paddle_run.Arrays, backend: str) -> QuantizationResult:
    source, target = directory / "float", directory / "made"
    options: dict[str, Any] = {"algo": "abs_max", "verify": False, **deployed(backend)}
    found = quant_post_static(None, source, target, [feed], **options)
    assert not found.kept_float
    return found


@pytest.mark.parametrize("tail", TAILS, ids=" ".join)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("form", ["fold", *FORMS])
def test_pairs(form: str, head: str, tail: tuple[str, ...], tmp_path: Path) -> None:
    for index, firsts in enumerate(CHUNKS):
        check_forms(form, Chains(head, tail, firsts), data(head), tmp_path / str(index))


class Joined(Chains):
    """A concatenation of two convolutions, each with an activation or none, and one after it."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__("conv2d", (), ())
        parts, last = [], names[-1]
        for seed, name in enumerate(names[:2]):
            parts.append(self.biased(f"part{seed}", seed))
            if name:
                parts[-1] = self.step(f"part{seed}", name, parts[-1], seed)
        if "read apart" in names:
            self.fetch(parts[0])
            last = names[2]
        proto.add_var(self.block, "both", proto.FP32, [-1, 12, *self.dims[2:]])
        self._add("concat", {"X": parts}, {"Out": ["both"]}, {"axis": 1})
        self.dims = [-1, 12, *self.dims[2:]]
        self.fetch(self.step("both", last, "both", 0))


JOINED = (
    *(("", "", "tanh"), ("relu", "", "tanh"), ("relu", "sigmoid", "tanh"), ("", "tanh", "relu")),
    *(("tanh", "tanh", "relu"), ("", "", "tanh", "read apart")),
)


@pytest.mark.parametrize("names", JOINED, ids=",".join)
@pytest.mark.parametrize("form", ["fold", *FORMS])
def test_activations_behind_a_concatenation(
    form: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    check_forms(form, Joined(names), data("conv2d"), tmp_path)


@pytest.mark.parametrize("head", HEADS)
def test_no_more_is_kept_apart_than_paddle_fuses_wrongly(head: str, tmp_path: Path) -> None:
    """Ops that Paddle fuses correctly still cost no time of their own."""
    feed = data(head)
    for index, firsts in enumerate(CHUNKS):
        directory = tmp_path / str(index)
        Chains(head, ("second",), firsts).save(directory)
        model = load_model(directory)
        runs = [paddle_run.run(directory, feed, how) for how in ("float", "plain")]
        errors = dict(zip(model.fetches, map(paddle_run.relative_error, *runs)))
        wrong = {name.rpartition(".")[0] for name, error in errors.items() if error > BOUND}
        found = {name.rpartition(".")[0] for name in misfused(model)}
        # There, the lost activation makes no difference.
        assert found - {"relu.relu6"} == wrong


@pytest.mark.parametrize("reader", ["", "relu", "tanh"])
def test_a_tensor_that_a_relu_shares(reader: str, tmp_path: Path) -> None:
    """Paddle puts the relu into the batch_norm, and takes the tensor from the other reader."""
    net = programs.Net([2, 3, 8, 8]).act("sigmoid").batch_norm()
    shared = net.last
    net.act("relu").conv(4).end()
    net.fetch(net.op(reader, {"X": shared}, ("Out", "y"), [-1, 3, 8, 8], {}) if reader else shared)
    check_forms("fold", net, {"x": programs.random((2, 3, 8, 8))}, tmp_path)
    assert misfused(load_model(tmp_path / "float"))
    assert not misfused(load_model(tmp_path / "made"))


def test_a_relu_of_its_own_is_fused(tmp_path: Path) -> None:
    net = programs.Net([2, 3, 8, 8]).act("sigmoid").batch_norm().act("relu").end()
    assert not misfused(load_model(net.save(tmp_path)))


def op_types(directory: Path) -> list[str]:
    return [op.type for op in load_model(directory).ops() if op.type not in ("feed", "fetch")]


def test_the_note_names_what_is_wrong_in_float(tmp_path: Path) -> None:
    feed = data("conv2d")
    Chains("conv2d", ("tanh",), ("sigmoid",)).save(tmp_path / "float")
    wrong = misfused(load_model(tmp_path / "float"))
    assert len(wrong) == 13
    (note,) = quantize(tmp_path, feed, "OneDNN").notes
    assert re.search(f"{', '.join(wrong[:3])} .*10 ", note)
    Chains("conv2d", ("relu",), ("sigmoid",)).save(tmp_path / "float")
    assert not quantize(tmp_path, feed, "OneDNN").notes
    assert "shape" in op_types(tmp_path / "made")


@pytest.mark.parametrize("backend", ["TensorRT", "ARM"])
def test_other_runtimes_get_no_more_ops(backend: str, tmp_path: Path) -> None:
    Chains("conv2d", ("tanh",), ("sigmoid",)).save(tmp_path / "float")
    found = quantize(tmp_path, data("conv2d"), backend)
    assert not found.notes
    assert "shape" not in op_types(tmp_path / "made")


def test_calibration_sees_what_the_model_says(tmp_path: Path) -> None:
    """Paddle's fused float program loses the sigmoid, and so falls below zero."""
    net = Chains("conv2d", ("tanh",), ())
    name = net.chain("first", "sigmoid", "", 0)
    inputs = {"Input": name, "Filter": net.parameter("last", weight((6, 6, 3, 3), 7))}
    net.fetch(net.op("conv2d", inputs, ("Output", "y"), net.dims, CONV))
    net.save(tmp_path)
    seen = calibrate(tmp_path, data_loader=[data("conv2d")])
    assert seen.statistics[name].minimum > 0


def test_dynamic_and_its_twin(tmp_path: Path) -> None:
    feed = data("conv2d")
    Chains("conv2d", ("tanh",), ("sigmoid", "gelu")).save(tmp_path / "float")
    expected = paddle_run.run(tmp_path / "float", feed)
    quant_post_dynamic(tmp_path / "float", tmp_path / "made", generate_test_model=True)
    for name in ("quantized_model", "test_model"):
        check(tmp_path / "made" / name, feed, "float", expected)


def test_convert(tmp_path: Path) -> None:
    feed = data("conv2d")
    Chains("conv2d", ("tanh",), ("sigmoid", "gelu")).save(tmp_path / "float")
    expected = paddle_run.run(tmp_path / "float", feed)
    assert main(["convert", str(tmp_path / "float"), str(tmp_path / "made")]) == 0
    check(tmp_path / "made", feed, "float", expected)


def test_compare_takes_what_is_kept_apart(tmp_path: Path) -> None:
    feed = data("conv2d")
    Chains("conv2d", ("tanh",), ("sigmoid", "gelu")).save(tmp_path / "float")
    quantize(tmp_path, feed, "OneDNN")
    found = compare(tmp_path / "float", tmp_path / "made", data_loader=[feed])
    errors = [tensor.error for tensor in found.worst("simulated", "int8 run")]
    assert len(errors) == 52
    assert all(error is not None and error.sqnr > 80 for error in errors)


@pytest.mark.parametrize("scaled", [True, False])
def test_a_mask_is_added_in_no_reference_kernel(scaled: bool, tmp_path: Path) -> None:
    net = ProgramBuilder()
    x, mask = net.feed("x", [-1, 4, 8, 16]), net.feed("mask", [-1, 1, -1, 8])
    w = net.parameter("w", programs.random((16, 16)))
    keys = net.op("matmul_v2", {"X": x, "Y": w}, ("Out", "keys"), [-1, 4, 8, 16], STRAIGHT)
    y = net.op(
        "matmul_v2",
        {"X": x, "Y": keys},
        ("Out", "y"),
        [-1, 4, 8, 8],
        {"trans_x": False, "trans_y": True},
    )
    if scaled:
        scale = {"scale": 0.25, "bias": 0.0, "bias_after_scale": True}
        y = net.op("scale", {"X": y}, ("Out", "scaled"), [-1, 4, 8, 8], scale)
    both = {"X": y, "Y": mask}
    net.fetch(net.op("elementwise_add", both, ("Out", "sum"), [-1, 4, 8, 8], {"axis": -1}))
    source = net.save(tmp_path / "float")
    feed = {"x": programs.random((2, 4, 8, 16)), "mask": programs.random((1, 1, 8, 8))}
    expected = paddle_run.run(source, feed)
    assert main(["fold", str(source), str(tmp_path / "folded")]) == 0
    check(tmp_path / "folded", feed, "float", expected)
    found = kernel_times(load_model(tmp_path / "folded"), feed, 1)
    products = [one for one in found if one.primitive in ("matmul", "inner_product")]
    assert products
    assert not [one for one in products if one.implementation.startswith("ref")]
    assert misfused(load_model(source)) == []
