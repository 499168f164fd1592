"""Checks of arguments that the modes share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .errors import SettingError


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raise SettingError if argument ``name`` is not one of ``choices``."""
    if value not in choices:
        raise SettingError(
            f"{name}: {value!r} is not possible. Choose among {', '.join(map(repr, choices))}."
        )


def check_op_types(op_types: Collection[str], choices: Collection[str]) -> None:
    """Raise SettingError if ``quantizable_op_type`` has one that is not of ``choices``."""
    if isinstance(op_types, str):
        raise SettingError(f"quantizable_op_type: a list is expected, as ['{op_types}'].")
    for op_type in op_types:
        check_choice("quantizable_op_type", op_type, choices)
