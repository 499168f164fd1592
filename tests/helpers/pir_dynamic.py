"""Checks weights of a ``.json`` against Paddle: python tests/helpers/pir_dynamic.py DIRECTORY.

Networks are exported, quantized, and run by Paddle's Executor and Predictor. The reference is the
same network in dynamic graph mode, with its weights quantized and dequantized by numpy. This runs
in a process of its own, because that of the tests has PIR switched off.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle.static import InputSpec
from paddle_run import execute, predict, relative_error

import pyquant

WORDS = np.random.default_rng(0).integers(0, 30, 5)


class Images(paddle.nn.Layer):
    """Embedding, convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = paddle.nn.Embedding(30, 64)
        self.conv = paddle.nn.Conv2D(1, 8, 3, padding=1)
        self.depthwise = paddle.nn.Conv2D(8, 8, 3, groups=8)
        self.linear = paddle.nn.Linear(8 * 6 * 6, 10)

    def forward(self, words: Any) -> Any:
        image = self.embedding(words).reshape([-1, 1, 8, 8])
        image = paddle.nn.functional.relu(self.depthwise(self.conv(image)))
        return self.linear(image.flatten(1))


class Signals(paddle.nn.Layer):
    """Convolutions of one dimension, and a product with the embedding transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = paddle.nn.Embedding(30, 64)
        self.conv = paddle.nn.Conv1D(4, 8, 3, padding=1)
        self.depthwise = paddle.nn.Conv1D(8, 8, 3, groups=8)
        self.transposed = paddle.nn.Conv1DTranspose(8, 4, 3)

    def forward(self, words: Any) -> Any:
        signal = self.embedding(words).reshape([-1, 4, 16])
        signal = paddle.nn.functional.relu(self.depthwise(self.conv(signal)))
        signal = self.transposed(signal).flatten(1)
        return paddle.matmul(signal, self.embedding.weight.t())


class Steps(paddle.nn.Layer):
    """Recurrent layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = paddle.nn.Embedding(30, 16)
        self.lstm = paddle.nn.LSTM(16, 12, num_layers=2, direction="bidirect")
        self.gru = paddle.nn.GRU(24, 8)

    def forward(self, words: Any) -> Any:
        return self.gru(self.lstm(self.embedding(words).unsqueeze(0))[0])[0]


class Masked(paddle.nn.Layer):
    """Attention whose mask is an embedding of minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        mask = np.triu(np.full((5, 5), -np.inf, np.float32), 1)
        assign = paddle.nn.initializer.Assign(mask)
        self.mask = paddle.nn.Embedding(5, 5, weight_attr=paddle.ParamAttr(initializer=assign))
        self.embedding = paddle.nn.Embedding(30, 16)

    def forward(self, words: Any) -> Any:
        rows = self.embedding(words)
        scores = paddle.matmul(rows, rows, transpose_y=True) + self.mask(paddle.arange(5))
        return paddle.matmul(paddle.nn.functional.softmax(scores), rows)


class Positions(paddle.nn.Layer):
    """The sum of a slice of a table and of its rows by index; no op has a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.table = self.create_parameter([128, 160])

    def forward(self, words: Any) -> Any:
        return paddle.gather(self.table, words) + self.table[:5]


def recurrent(name: str, layers: int, suffixes: tuple[str, ...] = ("",)) -> dict[str, int]:
    return {
        f"{name}.weight_{kind}_l{layer}{suffix}": 0
        for kind in ("ih", "hh")
        for layer in range(layers)
        for suffix in suffixes
    }


# The quantized weights of each network, with the axes of their channels.
NETWORKS: dict[Callable[[], paddle.nn.Layer], dict[str, int]] = {
    Images: {"embedding.weight": 0, "conv.weight": 0, "depthwise.weight": 0, "linear.weight": 1},
    Signals: {
        **{"embedding.weight": 0, "conv.weight": 0, "depthwise.weight": 0},
        "transposed.weight": 1,
    },
    Steps: {
        "embedding.weight": 0,
        **recurrent("lstm", 2, ("", "_reverse")),
        **recurrent("gru", 1),
    },
    Masked: {"embedding.weight": 0},
    Positions: {"table": 0},
}
FIXED_SHAPES = (Masked, Positions)


