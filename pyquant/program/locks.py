"""Locks between processes, also of several machines, and on file systems that have none."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LONGEST = 30.0  # seconds that a file is waited for, which a killed process may have left
_EVERY = 0.02  # seconds between two looks at it


@contextmanager
def locked(file: Path, waits: bool) -> Iterator[None]:
    """Let no other process lock a file meanwhile, which is made, and removed at the end.

    A directory cannot be locked in its place: network file systems lock that on one machine alone.
    A file that a killed process left counts as unlocked. But where the file system has no locks,
    the file itself is one, since only one process can make it; then it must be removed by hand.

    With ``waits``, another process is waited for: for as long as it has the lock, or some seconds
    where there are no locks. Raises BlockingIOError if another process has it, and other OSErrors
    if the file cannot be made; both hold its name.
    """
    descriptor = _taken(file, waits)
    try:
        yield
    finally:
        with suppress(OSError):  # then it is as if the process had been killed
            file.unlink()
        os.close(descriptor)


def _taken(file: Path, waits: bool) -> int:
    end = time.monotonic() + (_LONGEST if waits else 0)
    while True:
        descriptor, is_made = _opened(file)
        try:
            has_locks = _lock(descriptor, file, waits)
            if has_locks and _is_named(descriptor, file):
                return descriptor
            if not has_locks and is_made:
                return descriptor
            if not has_locks and time.monotonic() >= end:
                raise _held(file)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(0 if has_locks else _EVERY)


def _opened(file: Path) -> tuple[int, bool]:
    """Open a file, and return whether it is made; only what can be written can be locked on NFS."""
    while True:
        try:
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            pass
        try:
            return os.open(file, os.O_RDWR), False
        except FileNotFoundError:
            pass  # it has just been removed


def _lock(descriptor: int, file: Path, waits: bool) -> bool:
    """Lock an open file; return False if its file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        raise _held(file) from None
    except OSError:
        return False
    return True


def _is_named(descriptor: int, file: Path) -> bool:
    """Return whether an open file still has its name: who had locked it may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except OSError:
        return False


def _held(file: Path) -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, "another process has locked it", str(file))
