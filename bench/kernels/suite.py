"""Measuring every case, and telling of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from .cases import Case, cases
from .machine import copy_bandwidth, description
from .timing import median_seconds

Row = dict[str, Any]


def measure(size: int, threads: Iterable[int], rounds: int) -> dict[str, Any]:
    """Check and time every case.

    Args:
        size: values in the arrays.
        threads: numbers of threads to run the kernels on.
        rounds: samples per median.

    Returns:
        The machine, its copy bandwidth, and a row per case with seconds by what ran.

    Raises:
        AssertionError: a kernel's result is not its reference's.
    """
    rows = []
    for case in cases(size):
        rows.append(_measure(case, list(threads), rounds))
        print(as_line(rows[-1]), flush=True)
    return {
        "machine": description(),
        "copy_bytes_per_second": copy_bandwidth(size),
        "size": size,
        "rows": rows,
    }


def as_line(row: Row) -> str:
    """Return one row as a line of the table."""
    seconds = row["seconds"]
    mine = seconds["pyquant 1"]
    line = f"{row['case']:42}{mine * 1e3:10.3f} ms"
    if row["values"]:
        line += f"{row['values'] / mine / 1e9:8.2f} G/s{row['bytes'] / mine / 1e9:8.1f} GB/s"
    for name, value in seconds.items():
        if name != "pyquant 1":
            line += f"   {name} {value / mine:.2f}x"
    return line


def save(results: dict[str, Any], path: Path) -> None:
    """Write the results as JSON."""
    path.write_text(json.dumps(results, indent=1) + "\n")


def compare(old: Path, new: Path) -> Iterable[str]:
    """Yield a line per case that both files have: seconds of the new over those of the old."""
    before, after = (
        {row["case"]: row["seconds"]["pyquant 1"] for row in json.loads(path.read_text())["rows"]}
        for path in (old, new)
    )
    for case in before:
        if case in after:
            yield f"{case:42}{after[case] / before[case]:8.2f}"


def _measure(case: Case, threads: list[int], rounds: int) -> Row:
    result = _on_threads(case, 1)()
    for name, reference in case.references.items():
        if not case.agree(result, reference()):
            raise AssertionError(f"{case.name}: differs from {name}")
    counts = threads if case.values else [1]
    functions = {f"pyquant {count}": _on_threads(case, count) for count in counts}
    seconds = median_seconds({**functions, **case.references}, rounds)
    return {
        "case": case.name,
        "values": case.values,
        "bytes": case.read + case.written,
        "seconds": seconds,
    }


def _on_threads(case: Case, count: int) -> Callable[[], Any]:
    return partial(case.run, num_threads=count) if case.values else case.run
