"""Files that appear whole or not at all, and together or not at all; temporary ones."""

from __future__ import annotations

import errno
import glob
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ..errors import OutputError


class OutputFiles:
    """Write files under temporary names; rename them all when the ``with`` block ends well.

    If one of them cannot be renamed, those before it are put back as they were. The directory is
    created if absent, and then removed again on failure.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._created: list[Path] = []
        self._staged: dict[Path, Path] = {}
        self._aside: dict[Path, Path | None] = {}

    def __enter__(self) -> OutputFiles:
        try:
            self._make(self._directory)
        except OSError as error:
            raise self._failure(self._directory, error) from error
        return self

    @contextmanager
    def open(self, target: Path) -> Iterator[BinaryIO]:
        """Open a stream whose content becomes the file ``target``.

        Raises OutputError if it cannot be written; all files opened so far are discarded.
        """
        try:
            _refuse_directory(target)
            self._make(target.parent)
            temporary = _name_beside(target)
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
            self._undo()

    def _commit(self) -> None:
        target = self._directory
        try:
            for target in self._staged:
                _refuse_directory(target)
            for target, temporary in self._staged.items():
                if len(self._staged) > 1:  # renaming a single file is atomic
                    self._set_aside(target)
                temporary.replace(target)
        except OSError as error:
            raise self._failure(target, error) from error
        old = [path for path in self._aside.values() if path is not None]
        self._forget()
        for path in old:
            with suppress(OSError):  # the result is complete without it
                path.unlink(missing_ok=True)

    def _set_aside(self, target: Path) -> None:
        """Keep an existing ``target`` under another name until all files are renamed."""
        kept = _name_beside(target)
        self._aside[target] = kept  # recorded first, as Ctrl-C may come in between
        try:
            _link_or_move(target, kept)
        except FileNotFoundError:  # there is no such file
            self._aside[target] = None
        except OSError:
            del self._aside[target]
            raise

    def _undo(self) -> list[str]:
        """Restore the earlier files; return remarks on those that could not be restored."""
        left: list[str] = []
        for target, kept in reversed(self._aside.items()):
            remark = f"{target} is new" if kept is None else f"{target} as it was is in {kept}"
            with _failure_noted(left, remark):
                self._put_back(target, kept)
        for temporary in self._staged.values():
            with _failure_noted(left, f"{temporary} is left"):
                temporary.unlink(missing_ok=True)
        for directory in reversed(self._created):
            with _failure_noted(left, f"{directory} is left"):
                if directory.is_dir() and not any(directory.iterdir()):
                    directory.rmdir()
        self._forget()
        return left

    def _put_back(self, target: Path, kept: Path | None) -> None:
        if kept is not None:
            with suppress(FileNotFoundError):  # Ctrl-C came before it was set aside
                kept.replace(target)
            kept.unlink(missing_ok=True)  # renaming does nothing if both names are of one file
        elif not self._staged[target].exists():  # renamed, where there was no file
            target.unlink(missing_ok=True)

    def _forget(self) -> None:
        for record in (self._aside, self._staged, self._created):
            record.clear()

    def _make(self, directory: Path) -> None:
        absolute = directory.resolve()
        missing = [path for path in (absolute, *absolute.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir()
            self._created.append(path)

    def _failure(self, target: Path, error: OSError) -> OutputError:
        """Restore the earlier files; return the error that reports it."""
        if isinstance(error, OutputError):
            return error
        left = self._undo()
        outcome = "Nothing was changed"
        if left:
            outcome = f"Not all could be undone: {'; '.join(left)}. Put that right by hand"
        return OutputError(
            f"{target}: cannot be written ({error.strerror or error}). {outcome}; "
            "make room, or choose a directory that can be written."
        )


def _refuse_directory(target: Path) -> None:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def _link_or_move(target: Path, kept: Path) -> None:
    """Give ``target`` the name ``kept`` as well, or instead on a file system without hard links."""
    try:
        os.link(target, kept, follow_symlinks=False)  # so that ``target`` always exists
    except OSError:
        target.replace(kept)


@contextmanager
def _failure_noted(left: list[str], remark: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        left.append(remark)


def _name_beside(target: Path) -> Path:
    """Return an unused name in the same directory, which `remove_leftovers` recognizes."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}")


def remove_leftovers(target: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote ``target``."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*"):
        if re.fullmatch("[0-9a-f]{32}", path.suffix[1:]):
            path.unlink(missing_ok=True)


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
