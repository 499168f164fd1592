"""How much memory there is, and how much a call may take."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Union

from .errors import SettingError

Size = Union[int, str]
"""A number of bytes, or text such as ``"2GB"`` or ``"500 MiB"``."""

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS |= {f"{_letter}B": 1000**_power, f"{_letter}IB": 1024**_power}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")

_CONTROL_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def size_in_bytes(name: str, size: Size) -> int:
    """Return an argument that is a size; raise SettingError, with its name, if it is none."""
    found = _SIZE.fullmatch(str(size))
    unit = found.group(2).upper() if found else "?"
    number = float(found.group(1)) * _UNITS[unit] if found and unit in _UNITS else math.nan
    if isinstance(size, bool) or not 1 <= number < 2**63:
        raise SettingError(f"{name}: {size!r} is no size. Give a number of bytes, or as '2GB'.")
    return int(number)


def as_text(size: float) -> str:
    """Return a number of bytes as people write it."""
    for unit in ("GB", "MB"):
        if size >= _UNITS[unit]:
            return f"{size / _UNITS[unit]:.3g} {unit}"
    return f"{size / 1000:.0f} KB"


def seconds_as_text(seconds: float) -> str:
    """Return a time as people write it."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{math.ceil(seconds)} s"


def resident_bytes() -> int:
    """Return how much memory this process takes at the moment."""
    return _kilobytes("/proc/self/status", "VmRSS:")


def available_bytes() -> int:
    """Return how much memory more this process can take without swapping, by machine and cgroup."""
    found = [_kilobytes("/proc/meminfo", "MemAvailable:")]
    for most, used in _CONTROL_GROUPS:
        try:
            found.append(int(Path(most).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # there is none, or no limit
            continue
    return max(0, min(found))


def _kilobytes(path: str, field: str) -> int:
    lines = Path(path).read_text("ascii").splitlines()
    line = next(line for line in lines if line.startswith(field))
    return int(line.split()[1]) * 1024
