"""Runs a call of pyquant in a process of its own, which may die of the model.

Paddle's kernels can end a process: they read outside of their memory if a model lies about shapes,
for example. The call's arguments go to the process, then each batch as it is asked for. What it
logs comes back, and at last the result; activations stay there. This is no protection from code
that wants to do harm.
"""

from __future__ import annotations

import logging
import mmap
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np

from .calibration.iteration import iterate_source, source_length
from .errors import ModelCrashError, SettingError
from .program.running import tell_ops
from .progress import logger
from .signals import interrupts_handled, restore

_SOURCES = ("batch_generator", "sample_generator", "data_loader")
_ELSEWHERE = ("eval_function", "engine")  # what cannot be given to another process
_MARK_BYTES = 1 << 12
_CHILD = "import sys; sys.path[:] = {path!r}; from pyquant.isolation import serve; serve{fds}"


def run_isolated(
    call: Callable[..., Any], arguments: Mapping[str, Any], models: Sequence[str | Path]
) -> Any:
    """Return what ``call(**arguments)`` returns in a process of its own, or raise what it raises.

    Raises ModelCrashError, which names the models and the op that ran, if the process dies;
    SettingError if an argument cannot be given to another process.
    """
    given = dict(arguments)
    for name in _ELSEWHERE:
        if given.get(name) is not None:
            raise SettingError(f"isolate: {name} runs in this process. Leave out one of the two.")
    for name in ("executor", "scope"):  # without effect, but noted
        if given.get(name) is not None:
            given[name] = True
    data = {name: given[name] for name in _SOURCES if _is_elsewhere(given.get(name))}
    for name, source in data.items():
        given[name] = _Asked(name, None if callable(source) else source_length(source))
    try:
        request = pickle.dumps((call.__module__, call.__qualname__, given, logger.level))
    except Exception as error:  # pickle raises many types
        raise SettingError(
            f"isolate: an argument cannot be given to another process ({error})."
        ) from error
    with _Child() as child:
        return child.answer(request, data, " and ".join(map(str, models)))


def _is_elsewhere(source: Any) -> bool:
    return source is not None and not isinstance(source, (str, Path))


class _Child:
    """The process that runs the call."""

    def __init__(self) -> None:
        self._mark = os.memfd_create("pyquant")
        os.truncate(self._mark, _MARK_BYTES)
        self._connection, other = Pipe()
        fds = (other.fileno(), self._mark)
        # The same pyquant, whatever else is on the path by now.
        root = str(Path(__file__).parent.parent)
        code = _CHILD.format(path=[root, *sys.path], fds=fds)
        # In a group of its own: Ctrl-C reaches this process, which passes it on.
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=fds, start_new_session=True
        )
        other.close()

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()
        os.close(self._mark)

    def answer(self, request: bytes, data: Mapping[str, Any], where: str) -> Any:
        """Send the request, give the data that are asked for, and return the result."""
        iterators: dict[str, Iterator[Any]] = {}
        with _interrupts_passed_to(self._process):
            try:
                self._connection.send_bytes(request)
                while True:
                    kind, content = self._connection.recv()
                    if kind == "begin":
                        iterators[content] = iterate_source(data[content])
                    elif kind == "next":
                        self._give(iterators[content])
                    elif kind == "logged":
                        logger.handle(content)
                    elif kind == "raised":
                        raise content
                    else:
                        return content
            except (EOFError, ConnectionError) as error:
                raise self._crash(where) from error

    def _give(self, items: Iterator[Any]) -> None:
        try:
            item = [_as_arrays(next(items))]
        except StopIteration:
            item = []
        self._connection.send(item)

    def _crash(self, where: str) -> ModelCrashError:
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        ran = os.pread(self._mark, _MARK_BYTES, 0).partition(b"\0")[0].decode(errors="replace")
        hint = "Memory may have run out. " if code == -signal.SIGKILL else ""
        return ModelCrashError(
            f"{where}: the process that ran the model died ({how}) {ran or 'before it ran an op'}. "
            f"{hint}Does Paddle alone run the model, on the same data?"
        )


class _Asked:
    """Data that the waiting process gives, item by item."""

    def __init__(self, name: str, length: int | None) -> None:
        self._name = name
        self._length = length

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("its length is not known")
        return self._length

    def __iter__(self) -> Iterator[Any]:
        _waiting[-1].send(("begin", self._name))
        while True:
            _waiting[-1].send(("next", self._name))
            item = _waiting[-1].recv()
            if not item:
                return
            yield item[0]


_waiting: list[Connection] = []  # the connection to the process that waits for this one


class _LogThere(logging.Handler):
    """Gives what is logged here to the process that waits."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record, whose text is made here: its arguments may be of any type."""
        text, level = record.getMessage(), record.levelno
        told = logging.LogRecord(record.name, level, record.pathname, record.lineno, text, (), None)
        _waiting[-1].send(("logged", told))


def serve(connection: int, mark: int) -> None:
    """Answer the one request of the process that waits for this one."""
    waiting = Connection(connection)
    _waiting.append(waiting)
    module, name, arguments, level = pickle.loads(waiting.recv_bytes())
    logger.setLevel(level)
    logger.addHandler(_LogThere())
    logger.propagate = False
    memory = mmap.mmap(mark, _MARK_BYTES)

    def tell(op: str) -> None:
        text = op.encode(errors="replace")[: _MARK_BYTES - 1]
        memory[: len(text) + 1] = text + b"\0"

    tell_ops(tell)
    _end_by_signals()
    try:
        __import__(module)
        answer = "done", getattr(sys.modules[module], name)(**arguments)
    except BaseException as error:  # every error goes back, Ctrl-C too
        answer = "raised", _sendable(error)
    waiting.send(answer)


def _end_by_signals() -> None:
    """Let signals end this process, in place of Paddle's handlers.

    These need memory and locks: if SIGTERM comes while Paddle loads a model, they may wait forever.
    """
    import_module(f"{__package__}.program.proto")  # imports Paddle, without its warnings
    sys.modules["paddle"].disable_signal_handler()


def _sendable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _as_arrays(item: Any) -> Any:
    """Return an item of data with numpy arrays in the place of Paddle's tensors."""
    if isinstance(item, Mapping):
        return {name: _as_arrays(value) for name, value in item.items()}
    if isinstance(item, (list, tuple)):
        return type(item)(_as_arrays(value) for value in item)
    return np.asarray(item.numpy()) if hasattr(item, "numpy") else item


@contextmanager
def _interrupts_passed_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM reach the other process, whose answer says what came of it.

    If SIGTERM ends that one without an answer, it ends this one too.
    """
    with interrupts_handled(lambda number, _: process.send_signal(number)) as before:
        try:
            yield
        finally:
            if signal.SIGTERM in before and process.poll() == -signal.SIGTERM:
                restore(before)
                os.kill(os.getpid(), signal.SIGTERM)
