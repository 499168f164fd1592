"""Checks weights quantized in a ``.json`` against Paddle: python tests/pir_dynamic.py DIRECTORY.

A network is exported, quantized, and run by Paddle's Executor and Predictor; the reference is the
same network in dynamic graph mode, its weights quantized and dequantized by numpy. A process of its
own, because the tests' own has PIR switched off.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.static import InputSpec
from paddle_run import execute, predict

import pyquant


class Network(paddle.nn.Layer):
    """Embedding, convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = paddle.nn.Embedding(30, 64)
        self.conv = paddle.nn.Conv2D(1, 8, 3, padding=1)
        self.depthwise = paddle.nn.Conv2D(8, 8, 3, groups=8)
        self.linear = paddle.nn.Linear(8 * 6 * 6, 10)

    def forward(self, ids: Any) -> Any:
        image = self.embedding(ids).reshape([-1, 1, 8, 8])
        image = paddle.nn.functional.relu(self.depthwise(self.conv(image)))
        return self.linear(image.flatten(1))


def fake_quantize(weight: Any, axis: int, bits: int) -> None:
    """Round a parameter to its int8 or int16 levels, one threshold per channel."""
    values = weight.numpy()
    others = tuple(index for index in range(values.ndim) if index != axis)
    threshold = np.abs(values).max(axis=others, keepdims=True)
    levels = np.float32(2 ** (bits - 1) - 1)
    integers = np.rint(values * (levels * (np.float32(1) / threshold)))
    weight.set_value(integers.astype(np.float32) * (threshold / levels))


def check(directory: Path, bits: int) -> None:
    paddle.disable_static()
    paddle.seed(0)
    network = Network()
    network.eval()
    ids = np.random.default_rng(0).integers(0, 30, 5)
    specs = [InputSpec([None], "int64", "ids")]
    paddle.jit.save(network, str(directory / "network"), input_spec=specs)
    result = pyquant.quant_post_dynamic(directory, directory / "out", weight_bits=bits)
    axes = {"embedding": 0, "conv": 0, "depthwise": 0, "linear": 1}
    for name, axis in axes.items():
        fake_quantize(getattr(network, name).weight, axis, bits)
    expected = network(paddle.to_tensor(ids)).numpy()
    assert len(result.quantized) == len(axes)
    for run in (predict, execute):
        actual = run(result.model_path, result.params_path, {"ids": ids})[0]
        np.testing.assert_array_equal(actual, expected)


if __name__ == "__main__":
    paddle.set_flags({"FLAGS_use_mkldnn": False})
    for bits in (8, 16):
        check(Path(sys.argv[1]), bits)
