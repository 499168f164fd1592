"""``pyquant fold``."""

from __future__ import annotations

import argparse
from typing import Any

from . import convert
from .answer import Answer
from .arguments import add_isolation, answer_isolated, renamed

HELP = "a float model with fewer ops and the same outputs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    convert.add_arguments(parser)
    add_isolation(parser)


def answer(options: dict[str, Any]) -> Answer:
    """Fold the model, and write it. Paddle computes its constants."""
    return answer_isolated(_answer, options, "model")


def _answer(options: dict[str, Any]) -> Answer:
    from ..program.folding.fold import fold
    from ..program.model import load_model
    from ..program.quantizable import refuse_quantized

    outputs = {name: options.pop(name) for name in ("output", "opset", "deploy_backend")}
    model = load_model(**renamed(options))
    refuse_quantized(model)
    before = sum(1 for _ in model.ops())
    fold(model)
    paths, after = convert.write(model, **outputs), sum(1 for _ in model.ops())
    text = "\n".join([*paths, f"{before} ops -> {after}"])
    return Answer(text, {"files": paths, "ops_before": before, "ops_after": after})
