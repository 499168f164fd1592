"""Which op of a model runs, for the process that waits for this one: see `pyquant.isolation`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_tell: list[Callable[[str], None]] = []


def tell_ops(tell: Callable[[str], None]) -> None:
    """From now on, call ``tell`` with the op that each Predictor runs, as far as it shows it."""
    _tell.append(tell)


def loading() -> None:
    """Tell that Paddle loads a model, if anybody asks: its passes may crash, too."""
    if _tell:
        _tell[-1]("while Paddle loaded it")


def running() -> None:
    """Tell that Paddle runs a model, if anybody asks: the Predictor may be one that shows no op."""
    if _tell:
        _tell[-1]("while Paddle ran it")


def watch(predictor: Any) -> None:
    """Tell which ops a Predictor runs, if anybody asks. Paddle 2.6 shows them only afterwards."""
    if not _tell:
        return
    if hasattr(predictor, "register_input_hook"):
        predictor.register_input_hook(_began)
    predictor.register_output_hook(_ended)


def _began(op_type: str, name: str, _: Any) -> None:
    _tell[-1](f"in {op_type}, which reads '{name}'")


def _ended(op_type: str, name: str, _: Any) -> None:
    _tell[-1](f"after {op_type} -> '{name}'")
