"""Ctrl-C and SIGTERM, where a part of the program heeds them in a way of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Handled = dict[int, Any]
"""What handled each signal before, by its number."""


@contextmanager
def interrupts_handled(handler: Callable[[int, Any], None]) -> Iterator[Handled]:
    """Let a handler have Ctrl-C and SIGTERM, and yield what had them before.

    A signal that somebody ignores, and a SIGTERM that somebody handles, is left to them. So are
    both outside of the main thread, where Python sets no handlers.
    """
    before: Handled = {}
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            before[signal.SIGTERM] = signal.SIG_DFL
    for number in before:
        signal.signal(number, handler)
    try:
        yield before
    finally:
        restore(before)


def restore(before: Handled) -> None:
    """Give signals back to what handled them before."""
    for number, handler in before.items():
        signal.signal(number, handler)
