"""Random networks: a grammar of layers, as a ``.pdmodel`` with its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from pyquant.program import proto
from pyquant.program.model import Model, save_model
from pyquant.program.op import make_op
from pyquant.program.op_protos import complete

_ACTIVATIONS = ("relu", "sigmoid", "hard_swish", "swish", "relu6", "tanh", "leaky_relu")
Feed = dict[str, Any]


class Plan(NamedTuple):
    """What a network is made of; every layer chooses by a seed of its own.

    So a layer that is left out changes no other one, except for shapes.
    """

    shape: tuple[int, ...]  # of the input, as batch, channels, height and width
    layers: tuple[tuple[str, int], ...]  # the name and the seed
    other_output: int | None  # the seed that picks a second output
    seed: int  # of the data, and of what is done with the network


class Network:
    """The network of a plan; ``tensors`` are those so far, with their shapes."""

    def __init__(self, plan: Plan) -> None:
        self._use_seed(plan.seed)
        self._program = proto.ProgramDesc()
        self._block = self._program.blocks.add(idx=0, parent_idx=-1)
        self._parameters: dict[str, Any] = {}
        for name, kind in (("feed", proto.FEED_LIST), ("fetch", proto.FETCH_LIST)):
            proto.add_list_var(self._block, name, kind)
        self.shape = list(plan.shape)
        self.last = "x"
        self.tensors = {"x": self.shape}
        proto.add_var(self._block, "x", proto.FP32, [-1, *self.shape[1:]])
        self._add("feed", {"X": ["feed"]}, {"Out": ["x"]}, {"col": 0})
        for name, seed in plan.layers:
            self._use_seed(seed)
            _LAYERS[name](self)
        outputs = [self.last]
        others = [name for name in self.tensors if name != "x"]
        if plan.other_output is not None and others:
            outputs.append(Random(plan.other_output).choice(others))
        for column, name in enumerate(dict.fromkeys(outputs)):
            self._add("fetch", {"X": [name]}, {"Out": ["fetch"]}, {"col": column})
        self._use_seed(plan.seed)

    def _use_seed(self, seed: int) -> None:
        self._random, self._values = Random(seed), np.random.default_rng(seed)

    def save(self, directory: Path) -> Path:
        model = Model(self._program, self._parameters, Path("new"), None, ())
        save_model(model, directory, "m.pdmodel", "m.pdiparams")
        return directory

    def feeds(self, count: int) -> list[Feed]:
        shape = self.tensors["x"]
        return [{"x": self._values.standard_normal(shape).astype(np.float32)} for _ in range(count)]

    def _add(
        self,
        op_type: str,
        inputs: Mapping[str, list[str]],
        outputs: Mapping[str, list[str]],
        attributes: Mapping[str, Any],
    ) -> None:
        op = make_op(op_type, inputs, outputs, attributes)
        complete(op)
        self._block.ops.append(op.desc)

    def _then(
        self,
        op_type: str,
        inputs: Mapping[str, str],
        slot: str,
        attributes: Mapping[str, Any],
        shape: list[int],
    ) -> None:
        self.last, self.shape = f"t{len(self._block.ops)}", shape
        self.tensors[self.last] = shape
        proto.add_var(self._block, self.last, proto.FP32, [-1, *shape[1:]])
        given = {name: [value] for name, value in inputs.items()}
        self._add(op_type, given, {slot: [self.last]}, attributes)

    def _parameter(self, shape: tuple[int, ...], scale: float = 1.0, positive: bool = False) -> str:
        name = f"p{len(self._parameters)}"
        values = self._values.standard_normal(shape) * scale
        array = (np.abs(values) + 0.1 if positive else values).astype(np.float32)
        proto.add_var(self._block, name, proto.FP32, array.shape).persistable = True
        self._parameters[name] = array
        return name

    def _convolution(self) -> None:
        batch, channels, height, width = self.shape
        if len(self.shape) != 4:
            return
        size = self._random.choice((1, 1, 3))
        padding = self._random.choice((0, size // 2))
        stride = self._random.choice((1, 1, 1, 2))
        is_depthwise = self._random.random() < 0.25
        groups = channels if is_depthwise else self._random.choice((1, 1, 1, 2))
        if channels % groups or min(height, width) < size:
            return
        outputs = channels if is_depthwise else 2 * self._random.choice((2, 4, 8))
        fan_in = channels // groups * size * size
        weight = self._parameter((outputs, channels // groups, size, size), fan_in**-0.5)
        sizes = [(side + 2 * padding - size) // stride + 1 for side in (height, width)]
        attributes = {
            **{"strides": [stride] * 2, "paddings": [padding] * 2, "dilations": [1, 1]},
            **{"groups": groups, "data_format": "NCHW", "padding_algorithm": "EXPLICIT"},
        }
        op_type = "depthwise_conv2d" if is_depthwise else "conv2d"
        inputs = {"Input": self.last, "Filter": weight}
        self._then(op_type, inputs, "Output", attributes, [batch, outputs, *sizes])

    def _batch_norm(self) -> None:
        channels = self.shape[1]
        of = (channels,)
        inputs = {
            **{"X": self.last, "Scale": self._parameter(of), "Bias": self._parameter(of)},
            "Mean": self._parameter(of),
            "Variance": self._parameter(of, positive=True),
        }
        attributes = {"epsilon": 1e-5, "is_test": True, "data_layout": "NCHW"}
        self._then("batch_norm", inputs, "Y", attributes, self.shape)
        outputs = self._block.ops[-1].outputs
        for slot in ("Mean", "Variance"):
            saved = f"{self.last}.{slot}"
            proto.add_var(self._block, saved, proto.FP32, of)
            for output, name in ((f"{slot}Out", inputs[slot]), (f"Saved{slot}", saved)):
                outputs.add(parameter=output, arguments=[name])

    def _activation(self) -> None:
        self._then(self._random.choice(_ACTIVATIONS), {"X": self.last}, "Out", {}, self.shape)

    def _arithmetic(self) -> None:
        kind = self._random.choice(("add", "mul", "sub"))
        shape = self._random.choice(((self.shape[1], 1, 1), (1,)))
        inputs = {"X": self.last, "Y": self._parameter(shape)}
        self._then(f"elementwise_{kind}", inputs, "Out", {"axis": -1}, self.shape)

    def _scale(self) -> None:
        attributes = {
            **{"scale": self._random.uniform(-2, 2), "bias": self._random.uniform(-1, 1)},
            "bias_after_scale": self._random.random() < 0.5,
        }
        self._then("scale", {"X": self.last}, "Out", attributes, self.shape)

    def _residual(self) -> None:
        alike = [name for name, shape in self.tensors.items() if shape == self.shape]
        inputs = {"X": self.last, "Y": self._random.choice(alike)}
        kind = self._random.choice(("elementwise_add", "elementwise_add", "elementwise_mul"))
        self._then(kind, inputs, "Out", {"axis": -1}, self.shape)

    def _pooling(self) -> None:
        if min(self.shape[2:]) < 2:
            return
        attributes = {
            **{"pooling_type": self._random.choice(("max", "avg")), "ksize": [2, 2]},
            **{"strides": [2, 2], "paddings": [0, 0], "global_pooling": False},
        }
        sizes = [side // 2 for side in self.shape[2:]]
        shape = [*self.shape[:2], *sizes]
        self._then("pool2d", {"X": self.last}, "Out", attributes, shape)

    def _nearest(self) -> None:
        if max(self.shape[2:]) > 16:
            return
        attributes = {
            **{"scale": [2.0, 2.0], "interp_method": "nearest", "data_layout": "NCHW"},
            **{"align_corners": False, "align_mode": 1, "out_h": -1, "out_w": -1, "out_d": -1},
        }
        shape = [*self.shape[:2], *(2 * side for side in self.shape[2:])]
        self._then("nearest_interp_v2", {"X": self.last}, "Out", attributes, shape)

    def _concatenation(self) -> None:
        sides = self.shape[2:]
        alike = [name for name, shape in self.tensors.items() if shape[2:] == sides]
        other = self._random.choice(alike)
        channels = self.shape[1] + self.tensors[other][1]
        names, shape = [self.last, other], [self.shape[0], channels, *sides]
        self._then("concat", {"X": self.last}, "Out", {"axis": 1}, shape)
        self._block.ops[-1].inputs[0].arguments[:] = names

    def _dense(self) -> None:
        features = int(np.prod(self.shape[1:]))
        flat = {"start_axis": 1, "stop_axis": -1}
        shape = [self.shape[0], features]
        self._then("flatten_contiguous_range", {"X": self.last}, "Out", flat, shape)
        for outputs in self._random.choice(((10,), (32, 10))):
            inputs = {"X": self.last, "Y": self._parameter((features, outputs), features**-0.5)}
            attributes = {"trans_x": False, "trans_y": False}
            self._then("matmul_v2", inputs, "Out", attributes, [self.shape[0], outputs])
            if self._random.random() < 0.6:
                bias = {"X": self.last, "Y": self._parameter((outputs,))}
                self._then("elementwise_add", bias, "Out", {"axis": -1}, self.shape)
            features = outputs


_LAYERS = {
    "convolution": Network._convolution,
    "activation": Network._activation,
    "batch_norm": Network._batch_norm,
    "arithmetic": Network._arithmetic,
    "scale": Network._scale,
    "residual": Network._residual,
    "pooling": Network._pooling,
    "nearest": Network._nearest,
    "concatenation": Network._concatenation,
    "dense": Network._dense,
}
_SHARES = {"convolution": 5, "activation": 3, "dense": 0}  # 1 for the others


def random_plan(random: Random) -> Plan:
    """Return the plan of a network with at least one weight."""
    names, shares = list(_LAYERS), [_SHARES.get(name, 1) for name in _LAYERS]
    layers = ["convolution", *random.choices(names, shares, k=random.randint(2, 10))]
    if random.random() < 0.5:
        layers.append("dense")
    return Plan(
        shape=(random.choice((1, 2, 3)), random.choice((3, 8, 16)), 8, 8),
        layers=tuple((name, random.getrandbits(32)) for name in layers),
        other_output=random.getrandbits(32) if random.random() < 0.2 else None,
        seed=random.getrandbits(32),
    )
