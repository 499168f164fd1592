"""Convolutions that read and write images [samples, height, width, channels]."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from processors import deployed
from programs import CONV, UNPADDED, Net
from static_runs import RUN, error_of, quantized

DATA = programs.random((6, 12, 16, 8), 3) + np.float32(1)
DATA[..., 1] *= 5
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "as it is": {"optimize_model": False, "bias_correction": False, "equalize": False},
    "accurate": {"algo": "auto", "equalize": True, "round_type": "adaround"},
}


class Images(Net):
    """A network of images of 12 x 16 with the channels last, or the same one with them first."""

    def __init__(self, is_last: bool) -> None:
        self.layout = "NHWC" if is_last else "NCHW"
        self.axis = 3 if is_last else 1
        super().__init__(self._shape(8))

    def _shape(self, channels: int) -> list[int]:
        return [6, 12, 16, channels] if self.axis == 3 else [6, channels, 12, 16]

    def conv(
        self, outputs: int, attributes: Any = CONV, op_type: str = "conv2d", biased: bool = False
    ) -> Images:
        size, groups = 1 if attributes["paddings"] == [0, 0] else 3, attributes["groups"]
        inputs = self.dims[self.axis]
        shape = (outputs, inputs // groups, size, size)
        if op_type == "conv2d_transpose":
            shape = (inputs, outputs // groups, size, size)
        self._count += 1
        values = programs.random(shape, self._count) / np.float32(np.sqrt(shape[1] * size**2))
        weight = self.parameter(f"w{self._count}", values)
        self.dims = self._shape(outputs)
        read = {"Input": self.last, "Filter": weight}
        self.then(op_type, read, "Output", {**attributes, "data_format": self.layout})
        if biased:
            self.constant("elementwise_add", np.linspace(-1, 1, outputs), self.axis)
        return self

    def norm(self) -> Images:
        self.batch_norm(self.layout)
        return self

    def then_act(self, op_type: str = "relu") -> Images:
        self.act(op_type)
        return self

    def residual(self) -> Images:
        side = self.last
        self.conv(self.dims[self.axis])
        self.then("elementwise_add", {"X": self.last, "Y": side}, "Out", {"axis": -1})
        return self.then_act()

    def depthwise(self) -> Images:
        channels = self.dims[self.axis]
        return self.conv(channels, {**CONV, "groups": channels}, "depthwise_conv2d")


NETS: dict[str, Callable[[Images], Images]] = {
    "one": lambda net: net.conv(12),
    "several": lambda net: net.conv(12).then_act().conv(16),
    "pointwise": lambda net: net.conv(12, UNPADDED).then_act().conv(16, UNPADDED),
    "biased": lambda net: net.conv(12, biased=True).then_act().conv(16, biased=True).then_act(),
    "normalized": lambda net: net.conv(12).norm().then_act().conv(16).norm().then_act().conv(12),
    "grouped": lambda net: (
        net.conv(12, {**CONV, "groups": 2}).then_act().conv(16, {**CONV, "groups": 4})
    ),
    "depthwise": lambda net: (
        net.conv(12).norm().then_act().depthwise().norm().then_act().conv(16, UNPADDED)
    ),
    "hard_swish": lambda net: net.conv(12, biased=True).then_act("hard_swish").conv(16),
    "transposed": lambda net: (
        net.conv(12).then_act().conv(8, CONV, "conv2d_transpose").then_act().conv(16)
    ),
    "residual": lambda net: net.conv(8).then_act().residual().conv(16),
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("backend", RUN)
@pytest.mark.parametrize("name", NETS)
def test_it_runs_near_float(name: str, backend: str, options: str, tmp_path: Path) -> None:
    error, result = run_of(NETS[name](Images(True)), backend, OPTIONS[options], tmp_path)
    if backend == "OneDNN":
        assert error < 1e-3
        reasons = [op.reason for op in result.kept_float if op.op_type == "conv2d"]
        assert all("NCHW" in reason for reason in reasons)
    else:
        assert error < 0.07
        assert result.thresholds()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", NETS)
def test_it_is_as_near_as_with_the_channels_first(name: str, options: str, tmp_path: Path) -> None:
    # With the channels last, no op is put in to divide an activation.
    given = {**OPTIONS[options], "equalize": False}
    errors = [
        run_of(NETS[name](Images(is_last)), "ARM", given, tmp_path / str(is_last))[0]
        for is_last in (True, False)
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


def test_what_lies_in_blocks_is_read_as_floats(tmp_path: Path) -> None:
    """By a convolution that reads a transposed one, directly or through other ops."""
    net = Images(True).conv(8, CONV, "conv2d_transpose").then_act().residual().conv(8)
    error, result = run_of(net, "QDQ", {}, tmp_path)
    assert error < 0.03
    assert ["in blocks" in op.reason for op in result.kept_float] == [False, True, True]


def run_of(net: Images, backend: str, options: Any, directory: Path) -> Any:
    """Return the error of the outputs where the model is to run, and what was quantized."""
    data = DATA if net.axis == 3 else np.ascontiguousarray(DATA.transpose(0, 3, 1, 2))
    net.end().save(directory / "float")
    result = quantized(directory, [data[:3], data[3:]], **deployed(backend), **options)
    return error_of(directory, data, RUN[backend]), result
