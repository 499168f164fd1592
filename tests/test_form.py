"""Damaged programs are refused by name when they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paddle.base.proto import framework_pb2
from programs import INT64, conv_net

from pyquant import ModelFileError, UnsupportedError, fold, load_model
from pyquant.program import proto
from pyquant.program.op import Op
from pyquant.program.op_protos import attribute_kinds
from pyquant.program.parameters import read_combined

pytestmark = pytest.mark.any_isa

Change = Callable[[Any], Any]


def op(program: Any, op_type: str) -> Any:
    return next(one for one in program.blocks[0].ops if one.type == op_type)


def attribute(program: Any, name: str) -> Any:
    return next(one for one in op(program, "conv2d").attrs if one.name == name)


def variable(program: Any, name: str) -> Any:
    return next(one for one in program.blocks[0].vars if one.name == name)


def as_list(program: Any, name: str) -> None:
    variable(program, name).type.type = framework_pb2.VarType.STEP_SCOPES


def set_kind(program: Any, name: str, kind: int, **fields: Any) -> None:
    one = attribute(program, name)
    one.Clear()
    one.name, one.type = name, kind
    for field, value in fields.items():
        setattr(one, field, value)


def put_sub_block(program: Any) -> None:
    op(program, "relu").attrs.add(name="sub_block", type=framework_pb2.BLOCK, block_idx=3)


def put_scalar(program: Any) -> None:
    """Paddle converts a Scalar to no number: "Cannot get attribute (scale) by type float"."""
    one = op(program, "relu")
    one.type = "scale"
    scalar = framework_pb2.Scalar(type=framework_pb2.Scalar.FLOAT64, r=2.0)
    one.attrs.add(name="scale", type=framework_pb2.SCALAR, scalar=scalar)


CASES: dict[str, tuple[Change, str]] = {
    "no ops": (lambda p: p.blocks[0].ClearField("ops"), "no ops"),
    "a block inside itself": (lambda p: p.blocks.add(idx=1, parent_idx=1), "block 1 in block 1"),
    "a missing field": (lambda p: op(p, "relu").attrs.add(name="x"), r"relu|attrs\[0\]\.type"),
    "a name with NUL": (lambda p: setattr(variable(p, "a"), "name", "a\0b"), r"'a\\x00b' holds"),
    "no type": (lambda p: setattr(op(p, "relu"), "type", ""), "its type is empty"),
    "many dimensions": (
        lambda p: proto.tensor_desc(variable(p, "a")).dims.extend([1] * 65),
        "'a' has 69 dimensions",
    ),
    "a negative shape": (
        lambda p: proto.tensor_desc(variable(p, "a")).dims.__setitem__(0, -2),
        r"'a' has the shape \[-2",
    ),
    "no argument": (lambda p: op(p, "relu").inputs[0].ClearField("arguments"), "'X' is empty"),
    "two arguments": (lambda p: op(p, "relu").inputs[0].arguments.append("x"), "'X' has 2"),
    "no output": (lambda p: op(p, "conv2d").ClearField("outputs"), "'Output' is empty"),
    "a slot twice": (
        lambda p: op(p, "relu").inputs.extend(list(op(p, "relu").inputs)),
        "'X' is there",
    ),
    "an undeclared input": (lambda p: setattr(variable(p, "x"), "name", "z"), "'x'.*not declared"),
    "an input that is a list": (lambda p: as_list(p, "x"), "'x' is not declared as a dense"),
    "an output that is a list": (lambda p: as_list(p, "y"), "'y' is not declared as a dense"),
    "a column that is text": (
        lambda p: op(p, "feed").attrs[0].MergeFrom(proto.make_attribute("col", 2, "first")),
        "'col' is STRING, where Paddle has INT",
    ),
    "a column without a place": (lambda p: setattr(op(p, "feed").attrs[0], "i", 5), r"feed.*\[5\]"),
    "an attribute twice": (
        lambda p: op(p, "conv2d").attrs.extend([attribute(p, "groups")]),
        "'groups' is there twice",
    ),
    "numbers for a number": (lambda p: set_kind(p, "groups", framework_pb2.INTS), "is INTS"),
    "a Scalar for a number": (put_scalar, "'scale' is SCALAR, where Paddle has FLOAT"),
    "three strides": (lambda p: attribute(p, "strides").ints.append(1), r"'strides' is \[1, 1, 1"),
    "groups that divide no filter": (
        lambda p: attribute(p, "groups").MergeFrom(proto.make_attribute("groups", 0, 7)),
        "its 7 groups do not divide the 8 channels",
    ),
    "a stride of 0": (lambda p: attribute(p, "strides").ints.__setitem__(0, 0), r"\[0, 1\]"),
    "a block that is not there": (put_sub_block, r"'sub_block' names the blocks \[3\], of 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_program_is_refused_by_name(tmp_path: Path, case: str) -> None:
    change, said = CASES[case]
    path = conv_net().save(tmp_path) / "m.pdmodel"
    program = proto.ProgramDesc.FromString(path.read_bytes())
    change(program)
    path.write_bytes(program.SerializePartialToString())
    with pytest.raises(ModelFileError, match=rf"/m\.pdmodel: .*{said}"):
        load_model(tmp_path)


@pytest.mark.parametrize("what", ["x", "relu", "NCHW"])
def test_text_that_is_not_utf8(tmp_path: Path, what: str) -> None:
    path = conv_net().save(tmp_path) / "m.pdmodel"
    text = what.encode()
    mark = bytes([len(text)]) + text
    path.write_bytes(path.read_bytes().replace(mark, mark[:1] + b"\xff" + text[1:]))
    with pytest.raises(ModelFileError, match=r"/m\.pdmodel: .*not UTF-8"):
        load_model(tmp_path)


def test_an_attribute_read_from_a_variable(tmp_path: Path) -> None:
    path = conv_net().save(tmp_path) / "m.pdmodel"
    program = proto.ProgramDesc.FromString(path.read_bytes())
    set_kind(program, "groups", framework_pb2.VAR, var_name="x")
    path.write_bytes(program.SerializeToString())
    with pytest.raises(UnsupportedError, match="conv2d -> a: its attribute 'groups'"):
        load_model(tmp_path)


@pytest.mark.parametrize("dims", [(0, 2**63 - 1), (1,) * 65, (2**32, 0, 2**32)])
def test_shapes_that_no_tensor_has(tmp_path: Path, dims: tuple[int, ...]) -> None:
    desc = proto.TensorDesc(data_type=INT64, dims=dims).SerializeToString()
    path = tmp_path / "p"
    path.write_bytes(bytes(16) + len(desc).to_bytes(4, "little") + desc + bytes(8))
    with pytest.raises(ModelFileError, match=rf"'w' .*shape \[{dims[0]}, {dims[1]}"):
        read_combined(path, ["w"])


def test_an_empty_weight_stays_in_float(tmp_path: Path) -> None:
    from pyquant import quant_post_dynamic

    net = conv_net()
    net.parameter("none.w", np.zeros((0, 4, 1, 1), np.float32))
    filters = {"Input": "c", "Filter": "none.w"}
    net.fetch(net.op("conv2d", filters, ("Output", "none"), [-1, 0, 8, 8]))
    result = quant_post_dynamic(net.save(tmp_path / "in"), tmp_path / "out")
    assert {op.name: op.reason for op in result.kept_float}["none"] == "weight 'none.w' is empty"


@pytest.mark.parametrize("size", [2**40, 2**62])
def test_a_constant_of_any_size_is_not_computed(tmp_path: Path, size: int) -> None:
    """It would take all memory."""
    net = conv_net()
    net.add_op("fill_constant", {}, {"Out": {"shape": [2]}}, {"value": 1.0, "str_value": "1"})
    for name, value in (("shape", [size, 4]), ("dtype", proto.FP32)):
        Op(net.block.ops[-1]).set_attr(name, value, attribute_kinds("fill_constant")[name])
    shapes = {"X": ["c"], "Shape": ["shape"]}
    net.add_op("reshape2", shapes, {"Out": {"r": [-1, 4]}}, {"shape": [0]})
    net.fetch("r")
    model = load_model(net.save(tmp_path))
    fold(model)
    assert [one.type for one in model.ops()].count("fill_constant") == 1
