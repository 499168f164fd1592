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


def check_list(name: str, value: Collection[str]) -> None:
    """Raise SettingError if argument ``name`` is a string where a list of them is meant."""
    if isinstance(value, str):
        raise SettingError(f"{name}: a list is expected, as ['{value}'].")


def check_op_types(op_types: Collection[str], choices: Collection[str]) -> None:
    """Raise SettingError if ``quantizable_op_type`` has one that is not of ``choices``."""
    check_list("quantizable_op_type", op_types)
    for op_type in op_types:
        check_choice("quantizable_op_type", op_type, choices)
