"""`python -m bench`: every kernel beside numpy and the peers; `python -m bench compare OLD NEW`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .kernels.suite import compare, measure, save


def main() -> None:
    """Run the suite, or compare two of its results."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small arrays: check that all agree")
    parser.add_argument("--output", type=Path, default=Path("bench-results.json"))
    commands = parser.add_subparsers(dest="command", metavar="compare OLD NEW")
    comparison = commands.add_parser("compare", help="ratios of two results")
    comparison.add_argument("old", type=Path)
    comparison.add_argument("new", type=Path)
    options = parser.parse_args()
    if options.command == "compare":
        for line in compare(options.old, options.new):
            print(line)
        return
    threads = sorted({1, os.cpu_count() or 1})
    size, rounds = (1 << 16, 1) if options.quick else (1 << 24, 5)
    results = measure(size, threads, rounds)
    print(f"copy, one thread: {results['copy_bytes_per_second'] / 1e9:.1f} GB/s read and written")
    save(results, options.output)
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
