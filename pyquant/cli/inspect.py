"""``pyquant inspect``."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .answer import Answer
from .arguments import add_model, renamed

if TYPE_CHECKING:
    from ..program.model import Model

HELP = "inputs, outputs, ops and weights of a model, and how it was quantized"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_model(parser)


def answer(options: dict[str, Any]) -> Answer:
    """Say what a model holds."""
    from ..program.model import load_model
    from ..program.quantizable import QUANTIZABLE_OPS

    model = load_model(**renamed(options))
    sizes = [array.nbytes for array in model.parameters.values()]
    data = {
        "model": str(model.model_path),
        "inputs": [*_tensors(model, [var.name for var in model.feeds])],
        "outputs": [*_tensors(model, model.fetches)],
        "parameters": len(sizes),
        "parameter_bytes": sum(sizes),
        "ops": dict(Counter(op.type for op in model.ops()).most_common()),
        "quantizable": [
            {"type": op.type, "reads": op.reads(), "writes": op.writes()}
            for op in model.ops()
            if op.type in QUANTIZABLE_OPS
        ],
    }
    return Answer("\n".join(_lines(data)), data)


def _lines(data: dict[str, Any]) -> Iterator[str]:
    for title in ("input", "output"):
        for one in data[f"{title}s"]:
            yield f"{title:6} {one['name']} {one['dtype']}{one['shape']}"
    yield f"parameters {data['parameters']}, {data['parameter_bytes']:,} bytes"
    for op_type, count in data["ops"].items():
        yield f"{count:6} {op_type}"
    for op in data["quantizable"]:
        yield f"{op['type']} {' '.join(op['reads'])} -> {' '.join(op['writes'])}"


def _tensors(model: Model, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    from ..program import proto

    variables = {var.name: var for var in model.program.blocks[0].vars}
    for name in names:
        desc = proto.tensor_desc(variables[name])
        yield {"name": name, "dtype": proto.dtype_name(desc.data_type), "shape": list(desc.dims)}
