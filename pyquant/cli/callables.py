"""Functions that are named on the command line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import SettingError

_NAMED = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<function>[A-Za-z_]\w*)")


def names_callable(text: str) -> bool:
    """Return whether a text is MODULE:FUNCTION."""
    return _NAMED.fullmatch(text) is not None


def load_callable(option: str, text: str) -> Callable[..., Any]:
    """Import MODULE:FUNCTION, from the working directory too; raise SettingError if it fails."""
    match = _NAMED.fullmatch(text)
    if match is None:
        raise SettingError(f"{option} {text}: expected MODULE:FUNCTION, as in my_data:batches.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(import_module(match["module"]), match["function"])
    except (ImportError, AttributeError) as error:
        raise SettingError(
            f"{option} {text}: cannot be imported ({error}). The module must lie in the working "
            "directory, or be installed."
        ) from error
    if not callable(found):
        raise SettingError(f"{option} {text}: it is no function.")
    result: Callable[..., Any] = found
    return result
