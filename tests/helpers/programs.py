"""Small Paddle programs, written op by op, so that every Paddle version makes the same files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyquant.program import proto
from pyquant.program.model import Model, save_model
from pyquant.program.op import make_op
from pyquant.program.op_protos import complete

INT64 = 3
CONV: dict[str, Any] = {
    "strides": [1, 1],
    "paddings": [1, 1],
    "dilations": [1, 1],
    "groups": 1,
    "data_format": "NCHW",
    "padding_algorithm": "EXPLICIT",
}
UNPADDED = {**CONV, "paddings": [0, 0]}
STRAIGHT: dict[str, Any] = {"trans_x": False, "trans_y": False}
POOLING: dict[str, Any] = {
    "pooling_type": "max",
    "ksize": [3, 3],
    "strides": [2, 2],
    "paddings": [1, 1],
    "padding_algorithm": "EXPLICIT",
    "data_format": "NCHW",
    "global_pooling": False,
    "adaptive": False,
    "exclusive": True,
    "ceil_mode": False,
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

    def add_op(
        self,
        op_type: str,
        inputs: Mapping[str, list[str]],
        outputs: Mapping[str, Mapping[str, list[int]]],
        attributes: Mapping[str, Any],
    ) -> None:
        """Add an op with any number of tensors in each slot; outputs are given with their dims."""
        for tensors in outputs.values():
            for name, dims in tensors.items():
                proto.add_var(self.block, name, 5, dims)
        written = {slot: list(tensors) for slot, tensors in outputs.items()}
        self._add(op_type, dict(inputs), written, attributes)

    def fetch(self, name: str) -> None:
        self._fetched.append(name)

    def save(
        self, directory: Path, model_filename: str = "m.pdmodel", params: str | None = "m.pdiparams"
    ) -> Path:
        before = sum(op.type == "fetch" for op in self.block.ops)
        for column, name in enumerate(self._fetched, before):
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
        self.block.ops.append(make_op(op_type, inputs, outputs, attributes or {}).desc)


def random(shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class Net(ProgramBuilder):
    """A program in which every tensor has the dims of the one before, except for the channels."""

    def __init__(self, dims: list[int]) -> None:
        super().__init__()
        self.dims = dims
        self.last = self.feed("x", [-1, *dims[1:]])
        self._count = 0

    def conv(
        self, outputs: int, attributes: Mapping[str, Any] = CONV, op_type: str = "conv2d"
    ) -> Net:
        groups = int(attributes["groups"])
        size = 3 if attributes["paddings"] != [0, 0] else 1
        shape = (outputs, self.dims[1] // groups, size, size)
        if op_type == "conv2d_transpose":
            shape = (self.dims[1], outputs // groups, size, size)
        self._count += 1
        w = self.parameter(f"w{self._count}", random(shape, self._count))
        self.dims = [self.dims[0], outputs, *self.dims[2:]]
        return self.then(op_type, {"Input": self.last, "Filter": w}, "Output", attributes)

    def upsample(self, outputs: int, kernel: tuple[int, int] = (2, 2), **attributes: Any) -> Net:
        """Add a transposed convolution; its strides are its kernel's size unless they are given."""
        given = {**CONV, "paddings": [0, 0], "strides": list(kernel), **attributes}
        shape = (self.dims[1], outputs // given["groups"], *kernel)
        self._count += 1
        w = self.parameter(f"up{self._count}", random(shape, self._count))
        sizes = [size * step if size > 0 else size for size, step in zip(self.dims[2:], kernel)]
        self.dims = [self.dims[0], outputs, *sizes]
        return self.then("conv2d_transpose", {"Input": self.last, "Filter": w}, "Output", given)

    def matmul(self, outputs: int, op_type: str = "matmul_v2", **attributes: Any) -> Net:
        self._count += 1
        transposed = any(attributes.values())
        shape = (outputs, self.dims[-1]) if transposed else (self.dims[-1], outputs)
        w = self.parameter(f"w{self._count}", random(shape, self._count))
        self.dims = [*self.dims[:-1], outputs]
        return self.then(op_type, {"X": self.last, "Y": w}, "Out", attributes)

    def constant(self, op_type: str, values: Any, axis: int = -1, first: bool = False) -> Net:
        self._count += 1
        c = self.parameter(f"c{self._count}", np.asarray(values, np.float32))
        x, y = (c, self.last) if first else (self.last, c)
        return self.then(op_type, {"X": x, "Y": y}, "Out", {"axis": axis})

    def batch_norm(self, data_layout: str = "NCHW") -> Net:
        self._count += 1
        channels = self.dims[1 if data_layout == "NCHW" else -1]
        slots = ("Scale", "Bias", "Mean", "Variance")
        inputs = {"X": self.last}
        for seed, slot in enumerate(slots):
            values = random((channels,), 10 * self._count + seed)
            name = f"{slot}{self._count}"
            inputs[slot] = self.parameter(name, values**2 + 0.5 if slot == "Variance" else values)
        attributes = {"epsilon": 1e-3, "is_test": True, "data_layout": data_layout}
        self.then("batch_norm", inputs, "Y", attributes)
        for slot in ("Mean", "Variance"):
            saved = f"saved{slot}{self._count}"
            proto.add_var(self.block, saved, proto.FP32, [channels])
            for output, name in ((f"{slot}Out", inputs[slot]), (f"Saved{slot}", saved)):
                self.block.ops[-1].outputs.add(parameter=output, arguments=[name])
        return self

    def act(self, op_type: str = "sigmoid") -> Net:
        return self.then(op_type, {"X": self.last}, "Out", {})

    def then(
        self, op_type: str, inputs: Mapping[str, str], slot: str, attributes: Mapping[str, Any]
    ) -> Net:
        name = f"t{len(self.block.ops)}"
        self.last = self.op(op_type, inputs, (slot, name), [-1, *self.dims[1:]], attributes)
        return self

    def nearest(self, factor: int) -> Net:
        """Add a nearest-neighbour upsampling."""
        attributes = {
            **{"scale": [float(factor)] * 2, "interp_method": "nearest", "data_layout": "NCHW"},
            **{"align_corners": False, "align_mode": 1, "out_h": -1, "out_w": -1, "out_d": -1},
        }
        sizes = [size * factor if size > 0 else size for size in self.dims[2:]]
        self.dims = [*self.dims[:2], *sizes]
        return self.then("nearest_interp_v2", {"X": self.last}, "Out", attributes)

    def concat(self, *names: str) -> Net:
        """Concatenate the channels of tensors that have the last one's height and width."""
        dims = {var.name: list(proto.tensor_desc(var).dims) for var in self.block.vars[2:]}
        self.dims = [self.dims[0], sum(dims[name][1] for name in names), *self.dims[2:]]
        self.last = f"t{len(self.block.ops)}"
        proto.add_var(self.block, self.last, proto.FP32, [-1, *self.dims[1:]])
        self._add("concat", {"X": list(names)}, {"Out": [self.last]}, {"axis": 1})
        return self

    def end(self) -> Net:
        self.fetch(self.last)
        return self


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
    net.fetch(net.op("matmul_v2", {"X": f, "Y": dense}, ("Out", "y"), [-1, 10], STRAIGHT))
    return net


def product_attributes(op_type: str, rows: int = 1, transposed: bool = False) -> dict[str, Any]:
    """Return the attributes of a product by a weight; the input's first ``rows`` axes are rows."""
    return {
        "mul": {"x_num_col_dims": rows, "y_num_col_dims": 1},
        "matmul": {"transpose_X": False, "transpose_Y": transposed, "alpha": 1.0},
        "matmul_v2": {"trans_x": False, "trans_y": transposed},
    }[op_type]


def linear_net(op_type: str, transposed: bool = False) -> ProgramBuilder:
    """x[-1,16,64] times weight "w" (64 to 32 features) by mul, matmul or matmul_v2."""
    net = ProgramBuilder()
    x = net.feed("x", [-1, 16, 64])
    weight = random((64, 32), 4)
    w = net.parameter("w", np.ascontiguousarray(weight.T) if transposed else weight)
    attributes = product_attributes(op_type, 2, transposed)
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


def product_net(
    op_type: str, dims: list[int], bias: bool = False, transposed: bool = False
) -> ProgramBuilder:
    """x[dims] times a weight of 64 to 32 features, whose columns' magnitudes differ widely.

    Two products share the weight and the bias; each has an output.
    """
    net = ProgramBuilder()
    x = net.feed("x", dims)
    magnitudes = np.logspace(-2, 2, 32).astype(np.float32)
    weight = random((64, 32), 4) * magnitudes
    w = net.parameter("w", np.ascontiguousarray(weight.T) if transposed else weight)
    b = net.parameter("b", random((32,), 5) * magnitudes) if bias else ""
    attributes = product_attributes(op_type, len(dims) - 1, transposed)
    out = [*dims[:-1], 32]
    for name in ("first", "second"):
        y = net.op(op_type, {"X": x, "Y": w}, ("Out", name), out, attributes)
        if bias:
            add = {"X": y, "Y": b}
            y = net.op("elementwise_add", add, ("Out", f"{name}.sum"), out, {"axis": -1})
        net.fetch(y)
    return net


def rnn_net(
    mode: str = "LSTM", layers: int = 1, directions: int = 1, hidden: int = 32
) -> ProgramBuilder:
    """x[time, batch of 2, 24] through ``rnn``."""
    net = ProgramBuilder()
    x = net.feed("x", [-1, 2, 24])
    gates = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1}[mode]
    cells = layers * directions
    matrices, vectors = [], []
    for cell in range(cells):
        inputs = 24 if cell < directions else hidden * directions
        for index, size in enumerate((inputs, hidden)):
            array = random((gates * hidden, size), 10 * cell + index) * np.float32(size**-0.5)
            matrices.append(net.parameter(f"cell{cell}.w{index}", array))
            bias = random((gates * hidden,), 10 * cell + index + 5) * np.float32(0.1)
            vectors.append(net.parameter(f"cell{cell}.b{index}", bias))
    state = {"shape": [cells, 2, hidden], "dtype": 5, "value": 0.0}
    names = ["h", "c"] if mode == "LSTM" else ["h"]
    for name in names:
        net.op("fill_constant", {}, ("Out", name), [cells, 2, hidden], state)
    net.add_op(
        "rnn",
        {"Input": [x], "PreState": names, "WeightList": matrices + vectors},
        {
            "DropoutState": {"dropout": [-1]},
            "Out": {"y": [-1, 2, hidden * directions]},
            "Reserve": {"reserve": [-1]},
            "State": {f"last.{name}": [cells, 2, hidden] for name in names},
        },
        {
            **{"mode": mode, "num_layers": layers, "is_bidirec": directions == 2},
            **{"input_size": 24, "hidden_size": hidden, "dropout_prob": 0.0, "is_test": True},
        },
    )
    net.fetch("y")
    return net


