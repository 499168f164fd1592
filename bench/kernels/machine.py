"""The machine that is measured on, and the speed of its memory."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import pyquant
from pyquant import _native

_BUFFER_BYTES = 1 << 28  # beyond any cache


def description() -> dict[str, str]:
    """Return processor, instruction sets and versions."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "instruction_set": _native.isa(),
        "instruction_sets": " ".join(_native.available_isas()),
        "int8": _int8(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "paddlepaddle": version("paddlepaddle"),
        "pyquant": pyquant.__version__,
    }


class Memory:
    """The least cost of reading and copying: that of the C library's and numpy's own loops."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._source = np.ones(_BUFFER_BYTES, np.uint8)
        self._target = np.ones(_BUFFER_BYTES // 2, np.uint8)
        self._memchr = ctypes.CDLL(None).memchr  # releases the interpreter's lock
        self._memchr.restype = ctypes.c_void_p
        self._memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

    def read(self, size: int, threads: int) -> Callable[[], Any]:
        """Return a function that reads ``size`` bytes, in search of a value that is not there."""
        return self._shared(size, threads, len(self._source), self._read_part)

    def copy(self, size: int, threads: int) -> Callable[[], Any]:
        """Return a function that reads and writes ``size`` bytes in all."""
        return self._shared(size // 2, threads, len(self._target), self._copy_part)

    def _shared(
        self, size: int, threads: int, buffer_size: int, act: Callable[[int, int], None]
    ) -> Callable[[], Any]:
        """Divide ``size`` bytes among threads, which pass over the buffer as often as needed."""
        passes = [min(buffer_size, size - begin) for begin in range(0, size, buffer_size)]
        edges = [np.linspace(0, length, threads + 1).astype(int) for length in passes]
        parts = [
            [(int(pass_edges[thread]), int(pass_edges[thread + 1])) for pass_edges in edges]
            for thread in range(threads)
        ]

        def run(thread: int) -> None:
            for begin, end in parts[thread]:
                act(begin, end)

        if threads == 1:
            return lambda: run(0)
        return lambda: list(self._pool.map(run, range(threads)))

    def _read_part(self, begin: int, end: int) -> None:
        self._memchr(self._source.ctypes.data + begin, 0, end - begin)

    def _copy_part(self, begin: int, end: int) -> None:
        np.copyto(self._target[begin:end], self._source[begin:end])


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _int8() -> str:
    """Return what of the processor's int8 instructions oneDNN may use."""
    known = {"avx_vnni": "VNNI", "avx512_vnni": "VNNI", "amx_int8": "AMX"}
    found = {name: None for flag, name in known.items() if flag in _cpuinfo("flags").split()}
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return " ".join([*found, *([f"as {limit}"] if limit else [])]) or "without VNNI"


def _cpuinfo(key: str) -> str:
    """Return what Linux says of the first core, or nothing."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else ():
        if line.startswith(key):
            return line.split(":", 1)[1].strip()
    return ""
