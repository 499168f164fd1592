"""Ops that read limits and the like from tensors, while Paddle's passes read attributes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_forms import FORMS, check_runs, converted
from paddle_run import predict
from processors import needs_vnni
from programs import INT64, Net, ProgramBuilder, random

from pyquant import load_model, quant_post_dynamic
from pyquant.program import proto
from pyquant.program.op import Op, make_op
from pyquant.program.op_protos import attribute_kinds
from pyquant.program.tensor_inputs import use_attributes

pytestmark = pytest.mark.any_isa

IMAGES = random((4, 8, 6, 6), 3)
LIMITS = {"Min": -0.5, "Max": 0.75}
FLOAT_MAX = float(np.finfo(np.float32).max)
UNLIMITED = {"min": -FLOAT_MAX, "max": FLOAT_MAX}  # as paddle.clip writes it beside tensors


def from_parameter(net: ProgramBuilder, name: str, value: float) -> str:
    return net.parameter(name, np.array([value], np.float32))


def from_fill_constant(net: ProgramBuilder, name: str, value: float) -> str:
    given = {"shape": [1], "dtype": proto.FP32, "value": 9.0, "str_value": str(value)}
    return source(net, "fill_constant", name, given)


def from_assign_value(net: ProgramBuilder, name: str, value: float) -> str:
    has_one = "values" in attribute_kinds("assign_value")  # Paddle 2 has one for each dtype
    given = {"shape": [1], "dtype": proto.FP32, "values" if has_one else "fp32_values": [value]}
    return source(net, "assign_value", name, given)


def source(net: ProgramBuilder, op_type: str, name: str, attributes: dict[str, Any]) -> str:
    net.op(op_type, {}, ("Out", name), [1])
    kinds = attribute_kinds(op_type)
    for attribute, value in attributes.items():
        Op(net.block.ops[-1]).set_attr(attribute, value, kinds[attribute])
    return name


def computed(net: ProgramBuilder, name: str, value: float) -> str:
    """The mean of the images, which is nearly zero, and the limit."""
    over_all = {"dim": [0], "keep_dim": False, "reduce_all": True}
    mean = net.op("reduce_mean", {"X": "x"}, ("Out", f"{name}.mean"), [1], over_all)
    shift = {"scale": 1.0, "bias": value, "bias_after_scale": True}
    return net.op("scale", {"X": mean}, ("Out", name), [1], shift)


MAKERS = (from_parameter, from_fill_constant, from_assign_value, computed)


def clip_net(
    make: Callable[[ProgramBuilder, str, float], str], slots: tuple[str, ...] = ("Min", "Max")
) -> Net:
    """x[-1,8,6,6] -> conv2d -> clip between tensors -> conv2d."""
    net = Net([4, 8, 6, 6])
    net.conv(8)
    limits = {slot: make(net, slot.lower(), LIMITS[slot]) for slot in slots}
    others = {slot.lower(): LIMITS[slot] for slot in LIMITS.keys() - limits}
    net.then("clip", {"X": net.last, **limits}, "Out", {**UNLIMITED, **others})
    return net.conv(4).end()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", MAKERS, ids=[make.__name__ for make in MAKERS])
def test_limits_of_a_clip(tmp_path: Path, make: Any, form: str) -> None:
    """Both limits: by the attributes alone, the passes fuse the clip with the convolution."""
    if form == "QDQ":
        needs_vnni()
    path = clip_net(make).save(tmp_path / "in") / "m.pdmodel"
    check_runs(path, form, tmp_path, "x", IMAGES)
    expected = predict(path, path.with_suffix(".pdiparams"), {"x": IMAGES})[0]
    plain = converted(path, tmp_path / "plain", IMAGES)
    np.testing.assert_array_equal(predict(*plain[:2], {"x": IMAGES})[0], expected)


@pytest.mark.parametrize("make", MAKERS, ids=[make.__name__ for make in MAKERS])
@pytest.mark.parametrize("slot", LIMITS)
def test_one_limit_of_a_clip(tmp_path: Path, make: Any, slot: str) -> None:
    path = clip_net(make, (slot,)).save(tmp_path / "in") / "m.pdmodel"
    for form in ("convert", "fold"):
        check_runs(path, form, tmp_path / form, "x", IMAGES)


def test_constant_limits_are_attributes(tmp_path: Path) -> None:
    for make in MAKERS:
        model = load_model(clip_net(make).save(tmp_path / make.__name__))
        clips = [op for op in model.ops() if op.type == "clip"]
        assert len(clips) == (make is not computed)
        for clip in clips:
            assert clip.reads() == clip.inputs("X")
            limits = [clip.value(name) for name in ("min", "max")]
            assert limits == list(LIMITS.values())


def test_dynamic_mode_keeps_the_limits(tmp_path: Path) -> None:
    path = clip_net(computed).save(tmp_path / "in") / "m.pdmodel"
    result = quant_post_dynamic(path.parent, tmp_path / "out", weight_bits=16)
    feed = {"x": IMAGES}
    expected = predict(path, path.with_suffix(".pdiparams"), feed)[0]
    for how in ("plain", "float"):
        output = predict(result.model_path, result.params_path, feed, how)[0]
        np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("slot", LIMITS)
def test_whole_numbers_within_a_computed_limit(tmp_path: Path, slot: str) -> None:
    """Positions, limited by a size: Paddle's passes fail on a clip of a sum of whole numbers."""
    net = ProgramBuilder()
    ids = net.feed("ids", [-1, 4], INT64)
    limit = net.feed("limit", [1], INT64)
    one = net.parameter("one", np.ones(4, np.int64))
    net.op("elementwise_add", {"X": ids, "Y": one}, ("Out", "sum"), [-1, 4], {"axis": -1})
    other = {"min": -(2.0**63), "max": 2.0**63 - 2.0**39}  # as paddle.clip writes it
    net.fetch(net.op("clip", {"X": "sum", slot: limit}, ("Out", "y"), [-1, 4], other))
    for var in net.block.vars:
        if var.name in ("sum", "y"):
            proto.tensor_desc(var).data_type = INT64
    path = net.save(tmp_path / "in")
    ids = np.array([[-(2**62), -1, 0, 2**62]])
    paths = converted(path, tmp_path / "out", None)
    limits = {"Min": (0, None), "Max": (None, 0)}[slot]
    for how in ("plain", "float"):
        output = predict(*paths[:2], {"ids": ids, "limit": np.zeros(1, np.int64)}, how)[0]
        np.testing.assert_array_equal(output, np.clip(ids + 1, *limits))


@pytest.mark.parametrize(
    "value", [np.float64(0.1), np.float32("nan"), np.uint16(16256)], ids=["inexact", "nan", "raw"]
)
def test_what_an_attribute_cannot_hold_stays(value: Any) -> None:
    op = make_op("clip", {"X": ["x"], "Max": ["m"]}, {"Out": ["y"]}, UNLIMITED)
    before = op.copy()
    assert not use_attributes(op, {"m": np.array([value])}.get)
    assert op.desc == before.desc


def test_a_list_is_an_attribute_if_all_of_it_is_known() -> None:
    arrays = {"a": np.array([2], np.int32), "b": np.array([-1], np.int64)}
    slots = {"X": ["x"], "ShapeTensor": ["a", "b"]}
    op = make_op("reshape2", slots, {"Out": ["y"]}, {"shape": [-1, -1]})
    assert not use_attributes(op, {"a": arrays["a"]}.get)
    assert use_attributes(op, arrays.get)
    assert list(op.ints("shape")) == [2, -1]
    assert op.reads() == ["x"]
