"""The command line: a process runs the cases, another one waits for its death."""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from .cases import KINDS, Cases

_LONGEST = 60.0  # seconds that a case may take
_MOST_MEMORY = 8 << 30
_IN_MEMORY = next((path for path in ("/dev/shm",) if os.access(path, os.W_OK)), None)
# Paddle may end the process where it computes a damaged model's constants, or runs a network.
_IN_PADDLE = ("static",)


def main() -> int:
    """Run cases for a while; print every find, and at the end the counts."""
    options = _parser().parse_args()
    if options.case is not None:
        return _one(options)
    if options.report is not None:
        return _serve(options)
    counts, finds = Counter[str](), list[dict[str, Any]]()
    end = time.monotonic() + options.seconds
    number = options.first
    while time.monotonic() < end:
        number = _supervise(options, number, end, counts, finds)
    cases = sum(counts.values())
    print(f"seed {options.seed}: {cases} cases, {number} numbers, kinds {', '.join(options.kinds)}")
    for outcome, count in counts.most_common():
        print(f"{count:9} {outcome}")
    return 1 if any(not find["in_paddle"] for find in finds) else 0


def _supervise(
    options: argparse.Namespace,
    number: int,
    end: float,
    counts: Counter[str],
    finds: list[dict[str, Any]],
) -> int:
    """Let a process run cases from a number on until it dies or the time is over."""
    read, write = os.pipe()
    command = [sys.executable, "-W", "ignore", "-W", "error::RuntimeWarning"]
    command += ["-m", "bench.fuzz", "--report", str(write)]
    given = ["--seed", str(options.seed), "--first", str(number), "--kinds", *options.kinds]
    process = subprocess.Popen(
        [*command, *given], pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(write)
    stage = "start"
    with os.fdopen(read) as reports:
        while time.monotonic() < end:
            ready, _, _ = select.select([reports], [], [], _LONGEST)
            line = reports.readline() if ready else ""
            if not line:
                break
            report = json.loads(line)
            stage = report.get("stage", stage)
            if "outcome" in report:
                number = report["number"] + 1
                counts[report["outcome"]] += 1
                if "error" in report:
                    _tell(finds, report["number"], stage, report["error"])
        else:
            process.kill()
            process.wait()
            return number
    hangs = process.poll() is None and not ready
    process.kill()
    code = process.wait()
    how = "hang" if hangs else signal.Signals(-code).name if code < 0 else f"exit code {code}"
    counts[f"died: {how} in {stage}"] += 1
    _tell(finds, number, stage, f"died: {how}", in_paddle=stage in _IN_PADDLE and not hangs)
    return number + 1


def _tell(
    finds: list[dict[str, Any]], number: int, stage: str, error: str, in_paddle: bool = False
) -> None:
    finds.append({"number": number, "in_paddle": in_paddle})
    print(f"case {number}, {stage}: {error}", flush=True)


def _serve(options: argparse.Namespace) -> int:
    """Run cases without end, and report each."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    with os.fdopen(options.report, "w", buffering=1) as reports:

        def report(**what: Any) -> None:
            reports.write(json.dumps(what) + "\n")

        with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as directory:
            cases = Cases(options.seed, Path(directory))
            number = options.first
            while True:
                try:
                    outcome = cases.run(number, options.kinds, lambda name: report(stage=name))
                    report(number=number, outcome=outcome)
                except Exception as error:
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    place = f"{Path(where.filename).name}:{where.lineno}"
                    said = f"{type(error).__name__} at {place}: {str(error)[:300]}"
                    report(number=number, outcome=f"find: {type(error).__name__}", error=said)
                number += 1


def _one(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as directory:
        cases = Cases(options.seed, Path(directory))
        print(cases.run(options.case, options.kinds, lambda name: print(name, flush=True)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of all cases (0)")
    parser.add_argument("--kinds", nargs="+", default=tuple(KINDS), choices=tuple(KINDS))
    parser.add_argument("--first", type=int, default=0, help="the number of the first case (0)")
    parser.add_argument("--case", type=int, help="run one case here, and show its error")
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
