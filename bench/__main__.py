"""`python -m bench`: every kernel beside numpy and the peers; `python -m bench compare OLD NEW`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from .kernels import cases, peers, picture, suite
from .kernels.machine import description
from .report import Report, add_report


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    size: int
    rounds: int
    weights: int
    weight_shape: tuple[int, int]
    batches: int
    sizes: tuple[int, ...]


FULL = Extent(1 << 24, 7, 12, (4096, 11008), 16, (*(10**n for n in range(3, 8)), 1 << 26))
QUICK = Extent(1 << 16, 1, 2, (64, 300), 2, (1000, 10000))


def main() -> None:
    """Run the suite, or compare two of its results."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small arrays: check that all agree")
    parser.add_argument("--output", type=Path, default=Path("bench-results.json"))
    parser.add_argument("--picture", type=Path, default=Path("bench-results.png"))
    add_report(parser)
    commands = parser.add_subparsers(dest="command", metavar="compare OLD NEW")
    comparison = commands.add_parser("compare", help="ratios of two results")
    comparison.add_argument("old", type=Path)
    comparison.add_argument("new", type=Path)
    options = parser.parse_args()
    if options.command == "compare":
        for line in suite.compare(options.old, options.new):
            print(line)
        return
    results = measure(QUICK if options.quick else FULL, Report(options.report))
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {options.output}")
    draw(results, options.picture)


def measure(extent: Extent, report: Report) -> dict[str, Any]:
    """Measure every case; the table grows as they are measured."""
    for name in peers.absent():
        report.lines("", f"{name} is not installed: left out")
    threads = sorted({1, os.cpu_count() or 1})
    measuring = suite.Suite(threads, extent.rounds)
    large = cases.large_cases(extent.weights, extent.weight_shape, extent.batches)
    rows: list[suite.Row] = []
    found = measuring.rows(chain(cases.cases(extent.size), large))
    report.table(suite.HEADER, (suite.cells(row) for row in kept(found, rows)))
    report.lines("", *suite.notes(rows))
    by_size = suite.Suite([1], extent.rounds, limits=False)
    sizes = [row for size in extent.sizes for row in by_size.rows(cases.sized_cases(size))]
    return {"machine": description(), "threads": threads, "rows": rows, "sizes": sizes}


def kept(rows: Iterable[suite.Row], into: list[suite.Row]) -> Iterator[suite.Row]:
    """Yield the rows as they come, and add each to ``into``."""
    for row in rows:
        into.append(row)
        yield row


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the picture, or say why there is none."""
    try:
        picture.draw(results, path)
    except ImportError:
        print("no picture: matplotlib is not installed")
    else:
        print(f"drawn to {path}")


if __name__ == "__main__":
    main()
