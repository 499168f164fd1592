"""Temporary directories, of which nothing stays for good, even if the process is killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError

_PREFIX = "pyquant-"


class TemporaryDirectory:
    """A new directory where the system has its temporary files.

    The process locks the one around it while it lives, since `OutputFiles` locks those that it
    writes to. A later process removes what a killed one left, on file systems that have locks.
    Raises OSError if the directory cannot be made.
    """

    def __init__(self) -> None:
        place = Path(tempfile.gettempdir())
        _remove_killed(place)
        while True:
            self._root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
            # Before it was locked, it looked like one left behind.
            with suppress(FileNotFoundError):
                self._lock = os.open(self._root, os.O_RDONLY)
                if _is_locked(self._lock, self._root):
                    break
                os.close(self._lock)
        self.path = self._root / "files"
        self.path.mkdir()

    def remove(self) -> None:
        """Remove the directory with all files."""
        shutil.rmtree(self._root, ignore_errors=True)
        os.close(self._lock)


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Yield a new directory, which is removed at the end.

    Raises OutputError if it, or what the ``with`` block writes there, cannot be written.
    """
    try:
        directory = TemporaryDirectory()
        try:
            yield directory.path
        finally:
            directory.remove()
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{temporary_place(error)}: temporary files cannot be written "
            f"({error.strerror or error}). Make room there, or name another directory in TMPDIR."
        ) from error


def temporary_place(error: OSError) -> str:
    """Return what an error is about: a file, or all directories for temporary files."""
    return str(error.filename or tempfile.tempdir or "TMPDIR")


def _remove_killed(root: Path) -> None:
    """Remove the directories that no process holds, of this user alone."""
    for path in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.getuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _is_locked(descriptor: int, path: Path) -> bool:
    """Lock a directory; return whether it is still there."""
    with suppress(OSError):  # not every file system has locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return path.exists()
