"""Tables in Markdown, as the docs have them, below the command and the machine that they are of."""

from __future__ import annotations

import argparse
import importlib.metadata
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .kernels.machine import description

_PEERS = ("nncf", "onnxruntime", "openvino", "torch")


class Report:
    """Prints tables, and writes them to a file, line by line: a kill loses no measurement.

    Both begin with the command of this process and its machine.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Begin the report; ``path`` gets it, too, if it is given."""
        self._path = path
        if path is not None:
            path.write_text("", "utf-8")
        self.lines(f"`{_command()}`", "", _machine())

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Add a table; a row is added as soon as ``rows`` yields it. Cells are shown as by str."""
        self.lines("", _row(header), _row(["---"] * len(header)))
        for cells in rows:
            self.lines(_row(cells))

    def lines(self, *lines: str) -> None:
        """Add lines as they are; text behind a table begins with an empty one."""
        text = "\n".join([*lines, ""])
        print(text, end="", flush=True)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text)


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the option for the path of a `Report`."""
    parser.add_argument(
        "--report", type=Path, metavar="FILE.md", help="write the tables here, too, as Markdown"
    )


def _row(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _command() -> str:
    module = sys.modules["__main__"].__spec__
    name = module.name if module is not None else "bench"
    return shlex.join(["python", "-m", name.removesuffix(".__main__"), *sys.argv[1:]])


def _machine() -> str:
    installed = {found.name: found.version for found in importlib.metadata.distributions()}
    peers = {name: installed[name] for name in _PEERS if name in installed}
    return ", ".join(f"{name} {value}" for name, value in {**description(), **peers}.items())
