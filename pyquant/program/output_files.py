"""Files that appear whole or not at all, and together or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ..errors import OutputError
from .locks import locked


class OutputFiles:
    """Write files under temporary names; rename them all when the ``with`` block ends well.

    A process may be killed at any moment: each file is then the earlier or the new one, and there
    are never some of the earlier files beside some of the new ones. First, a journal names the new
    files. Then the earlier ones are moved away, the last first, and the new ones take their places,
    the first one first. Write the program last: in between there is none, so nothing loads one that
    does not belong to its parameters. The next call for the directory, or the next `load_model`,
    ends what the journal says (`end_killed_runs`).

    If a file cannot be renamed, the earlier ones are put back. The directory is created if absent,
    and then removed again on failure.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._created: list[Path] = []
        self._staged: dict[Path, Path] = {}
        self._aside: dict[Path, Path | None] = {}
        self._run: _Run | None = None

    def __enter__(self) -> OutputFiles:
        try:
            self._make(self._directory)
            root = self._directory.resolve()
            end_killed_runs(root)
            self._run = _Run(root)
        except OSError as error:
            raise self._failure(self._directory, error) from error
        return self

    @contextmanager
    def open(self, target: Path) -> Iterator[BinaryIO]:
        """Open a stream whose content becomes the file ``target``.

        Raises OutputError if it cannot be written; all files opened so far are discarded.
        """
        assert self._run is not None
        try:
            _refuse_directory(target)
            self._make(target.parent)
            temporary = self._run.name_beside(target)
            with temporary.open("xb") as stream:
                self._staged[target] = temporary
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
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
        assert self._run is not None
        target = self._directory
        is_single = len(self._staged) <= 1  # to rename it is atomic
        lock = nullcontext() if is_single else locked(self._run.directory / _LOCK, waits=True)
        try:
            for target in self._staged:
                _refuse_directory(target)
            with lock:
                self._rename(self._run)
        except BlockingIOError as error:
            raise OutputError(
                f"{error.filename}: another process writes into this directory, or was killed "
                "while it did: the file system has no locks. Nothing was changed. Wait for it, or "
                "remove this file."
            ) from error
        except OSError as error:
            raise self._failure(target, error) from error
        old = [path for path in self._aside.values() if path is not None]
        self._forget()
        for path in old:
            with suppress(OSError):  # the result is complete without it
                path.unlink(missing_ok=True)

    def _rename(self, run: _Run) -> None:
        """Let the new files take the places of the earlier ones; undo it all if that fails."""
        target = run.path
        try:
            if len(self._staged) > 1:
                run.record(self._staged)
                for target in reversed(self._staged):
                    self._set_aside(target)
            for target, temporary in self._staged.items():
                temporary.replace(target)
            _sync(self._staged)
        except OSError as error:
            raise self._failure(target, error) from error
        except BaseException:
            self._undo()
            raise

    def _set_aside(self, target: Path) -> None:
        """Move an existing ``target`` to another name until all files are renamed."""
        assert self._run is not None
        kept = self._run.old_name(target)
        self._aside[target] = kept  # recorded first, as Ctrl-C may come in between
        try:
            target.replace(kept)
        except FileNotFoundError:  # there is no such file
            self._aside[target] = None
        except OSError:
            del self._aside[target]
            raise

    def _undo(self) -> list[str]:
        """Restore the earlier files; return remarks on those that could not be restored."""
        left: list[str] = []
        for target, kept in self._aside.items():
            remark = f"{target} is new" if kept is None else f"{target} as it was is in {kept}"
            with _failure_noted(left, remark):
                self._put_back(target, kept)
        for temporary in self._staged.values():
            with _failure_noted(left, f"{temporary} is left"):
                temporary.unlink(missing_ok=True)
        if self._run is not None:
            with _failure_noted(left, f"{self._run.path} is left"):
                self._run.end()
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


