"""Names of ``paddleslim.quant`` that pyquant does not have: each says what to use instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from .errors import UnsupportedError

_TRAINING = (
    "pyquant quantizes models after training and does not train. Save the float model for "
    "inference, and call quant_post_static, with algo='auto', equalize=True and "
    "round_type='adaround' if the defaults lose too much"
)
_INSTEAD = {
    "convert": _TRAINING,
    "export_quant_infermodel": _TRAINING,
    "quant_aware": _TRAINING,
    "quant_aware_with_infermodel": _TRAINING,
    "quant_embedding": (
        "call quant_post_dynamic with quantizable_op_type=['lookup_table', 'lookup_table_v2'] on "
        "the model's files"
    ),
    "quant_post_hpo": (
        "call quant_post_static, which tries settings by itself where the outputs err too much; "
        "eval_function and max_drop keep a metric of yours"
    ),
    "quant_recon_static": (
        "call quant_post_static with round_type='adaround', which rounds weights by what the "
        "outputs lose"
    ),
}


def refusal(name: str) -> Callable[..., NoReturn] | None:
    """Return a function that raises UnsupportedError, if PaddleSlim has one of that name."""
    if name not in _INSTEAD:
        return None

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise UnsupportedError(f"{name} of PaddleSlim is not in pyquant: {_INSTEAD[name]}.")

    return refuse