def fake_quantize(weight: Any, axis: int, bits: int) -> None:
    """Round a parameter to its int8 or int16 levels, one threshold per channel."""
    values = weight.numpy()
    others = tuple(index for index in range(values.ndim) if index != axis)
    threshold = np.abs(values).max(axis=others, keepdims=True)
    levels = np.float32(2 ** (bits - 1) - 1)
    integers = np.rint(values * (levels * (np.float32(1) / threshold)))
    weight.set_value(integers.astype(np.float32) * (threshold / levels))


def check(directory: Path, make: Callable[[], Any], axes: dict[str, int], bits: int) -> None:
    paddle.disable_static()
    paddle.seed(0)
    network = make()
    network.eval()
    specs = [InputSpec([len(WORDS) if make in FIXED_SHAPES else None], "int64", "words")]
    paddle.jit.save(network, str(directory / "network"), input_spec=specs)
    result = pyquant.quant_post_dynamic(
        directory, directory / "out", weight_bits=bits, generate_test_model=True
    )
    assert result.model_path.suffix == ".json"
    for name, weight in network.named_parameters():
        if name in axes:
            fake_quantize(weight, axes[name], 16 if make is Positions else bits)
    expected = network(paddle.to_tensor(WORDS)).numpy()
    assert len(result.quantized) == len(axes)
    infinite = [op.op_type for op in result.kept_float if "infinity" in op.reason]
    assert infinite == ["lookup_table_v2"] * (make is Masked)
    assert result.test_model_path is not None
    feed = {"words": WORDS}
    for path in (result.model_path, result.test_model_path):
        params = path.with_suffix(".pdiparams")
        np.testing.assert_array_equal(predict(path, params, feed)[0], expected)
        np.testing.assert_array_equal(execute(path, params, feed)[0], expected)
        for how in ("optimized", "unfused", "float"):
            actual = predict(path, params, feed, how)[0]
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def check_groups(directory: Path, make: Callable[[], Any], bits: int) -> None:
    """Check that weights in groups are those of the float twin, whose weights are near."""
    paddle.disable_static()
    paddle.seed(0)
    network = make()
    network.eval()
    specs = [InputSpec([None], "int64", "words")]
    paddle.jit.save(network, str(directory / "network"), input_spec=specs)
    result = pyquant.quant_post_dynamic(
        directory, directory / "out", weight_bits=bits, group_size=32, generate_test_model=True
    )
    assert sum(tensor.group_size is not None for tensor in result.quantized) >= 1
    feed = {"words": WORDS}
    params, twin = result.model_path.with_suffix(".pdiparams"), result.test_model_path
    assert twin is not None
    expected = predict(twin, twin.with_suffix(".pdiparams"), feed)[0]
    np.testing.assert_array_equal(predict(result.model_path, params, feed)[0], expected)
    np.testing.assert_array_equal(execute(result.model_path, params, feed)[0], expected)
    for how in ("optimized", "unfused", "float"):
        actual = predict(result.model_path, params, feed, how)[0]
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    exact = network(paddle.to_tensor(WORDS)).numpy()
    assert 0 < relative_error(expected, exact) < {4: 0.2, 8: 0.02}[bits]


if __name__ == "__main__":
    paddle.set_flags({"FLAGS_use_mkldnn": False})
    for bits in (8, 16):
        for make, axes in NETWORKS.items():
            check(Path(sys.argv[1]) / f"{make.__name__}{bits}", make, axes, bits)
    for bits in (4, 8):
        for make in (Images, Signals, Steps):
            check_groups(Path(sys.argv[1]) / f"{make.__name__}{bits}groups", make, bits)
