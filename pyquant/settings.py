"""Checks of arguments that the modes share."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral
from typing import Any

from .errors import SettingError


def is_choice(value: Any, choices: Collection[Any]) -> bool:
    """Return whether a value is one of ``choices``; 8.0 does not count as 8."""
    is_whole = isinstance(value, Integral)
    return any(value == choice and is_whole == isinstance(choice, Integral) for choice in choices)


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raise SettingError if argument ``name`` is not one of ``choices``."""
    if not is_choice(value, choices):
        raise SettingError(
            f"{name}: {value!r} is not possible. Choose among {', '.join(map(repr, choices))}."
        )


def check_positive(name: str, value: int) -> int:
    """Return a value; raise SettingError if argument ``name`` is not a whole number from 1 on."""
    if not isinstance(value, Integral) or value < 1:
        raise SettingError(f"{name}: {value!r} is no whole number of at least 1.")
    return value


def check_list(name: str, value: Collection[str]) -> None:
    """Raise SettingError if argument ``name`` is a string where a list of them is meant."""
    if isinstance(value, str):
        raise SettingError(f"{name}: expected a list, such as ['{value}'].")


def check_op_types(op_types: Collection[str], choices: Collection[str]) -> None:
    """Raise SettingError if ``quantizable_op_type`` has a type that is not in ``choices``."""
    check_list("quantizable_op_type", op_types)
    for op_type in op_types:
        check_choice("quantizable_op_type", op_type, choices)
