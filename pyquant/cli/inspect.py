"""``pyquant inspect``."""

from __future__ import annotations

import argparse
import math
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
    from ..record import read_record

    model = load_model(**renamed(options))
    sizes = [array.nbytes for array in model.parameters.values()]
    data = {
        "model": str(model.model_path),
        "inputs": [*_tensors(model, [var.name for var in model.feeds])],
        "outputs": [*_tensors(model, model.fetches)],
        "quantized": _quantized(model),
        "record": read_record(model.model_path),
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


def _quantized(model: Model) -> dict[str, int]:
    """Count what a model holds and computes as integers, by kind and bits; nothing if in float."""
    from ..comparison.quantization import read_quantization
    from ..errors import UnsupportedError

    try:
        found = read_quantization(model)
    except UnsupportedError:  # Paddle-Lite's form, which its record tells
        return {}
    kinds = Counter(f"activations of {one.bits} bits" for one in found.activations.values())
    kinds.update(f"weights of {one.bits} bits" for one in found.weights.values())
    return dict(kinds)


def _history(data: dict[str, Any]) -> Iterator[str]:
    """Say that a model is quantized, and what was done to it."""
    from ..record import settings_of

    record, counts = data["record"], data["quantized"]
    if counts:
        what = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        yield f"int8   {what}{'' if record else '; it has no pyquant.json beside it'}"
    if record:
        source = record["source"]
        yield (
            f"by     pyquant {record['pyquant']} for {record['target']}, with Paddle "
            f"{record['paddle']}, from {source['program']} (SHA-256 {source['sha256'][:12]})"
        )
        yield f"with   {settings_of(record)}"
        checked = record.get("verification")
        if checked:
            error, speedup = (
                math.nan if checked[name] is None else checked[name]
                for name in ("error_percent", "speedup")
            )
            yield (
                f"check  outputs within {error:.2f} % of float's variation (rms), "
                f"{speedup:.2f} x as fast as float"
            )


def _lines(data: dict[str, Any]) -> Iterator[str]:
    yield from _history(data)
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
