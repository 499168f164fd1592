"""Runs a function in a process of its own, which can be ended and whose peak memory is known."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

_SECONDS_TO_END = 10


def in_child(
    function: Callable[..., Result], *arguments: Any, timeout: float | None = None
) -> tuple[Result, float]:
    """Call ``function`` in a fresh process.

    Returns:
        The function's result, and the peak resident memory of the process in megabytes.

    Raises:
        TimeoutError: it takes longer than ``timeout`` seconds.
        ChildProcessError: it failed; the process has printed why.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, arguments))
    process.start()
    sender.close()  # so that the end of the process ends the waiting
    try:
        if not receiver.poll(timeout):
            raise TimeoutError(f"not done within {timeout:g} s")
        result: tuple[Result, float] = receiver.recv()
        process.join(_SECONDS_TO_END)
    except EOFError:
        raise ChildProcessError("failed, see above") from None
    finally:
        process.kill()
        process.join()
    return result


def _call(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    result = function(*arguments)
    sender.send((result, _peak_megabytes()))


def _peak_megabytes() -> float:
    """Return the peak resident memory of this process, as Linux counts it.

    The peak of ``getrusage`` survives ``exec``: a child starts with its parent's at that time.
    """
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024
