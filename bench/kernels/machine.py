"""What the measurements were made on, and what its memory can do."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pyquant import _native

from .timing import median_seconds


def description() -> dict[str, str]:
    """Return processor, instruction set and versions."""
    return {
        "processor": _processor(),
        "instruction_set": _native.isa(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "paddlepaddle": version("paddlepaddle"),
        "pyquant": version("pyquant"),
    }


def copy_bandwidth(size: int) -> float:
    """Return the bytes read and written per second by numpy's copy, on one thread."""
    source = np.ones(size, np.float32)
    target = np.empty_like(source)
    seconds = median_seconds({"copy": lambda: np.copyto(target, source)})["copy"]
    return (source.nbytes + target.nbytes) / seconds


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
