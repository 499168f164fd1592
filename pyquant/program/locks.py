"""Locks between processes, also on file systems that have none."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 30.0  # seconds that a file is waited for, which a killed process may have left
_EVERY = 0.02  # seconds between two looks at it


@contextmanager
def locked(directory: Path, stand_in: Path | None, waits: bool) -> Iterator[None]:
    """Let no other process lock a directory meanwhile.

    Not every file system has locks: that of another machine may lack them. There, the file
    ``stand_in`` is one, since only one process can make it. A killed process leaves it, and it must
    be removed by hand. If it is None, nothing is locked there.

    With ``waits``, another process is waited for: for as long as it has a lock, or some seconds if
    it has a file. Raises BlockingIOError with the name of the directory or of the file, and other
    OSErrors if the directory cannot be opened, or the file cannot be made.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        has_locks = _lock(descriptor, directory, waits)
        made = None if has_locks else stand_in
        if made is not None:
            _make(made, _LONGEST if waits else 0)
        try:
            yield
        finally:
            if made is not None:
                made.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path, waits: bool) -> bool:
    """Lock a directory; return False if its file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise BlockingIOError(error.errno, error.strerror, str(directory)) from error
    except OSError:
        return False
    return True


def _make(file: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError as error:
            if time.monotonic() > end:
                raise BlockingIOError(errno.EAGAIN, "it is locked", str(file)) from error
            time.sleep(_EVERY)
        else:
            return
