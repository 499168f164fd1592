"""Small transformers as programs: a decoder of Llama's shapes, and an encoder like MiniLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from programs import STRAIGHT, ProgramBuilder, random

from bench.big_weights import write_decoder
from pyquant.program import proto

HIDDEN, WORDS = 32, 50


def decoder(directory: Path) -> Path:
    """Write three layers; the tokens are the input."""
    layers = 3 * 4 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * 88)
    size = layers + 2 * 4 * WORDS * HIDDEN
    write_decoder(directory, size, "fp32", HIDDEN, 88, WORDS)
    return directory


def encoder(directory: Path, layers: int = 2) -> Path:
    """Write layers that all read one mask, which is made of an input and is a ``bool``."""
    net = ProgramBuilder()
    length = net.feed("tokens", [-1, -1], proto.data_type_of("int64"))
    pad = net.parameter("pad", np.zeros(1, np.int64))
    _op(net, "not_equal", {"X": length, "Y": pad}, "is_word", "bool", [-1, -1], axis=-1)
    x = net.op(
        "lookup_table_v2",
        {"Ids": length, "W": net.parameter("words", random((WORDS, HIDDEN)))},
        ("Out", "embedded"),
        [-1, -1, HIDDEN],
    )
    for index in range(layers):
        x = _layer(net, x, f"layer{index}")
    net.fetch(x)
    return net.save(directory)


def cached_decoder(directory: Path, layers: int = 2) -> Path:
    """Write layers that take keys and values of earlier tokens, and give those of all tokens."""
    net = ProgramBuilder()
    x = net.op(
        "lookup_table_v2",
        {
            "Ids": net.feed("tokens", [-1, -1], proto.data_type_of("int64")),
            "W": net.parameter("words", random((WORDS, HIDDEN))),
        },
        ("Out", "embedded"),
        [-1, -1, HIDDEN],
    )
    past = {
        f"layer{index}.{part}": net.feed(f"layer{index}.{part}.past", [-1, -1, HIDDEN])
        for index in range(layers)
        for part in "kv"
    }
    known = {}
    for index in range(layers):
        name = f"layer{index}"
        q, k, v = (_linear(net, x, f"{name}.{part}", HIDDEN, HIDDEN) for part in "qkv")
        for new in (k, v):
            net.add_op(
                "concat",
                {"X": [past[new], new]},
                {"Out": {f"{new}.known": [-1, -1, HIDDEN]}},
                {"axis": 1},
            )
            known[new] = f"{new}.known"
        mixed = _attention(net, q, known[k], known[v], name)
        x = _normal(net, _elementwise(net, "add", x, mixed, f"{name}.sum"), f"{name}.norm")
        inner = _linear(net, x, f"{name}.up", HIDDEN, 4 * HIDDEN)
        inner = net.op("gelu", {"X": inner}, ("Out", f"{name}.gelu"), [-1, -1, 4 * HIDDEN])
        down = _linear(net, inner, f"{name}.down", 4 * HIDDEN, HIDDEN)
        x = _normal(net, _elementwise(net, "add", x, down, f"{name}.end"), f"{name}.last")
    net.fetch(_linear(net, x, "scores", HIDDEN, WORDS))
    for name in known.values():
        net.fetch(name)
    return net.save(directory)


def tokens(batches: int, seed: int = 0) -> list[Any]:
    """Return batches of tokens of several lengths."""
    generator = np.random.default_rng(seed)
    return [generator.integers(1, WORDS, (2, 7 + batch)) for batch in range(batches)]


def _layer(net: ProgramBuilder, x: str, name: str) -> str:
    q, k, v = (_linear(net, x, f"{name}.{part}", HIDDEN, HIDDEN) for part in "qkv")
    mixed = _attention(net, q, k, v, name)
    _op(net, "cast", {"X": "is_word"}, f"{name}.mask", "float32", [-1, -1], in_dtype=0, out_dtype=5)
    column = net.op(
        "unsqueeze2", {"X": f"{name}.mask"}, ("Out", f"{name}.column"), [-1, -1, 1], {"axes": [2]}
    )
    masked = _elementwise(net, "mul", mixed, column, f"{name}.masked")
    x = _normal(net, _elementwise(net, "add", x, masked, f"{name}.sum"), f"{name}.norm")
    inner = _linear(net, x, f"{name}.up", HIDDEN, 4 * HIDDEN)
    inner = net.op("gelu", {"X": inner}, ("Out", f"{name}.gelu"), [-1, -1, 4 * HIDDEN])
    down = _linear(net, inner, f"{name}.down", 4 * HIDDEN, HIDDEN)
    return _normal(net, _elementwise(net, "add", x, down, f"{name}.end"), f"{name}.last")


def _attention(net: ProgramBuilder, q: str, k: str, v: str, name: str) -> str:
    scores = net.op(
        "matmul_v2",
        {"X": q, "Y": k},
        ("Out", f"{name}.scores"),
        [-1, -1, -1],
        {**STRAIGHT, "trans_y": True},
    )
    shares = net.op("softmax", {"X": scores}, ("Out", f"{name}.shares"), [-1, -1, -1], {"axis": -1})
    return net.op(
        "matmul_v2", {"X": shares, "Y": v}, ("Out", f"{name}.mixed"), [-1, -1, HIDDEN], STRAIGHT
    )


def _linear(net: ProgramBuilder, x: str, name: str, inputs: int, outputs: int) -> str:
    weight = net.parameter(f"{name}.w", random((inputs, outputs)) / np.float32(inputs**0.5))
    bias = net.parameter(f"{name}.b", random((outputs,)))
    dims = [-1, -1, outputs]
    product = net.op("matmul_v2", {"X": x, "Y": weight}, ("Out", f"{name}.x"), dims, STRAIGHT)
    return _elementwise(net, "add", product, bias, name, outputs)


def _elementwise(
    net: ProgramBuilder, kind: str, x: str, y: str, name: str, width: int = HIDDEN
) -> str:
    return net.op(
        f"elementwise_{kind}", {"X": x, "Y": y}, ("Out", name), [-1, -1, width], {"axis": -1}
    )


def _normal(net: ProgramBuilder, x: str, name: str) -> str:
    scale = net.parameter(f"{name}.scale", np.ones(HIDDEN, np.float32))
    shift = net.parameter(f"{name}.shift", random((HIDDEN,)))
    statistics = {slot: {f"{name}.{slot}": [-1]} for slot in ("Mean", "Variance")}
    net.add_op(
        "layer_norm",
        {"X": [x], "Scale": [scale], "Bias": [shift]},
        {"Y": {name: [-1, -1, HIDDEN]}, **statistics},
        {"epsilon": 1e-5, "begin_norm_axis": 2},
    )
    return name


def _op(
    net: ProgramBuilder,
    op_type: str,
    inputs: dict[str, str],
    name: str,
    dtype: str,
    dims: list[int],
    **attributes: Any,
) -> None:
    net.op(op_type, inputs, ("Out", name), dims, attributes)
    made = next(var for var in net.block.vars if var.name == name)
    desc = proto.tensor_desc(made)
    assert desc is not None
    desc.data_type = proto.data_type_of(dtype)
