"""Models in float16 or bfloat16, and the same values in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from programs import STRAIGHT, ProgramBuilder, random

from pyquant import load_model, save_model
from pyquant.program import proto
from pyquant.program.model import Model

_FILES = "model.pdmodel", "model.pdiparams"


def halved(source: Path, directory: Path, name: str, are_outputs: bool = True) -> tuple[Path, Path]:
    """Write a float32 model as float16 or bfloat16, and its rounded values as float32.

    Without ``are_outputs``, the weights alone are halved: a cast follows each.
    """
    for kind in ("half", "wide"):
        model = load_model(source)
        for key, array in model.parameters.items():
            if array.dtype == np.float32:
                bits = _bits(array, name)
                model.parameters[key] = bits if kind == "half" else _wide(bits)
        if kind == "half":
            _declare(model, proto.data_type_of(name), are_outputs)
        save_model(model, directory / kind, *_FILES)
    return directory / "half", directory / "wide"


def product_behind_a_cast(name: str) -> ProgramBuilder:
    """Return a product [-1, 64] x [64, 32] whose weight is float16 or bfloat16, and is cast."""
    raw = _bits(random((64, 32)), name)
    net = ProgramBuilder()
    x, w = net.feed("x", [-1, 64]), net.parameter("w", raw)
    types = {"in_dtype": proto.data_type_of(name), "out_dtype": proto.FP32}
    wide = net.op("cast", {"X": w}, ("Out", "wide"), [64, 32], types)
    net.fetch(net.op("matmul_v2", {"X": x, "Y": wide}, ("Out", "y"), [-1, 32], STRAIGHT))
    return net


def _declare(model: Model, data_type: int, are_outputs: bool) -> None:
    block = model.program.blocks[0]
    for var in list(block.vars):
        desc = proto.tensor_desc(var)
        if desc is None or desc.data_type != proto.FP32:
            continue
        if are_outputs:
            desc.data_type = data_type
        elif var.name in model.parameters:
            _cast(block, var, data_type)


def _cast(block: Any, var: Any, data_type: int) -> None:
    from pyquant.program.op import make_op, ops_of

    wide = f"{var.name}.wide"
    for op in ops_of(block):
        op.rename_inputs({var.name: wide})
    desc = proto.tensor_desc(var)
    proto.add_var(block, wide, proto.FP32, list(desc.dims))
    desc.data_type = data_type
    types = {"in_dtype": data_type, "out_dtype": int(proto.FP32)}
    block.ops.insert(0, make_op("cast", {"X": [var.name]}, {"Out": [wide]}, types).desc)


def _bits(array: Any, name: str) -> Any:
    if name == "float16":
        return array.astype(np.float16)
    return (array.view(np.uint32) >> 16).astype(np.uint16)


def _wide(bits: Any) -> Any:
    if bits.dtype == np.float16:
        return bits.astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)
