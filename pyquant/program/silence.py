"""Keeps off stderr what Paddle's passes print, whatever its log level is."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..progress import logger

_STDERR = 2
_lock = threading.Lock()


@contextmanager
def silenced() -> Iterator[None]:
    """Drop what is written to the process's stderr, unless the logger ``pyquant`` takes DEBUG.

    cpu_quantize_pass.cc and cpu_quantize_squash_pass.cc print a line for each kind of op.
    """
    if logger.isEnabledFor(logging.DEBUG):
        yield
        return
    with _lock:  # the stream is one for all threads
        sys.stderr.flush()
        kept = os.dup(_STDERR)
        try:
            _point_at_nothing()
            yield
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)


def _point_at_nothing() -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, _STDERR)
    os.close(nothing)
