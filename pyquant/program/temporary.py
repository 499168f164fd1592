"""Temporary files for Paddle to read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Yield a new directory, which is removed at the end.

    Raises OutputError if it, or what the ``with`` block writes there, cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory() as directory:
            yield Path(directory)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{error.filename or tempfile.gettempdir()}: temporary files cannot be written "
            f"({error.strerror or error}). Make room there, or name another directory in TMPDIR."
        ) from error
