"""``pyquant fold``."""

from __future__ import annotations

from typing import Any

from .answer import Answer
from .arguments import renamed
from .convert import add_arguments as add_arguments
from .convert import write

HELP = "a float model with fewer ops and the same outputs"


def answer(options: dict[str, Any]) -> Answer:
    """Fold the model, and write it."""
    from ..program.folding.fold import fold
    from ..program.model import load_model
    from ..program.quantizable import refuse_quantized

    output, opset = options.pop("output"), options.pop("opset")
    model = load_model(**renamed(options))
    refuse_quantized(model)
    before = sum(1 for _ in model.ops())
    fold(model)
    paths, after = write(model, output, opset), sum(1 for _ in model.ops())
    text = "\n".join([*paths, f"{before} ops -> {after}"])
    return Answer(text, {"files": paths, "ops_before": before, "ops_after": after})
