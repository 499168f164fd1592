"""Small Paddle programs, written op by op, so that every Paddle version makes the same files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyquant.program import proto
from pyquant.program.model import Model, save_model

INT64 = 3
CONV: dict[str, Any] = {
    "strides": [1, 1],
    "paddings": [1, 1],
    "dilations": [1, 1],
    "groups": 1,
    "data_format": "NCHW",
    "padding_algorithm": "EXPLICIT",
}


class ProgramBuilder:
    """A program under construction; ops run in the order in which they are added."""

    def __init__(self) -> None:
        self.program = proto.ProgramDesc()
        self.block = self.program.blocks.add(idx=0, parent_idx=-1)
        self.parameters: dict[str, np.ndarray[Any, Any]] = {}
        self._fetched: list[str] = []
        for name, kind in (("feed", proto.FEED_LIST), ("fetch", proto.FETCH_LIST)):
            proto.add_list_var(self.block, name, kind)

    def feed(self, name: str, dims: list[int], data_type: int = 5) -> str:
        proto.add_var(self.block, name, data_type, dims)
        column = sum(op.type == "feed" for op in self.block.ops)
        self._add("feed", {"X": ["feed"]}, {"Out": [name]}, {"col": column})
        return name

    def parameter(self, name: str, array: np.ndarray[Any, Any]) -> str:
        var = proto.add_var(self.block, name, proto.paddle_dtype(array.dtype), array.shape)
        var.persistable = True
        self.parameters[name] = array
        return name

    def op(
        self,
        op_type: str,
        inputs: Mapping[str, str],
        output: tuple[str, str],
        dims: list[int],
        attributes: Mapping[str, Any] | None = None,
    ) -> str:
        """Add an op with one output, given as slot and name, and return the name."""
        slot, name = output
        proto.add_var(self.block, name, 5, dims)
        self._add(
            op_type, {key: [value] for key, value in inputs.items()}, {slot: [name]}, attributes
        )
        return name

    def fetch(self, name: str) -> None:
        self._fetched.append(name)

    def save(
        self, directory: Path, model_filename: str = "m.pdmodel", params: str | None = "m.pdiparams"
    ) -> Path:
        for column, name in enumerate(self._fetched):
            self._add("fetch", {"X": [name]}, {"Out": ["fetch"]}, {"col": column})
        self._fetched = []
        model = Model(self.program, self.parameters, Path("new"), None, ())
        save_model(model, directory, model_filename, params)
        return directory

    def _add(
        self,
        op_type: str,
        inputs: dict[str, list[str]],
        outputs: dict[str, list[str]],
        attributes: Mapping[str, Any] | None,
    ) -> None:
        self.block.ops.append(proto.make_op(op_type, inputs, outputs, attributes or {}))


def random(shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def conv_net() -> ProgramBuilder:
    """x[-1,3,8,8] -> conv2d -> relu -> conv2d -> flatten -> matmul_v2: three weights."""
    net = ProgramBuilder()
    x = net.feed("x", [-1, 3, 8, 8])
    first = net.parameter("first.w", random((8, 3, 3, 3), 1) * np.float32(0.2))
    second = net.parameter("second.w", random((4, 8, 3, 3), 2) * np.float32(0.1))
    dense = net.parameter("dense.w", random((256, 10), 3) * np.float32(0.1))
    a = net.op("conv2d", {"Input": x, "Filter": first}, ("Output", "a"), [-1, 8, 8, 8], CONV)
    b = net.op("relu", {"X": a}, ("Out", "b"), [-1, 8, 8, 8])
    c = net.op("conv2d", {"Input": b, "Filter": second}, ("Output", "c"), [-1, 4, 8, 8], CONV)
    flat = {"start_axis": 1, "stop_axis": -1}
    f = net.op("flatten_contiguous_range", {"X": c}, ("Out", "f"), [-1, 256], flat)
    straight = {"trans_x": False, "trans_y": False}
    net.fetch(net.op("matmul_v2", {"X": f, "Y": dense}, ("Out", "y"), [-1, 10], straight))
    return net


def linear_net(op_type: str, transposed: bool = False) -> ProgramBuilder:
    """x[-1,16,64] times weight "w" (64 to 32 features) by mul, matmul or matmul_v2."""
    net = ProgramBuilder()
    x = net.feed("x", [-1, 16, 64])
    weight = random((64, 32), 4)
    w = net.parameter("w", np.ascontiguousarray(weight.T) if transposed else weight)
    attributes = {
        "mul": {"x_num_col_dims": 2, "y_num_col_dims": 1},
        "matmul": {"transpose_X": False, "transpose_Y": transposed, "alpha": 1.0},
        "matmul_v2": {"trans_x": False, "trans_y": transposed},
    }[op_type]
    net.fetch(net.op(op_type, {"X": x, "Y": w}, ("Out", "y"), [-1, 16, 32], attributes))
    return net


def embedding_net() -> ProgramBuilder:
    """ids[-1,5] looked up in "table"[50,16], which the output layer reads transposed."""
    net = ProgramBuilder()
    ids = net.feed("ids", [-1, 5], INT64)
    table = net.parameter("table", random((50, 16), 5))
    rows = net.op("lookup_table_v2", {"Ids": ids, "W": table}, ("Out", "rows"), [-1, 5, 16])
    tied = {"trans_x": False, "trans_y": True}
    net.fetch(net.op("matmul_v2", {"X": rows, "Y": table}, ("Out", "y"), [-1, 5, 50], tied))
    return net


def transposed_conv_net() -> ProgramBuilder:
    """x[-1,3,8,8] through conv2d_transpose with "w"[3,6,2,2]."""
    net = ProgramBuilder()
    x = net.feed("x", [-1, 3, 8, 8])
    w = net.parameter("w", random((3, 6, 2, 2), 6))
    attributes = {**CONV, "strides": [2, 2], "paddings": [0, 0]}
    net.fetch(
        net.op(
            "conv2d_transpose",
            {"Input": x, "Filter": w},
            ("Output", "y"),
            [-1, 6, 16, 16],
            attributes,
        )
    )
    return net


def depthwise_net() -> ProgramBuilder:
    """x[-1,6,8,8] through depthwise_conv2d with "w"[6,1,3,3]."""
    net = ProgramBuilder()
    x = net.feed("x", [-1, 6, 8, 8])
    w = net.parameter("w", random((6, 1, 3, 3), 7))
    net.fetch(
        net.op(
            "depthwise_conv2d",
            {"Input": x, "Filter": w},
            ("Output", "y"),
            [-1, 6, 8, 8],
            {**CONV, "groups": 6},
        )
    )
    return net


def shared_weight_net() -> ProgramBuilder:
    """Two feeds; "w" is read by two conv2d and by a float op that adds its sum to the output."""
    net = ProgramBuilder()
    left, right = net.feed("left", [-1, 3, 8, 8]), net.feed("right", [-1, 3, 8, 8])
    w = net.parameter("w", random((4, 3, 3, 3), 8))
    dims = [-1, 4, 8, 8]
    a = net.op("conv2d", {"Input": left, "Filter": w}, ("Output", "a"), dims, CONV)
    b = net.op("conv2d", {"Input": right, "Filter": w}, ("Output", "b"), dims, CONV)
    both = net.op("elementwise_add", {"X": a, "Y": b}, ("Out", "both"), dims, {"axis": -1})
    everything = {"dim": [0], "keep_dim": False, "reduce_all": True}
    total = net.op("reduce_sum", {"X": w}, ("Out", "total"), [1], everything)
    net.fetch(total)
    net.fetch(both)
    return net
