"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import glob
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ..errors import OutputError


class OutputFiles:
    """Write files under temporary names; rename them all when the ``with`` block ends well.

    Args:
        directory: where the files go; created if absent, and removed again on failure if it was
            created here.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._created: list[Path] = []
        self._staged: dict[Path, Path] = {}

    def __enter__(self) -> OutputFiles:
        try:
            self._make(self._directory)
        except OSError as error:
            self._discard()
            raise self._failure(self._directory, error) from error
        return self

    @contextmanager
    def open(self, target: Path) -> Iterator[BinaryIO]:
        """Open a stream whose content becomes the file ``target``."""
        try:
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            self._make(target.parent)
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            with temporary.open("xb") as stream:
                self._staged[target] = temporary
                yield stream
        except OSError as error:
            raise self._failure(target, error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._discard()

    def _commit(self) -> None:
        for target, temporary in self._staged.items():
            try:
                temporary.replace(target)
            except OSError as error:
                raise self._failure(target, error) from error
        self._staged.clear()
        self._created.clear()

    def _discard(self) -> None:
        for temporary in self._staged.values():
            temporary.unlink(missing_ok=True)
        for directory in reversed(self._created):
            if directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()

    def _make(self, directory: Path) -> None:
        absolute = directory.resolve()
        missing = [path for path in (absolute, *absolute.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir()
            self._created.append(path)

    def _failure(self, target: Path, error: OSError) -> OutputError:
        if isinstance(error, OutputError):
            return error
        return OutputError(
            f"{target}: cannot be written ({error.strerror or error}). Nothing was changed; "
            "make room, or choose a directory that can be written."
        )


def remove_leftovers(target: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote ``target``."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*"):
        if re.fullmatch("[0-9a-f]{32}", path.suffix[1:]):
            path.unlink(missing_ok=True)