def tagger_net(op_type: str) -> ProgramBuilder:
    """ids[-1,1] of a sequence through lookup_table, a product and ``lstm`` or ``gru``."""
    net = ProgramBuilder()
    hidden, gates = 32, 4 if op_type == "lstm" else 3
    ids = net.feed("ids", [-1, 1], INT64)
    _set_lod_level(net.block.vars[-1], 1)
    table = net.parameter("table", random((100, 24), 1))
    rows = net.op("lookup_table", {"Ids": ids, "W": table}, ("Out", "rows"), [-1, 24])
    dense = net.parameter("dense", random((24, gates * hidden), 2) * np.float32(0.2))
    once = {"x_num_col_dims": 1, "y_num_col_dims": 1}
    x = net.op("mul", {"X": rows, "Y": dense}, ("Out", "x"), [-1, gates * hidden], once)
    weight = net.parameter("w", random((hidden, gates * hidden), 3) * np.float32(0.2))
    bias = net.parameter("b", random((1, gates * hidden), 4) * np.float32(0.1))
    functions = {"gate_activation": "sigmoid", "is_reverse": False, "is_test": True}
    others = ["BatchCellPreAct", "Cell"]
    if op_type == "lstm":
        functions |= {"cell_activation": "tanh", "candidate_activation": "tanh"}
        functions |= {"use_peepholes": False}
    else:
        functions |= {"activation": "tanh", "origin_mode": False}
        others = ["BatchResetHiddenPrev", "BatchHidden"]
    net.add_op(
        op_type,
        {"Input": [x], "Weight": [weight], "Bias": [bias]},
        {
            "BatchGate": {"gate": [-1, gates * hidden]},
            **{slot: {slot: [-1, hidden]} for slot in others},
            "Hidden": {"y": [-1, hidden]},
        },
        functions,
    )
    net.fetch("y")
    return net


def _set_lod_level(var: Any, level: int) -> None:
    """Make a variable one of sequences; the fields have other names in Paddle 2."""
    tensor = getattr(var.type, var.type.DESCRIPTOR.fields_by_number[3].name)
    setattr(tensor, tensor.DESCRIPTOR.fields_by_number[2].name, level)


def check_complete(model: Model) -> None:
    """Check that every op has the attributes that Paddle's own exporter writes."""
    for op in model.ops():
        given = [attribute.name for attribute in op.desc.attrs]
        complete(op)
        assert [attribute.name for attribute in op.desc.attrs] == given, op.type
