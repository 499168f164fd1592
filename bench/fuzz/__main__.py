"""The command line: a process runs the cases, another one waits for its death."""

from __future__ import annotations

import argparse
import json
import math
import mmap
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from pyquant.verification import check

from .cases import KINDS, Cases, NetworkError

# Seconds that a case may compute or sleep: not those in which it waits for a core, or is stopped.
_LONGEST = 60.0
_EVERY = 0.2  # seconds between two looks at the process
_MOST_MEMORY = 8 << 30
_BOARD_BYTES = 1 << 14
_IN_MEMORY = next((path for path in ("/dev/shm",) if os.access(path, os.W_OK)), None)
# Paddle may end the process where it computes a damaged model's constants, or runs a network.
_IN_PADDLE = ("static",)


def main() -> int:
    """Run cases for a while; print every find, and at the end the counts."""
    options = _parser().parse_args()
    if options.seed is None:
        options.seed = Random().getrandbits(31)
        print(f"seed {options.seed}", flush=True)
    if options.case is not None:
        return _one(options)
    start = time.monotonic()
    board = _Board()
    while time.monotonic() < start + options.seconds:
        with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as directory:
            _supervise(options, Path(directory), board, start + options.seconds)
    return _sum_up(options, board.read(), time.monotonic() - start)


class _Board:
    """What the process that runs cases has done, in memory that outlives it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _BOARD_BYTES)
        self.write({"number": -1, "stage": "start", "counts": {}, "finds": 0})

    def write(self, state: dict[str, Any]) -> None:
        text = json.dumps(state).encode()
        self._memory[: len(text) + 1] = text + b"\0"

    def read(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.text())
        return state

    def text(self) -> bytes:
        return self._memory[:].partition(b"\0")[0]


def _supervise(options: argparse.Namespace, directory: Path, board: _Board, end: float) -> None:
    """Let a process run cases, from the next number on, until it dies or the time is over."""
    process = os.fork()
    if process == 0:
        try:
            _serve(options, directory, board, end)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    text, spent, computed, hangs = board.text(), 0.0, 0.0, False
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        time.sleep(_EVERY)
        if board.text() != text:
            text, spent = board.text(), 0.0
        before, computed = computed, _cpu_seconds(process)
        spent += computed - before if _would_run(process) else _EVERY
        if spent > _LONGEST:
            hangs = True
            os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(ended[1])
    if code == 0:
        return
    how = "hang" if hangs else signal.Signals(-code).name if code < 0 else f"exit code {code}"
    state = board.read()
    if state["stage"] == "start":
        raise SystemExit(f"the process died ({how}) before its first case")
    where = f"died: {how} in {state['stage']}"
    in_paddle = state["stage"] in _IN_PADDLE and not hangs
    state["counts"][where] = state["counts"].get(where, 0) + 1
    state["finds"] += not in_paddle
    board.write(state)
    print(f"case {state['number']}: {where}", flush=True)


def _cpu_seconds(process: int) -> float:
    ticks = _stat(Path(f"/proc/{process}"))[11:13]  # user's, system's
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _would_run(process: int) -> bool:
    """Return whether a thread runs, or would if it had a core and were not stopped."""
    states = set[str]()
    for thread in Path(f"/proc/{process}/task").iterdir():
        with suppress(OSError):  # it has just ended
            states.add(_stat(thread)[0])
    return not states.isdisjoint("RT")


def _stat(directory: Path) -> list[str]:
    """Return the fields behind "pid (name)", where the name may hold anything."""
    return (directory / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()


def _sum_up(options: argparse.Namespace, state: dict[str, Any], seconds: float) -> int:
    counts = Counter(state["counts"])
    rate = f"{counts.total()} cases in {seconds:.0f} s ({counts.total() / seconds:.0f} a second)"
    print(f"seed {options.seed}: {rate}, kinds {', '.join(options.kinds)}")
    for outcome, count in counts.most_common():
        print(f"{count:9} {outcome}")
    return 1 if state["finds"] else 0


def _serve(options: argparse.Namespace, directory: Path, board: _Board, end: float) -> None:
    """Run cases until the time is over, and note each on the board."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", category=RuntimeWarning)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    # Which kernels run is looked up by the times, which would make a case depend on the machine.
    check._MUCH_LONGER = math.inf
    state = board.read()
    counts = Counter[str](state["counts"])
    state["counts"] = counts

    def tell(stage: str) -> None:
        state["stage"] = stage
        board.write(state)

    cases = Cases(options.seed, directory)
    state["number"] = max(state["number"] + 1, options.first)
    while time.monotonic() < end:
        try:
            outcome = cases.run(state["number"], options.kinds, tell)
        except Exception as error:
            cause = error.__cause__ if isinstance(error, NetworkError) else error
            outcome = f"find: {_described(cause or error)}"
            state["finds"] += 1
            print(f"case {state['number']}, {state['stage']}: {outcome}", file=out)
            print(str(error) if isinstance(error, NetworkError) else str(error)[:300], file=out)
        counts[outcome] += 1
        state["number"] += 1
    state["number"] -= 1
    board.write(state)


def _described(error: BaseException) -> str:
    """Return the type of an error, and where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"


def _one(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as directory:
        cases = Cases(options.seed, Path(directory))
        print(cases.run(options.case, options.kinds, lambda name: print(name, flush=True)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, help="the seed of all cases (a new one, printed)")
    parser.add_argument("--kinds", nargs="+", default=tuple(KINDS), choices=tuple(KINDS))
    parser.add_argument("--first", type=int, default=0, help="the number of the first case (0)")
    parser.add_argument("--case", type=int, help="run one case here, and show its error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
