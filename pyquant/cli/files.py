"""Files that options name."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import SettingError


def read_thresholds(path: Path) -> dict[str, float]:
    """Return what a .json file of thresholds holds; raise SettingError if it is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingError(f"--scale-dict {path}: cannot be read ({error}).") from error
    if not isinstance(found, dict) or not all(
        isinstance(value, (int, float)) for value in found.values()
    ):
        raise SettingError(
            f'--scale-dict {path}: expected thresholds by activation, as in {{"relu_0": 6.0}}.'
        )
    return {name: float(value) for name, value in found.items()}