def end_killed_runs(directory: Path) -> None:
    """End what processes began that were killed while they wrote into ``directory``.

    What they had written whole takes its place; what is left of the rest is removed.
    """
    for path in directory.glob(f"{_RUN}*"):
        with suppress(OSError), path.open("r+b") as stream:  # NFS locks nothing that is read only
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the process lives
            with locked(directory / _LOCK, waits=True):
                _Run(directory, path).finish(stream.read())


class _Run:
    """A process that writes into a directory, known by a file that it locks while it lives.

    The file is the journal, which is empty until all new files are written. The temporary files
    hold the run's number in their names.
    """

    def __init__(self, directory: Path, path: Path | None = None) -> None:
        """Begin a run, or take up the one of a file."""
        self.directory = directory
        self._stream: BinaryIO | None = None
        if path is None:
            path, self._stream = _begun(directory)
        self.path = path
        self._number = path.name.removeprefix(_RUN)

    def name_beside(self, target: Path) -> Path:
        """Return an unused name in the same directory."""
        return target.with_name(f".{target.name}.{self._number}")

    def old_name(self, target: Path) -> Path:
        """Return a name for what ``target`` was before."""
        return target.with_name(f".{target.name}.{self._number}.old")

    def record(self, targets: Iterable[Path]) -> None:
        """Write the journal, which from then on makes another process end the run."""
        assert self._stream is not None
        places = [_place(self.directory, target) for target in targets]
        if None in places:
            return  # a target elsewhere, which the next call for the directory would not find
        self._stream.write(json.dumps(places).encode())
        self._stream.flush()
        os.fsync(self._stream.fileno())
        _sync([self.path])

    def finish(self, journal: bytes) -> None:
        """Rename what the journal of a killed run names; remove what else the run left."""
        targets = [self.directory / place for place in _places(journal)]
        waiting = [target for target in targets if self.name_beside(target).exists()]
        for target in reversed(waiting):
            if target.exists():
                target.replace(self.old_name(target))
        for target in waiting:
            self.name_beside(target).replace(target)
        _sync(targets)
        any_end = "*" if targets else ""  # without a journal, the earlier files are still needed
        for pattern in (f".*.{self._number}{any_end}", f"*/.*.{self._number}{any_end}"):
            for path in self.directory.glob(pattern):
                path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def end(self) -> None:
        """End the run as one that wrote nothing that is not in its place."""
        if self._stream is None or self._stream.closed:
            return
        with self._stream:
            self._stream.truncate(0)
            self.path.unlink(missing_ok=True)


_RUN = ".pyquant."
_LOCK = ".pyquant-lock"


def _begun(directory: Path) -> tuple[Path, BinaryIO]:
    """Return the file of a new run, and its stream, which holds the lock."""
    while True:
        path = directory / f"{_RUN}{uuid.uuid4().hex}"
        stream = path.open("xb")
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        # Before it was locked, it looked like one left behind, which another process ends.
        if path.exists():
            return path, stream
        stream.close()


def _place(root: Path, target: Path) -> str | None:
    """Return where a target is in a directory or in a directory there, None if it is elsewhere."""
    place = target.parent.resolve() / target.name
    if root not in place.parents or len(place.relative_to(root).parts) > 2:
        return None
    return str(place.relative_to(root))


def _places(journal: bytes) -> list[str]:
    """Return what a journal names; nothing if it is not whole, or names what none of ours does."""
    try:
        places = json.loads(journal)
    except ValueError:
        return []
    for place in places if isinstance(places, list) else [None]:
        if not isinstance(place, str) or "\0" in place:
            return []
        path = Path(place)
        if path.is_absolute() or ".." in path.parts or not 1 <= len(path.parts) <= 2:
            return []
    return list(places)


def _sync(paths: Iterable[Path]) -> None:
    """Have the names of files on the disk, and not only in memory."""
    for directory in {path.parent for path in paths}:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            with suppress(OSError):  # not every file system does so for directories
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _refuse_directory(target: Path) -> None:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


@contextmanager
def _failure_noted(left: list[str], remark: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        left.append(remark)
