"""Measures every case, and reports the results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pyquant import _native

from ..timing import median_seconds
from .cases import Case
from .machine import Memory

Row = dict[str, Any]


class Suite:
    """Checks and times cases, each beside the memory's limit in the same run.

    Args:
        threads: numbers of threads to run the kernels on.
        rounds: samples per median.
        limits: whether to measure the bandwidth of the memory beside each case.
    """

    def __init__(self, threads: list[int], rounds: int, limits: bool = True) -> None:
        self._threads = threads
        self._rounds = rounds
        self._memory = Memory(max(threads)) if limits else None

    def rows(self, cases: Iterable[Case]) -> Iterator[Row]:
        """Yield a row per case, with the seconds of everything that ran.

        Raises:
            AssertionError: a kernel's result does not agree with a reference.
        """
        for case in cases:
            self._check(case)
            functions: dict[str, Callable[[], Any]] = {}
            for count in self._threads if case.values else [1]:
                functions[f"pyquant {count}"] = _on_threads(case, count)
                functions.update(self._limit(case, count))
            for isa in _slower_instruction_sets():
                functions[f"pyquant {isa} 1"] = partial(_forced, isa, _on_threads(case, 1))
            functions.update({reference.name: reference.run for reference in case.references})
            yield {
                "case": case.name,
                "values": case.values,
                "bytes": case.read + case.written,
                "seconds": median_seconds(functions, self._rounds),
                "notes": {ref.name: ref.note for ref in case.references if ref.note},
            }

    def _check(self, case: Case) -> None:
        result = _on_threads(case, 1)()
        for reference in case.references:
            if not reference.agree(result, reference.run()):
                raise AssertionError(f"{case.name}: differs from {reference.name}")

    def _limit(self, case: Case, threads: int) -> dict[str, Callable[[], Any]]:
        size = case.read + case.written
        if self._memory is None or size == 0:
            return {}
        moved = self._memory.copy if case.written else self._memory.read
        return {f"limit {threads}": moved(size, threads)}


HEADER = (
    "kernel", "ms", "G values/s", "GB/s", "of the limit", "avx2 of the limit",
    "times as fast on all threads", "of their limit", "others take, times one thread",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    """Return one row as the cells of the table; the first of them are of one thread."""
    seconds = row["seconds"]
    mine = seconds["pyquant 1"]
    most = max((name for name in seconds if name.startswith("limit")), default="limit 1")
    many = most.replace("limit", "pyquant")

    def ratio(over: str, under: str) -> str:
        both = {over, under} <= seconds.keys() and over != under
        return f"{seconds[over] / seconds[under]:.2f}" if both else ""

    peers = [name for name in seconds if not name.startswith(("pyquant", "limit"))]
    return [
        row["case"],
        f"{mine * 1e3:.4g}",
        f"{row['values'] / mine / 1e9:.2f}" if row["values"] else "",
        f"{row['bytes'] / mine / 1e9:.1f}" if row["bytes"] else "",
        ratio("limit 1", "pyquant 1"),
        ratio("limit 1", "pyquant avx2 1"),
        ratio("pyquant 1", many),
        ratio(most, many),
        ", ".join(f"{name} {seconds[name] / mine:.3g}" for name in peers),
    ]


def notes(rows: Iterable[Row]) -> list[str]:
    """Return the known differences from the peers, each once."""
    said = {f"{row['case']}: {name} {note}" for row in rows for name, note in row["notes"].items()}
    return sorted(said)


def compare(old: Path, new: Path) -> Iterator[str]:
    """Yield a line per case and size that both files have: seconds of the new over the old.

    If both files have the memory's limit for a case, the line also has the change relative to it:
    two runs on a busy machine differ by more than two versions do.
    """
    before, after = (
        {(row["case"], row["values"]): row["seconds"] for row in rows}
        for rows in (json.loads(path.read_text())["rows"] for path in (old, new))
    )
    yield f"{'new / old':58}{'time':>8}{'against the limit':>20}"
    for case in before:
        if case not in after:
            continue
        ratio = after[case]["pyquant 1"] / before[case]["pyquant 1"]
        line = f"{case[0]:58}{ratio:8.2f}"
        if "limit 1" in before[case] and "limit 1" in after[case]:
            line += f"{ratio * before[case]['limit 1'] / after[case]['limit 1']:20.2f}"
        yield line


def _slower_instruction_sets() -> list[str]:
    return ["avx2"] if _native.isa() == "avx512" else []


def _forced(isa: str, run: Callable[[], Any]) -> Any:
    before = _native.isa()
    _native.set_isa(isa)
    try:
        return run()
    finally:
        _native.set_isa(before)


def _on_threads(case: Case, count: int) -> Callable[[], Any]:
    return partial(case.run, num_threads=count) if case.values else case.run
