"""The command line: one module for each command, which says what it takes and what it does.

A command imports pyquant's own modules when it runs: Paddle, which they need, takes seconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

from ..errors import NothingQuantizedError, PyquantError
from ..shown import shown
from ..version import __version__
from . import calibrate, compare, convert, dynamic, fold, inspect, merge, run, static, verify
from .arguments import add_common
from .words import in_cli_words

MET, ERROR, MISSED, INTERRUPTED = 0, 1, 3, 130
"""Exit codes; argparse ends with 2 for usage errors, and 130 is 128 + SIGINT, as in shells."""

_COMMANDS: tuple[ModuleType, ...] = (
    *(inspect, convert, fold, dynamic, static, verify, compare, run, calibrate, merge),
)

_EXIT_CODES = """exit codes:
  0 done, 1 error, 2 wrong usage, 3 a bar was missed (--fail-below, --max-error) or nothing was
  quantized, 130 Ctrl-C, or SIGTERM where a checkpoint was kept"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code. The reason of an error goes to stderr."""
    options = vars(_parser().parse_args(arguments))
    command, as_json = options.pop("command"), options.pop("json")
    quiet, verbose = options.pop("quiet"), options.pop("verbose")
    try:
        with _Logging(quiet, verbose):
            answer = command(options)
    except KeyboardInterrupt as interrupt:
        return _failed(interrupt, str(interrupt) or "interrupted", as_json, INTERRUPTED)
    except MemoryError as error:
        text = "there is not enough memory. Give a smaller --batch-size."
        return _failed(error, text, as_json, ERROR)
    except PyquantError as error:
        missed = isinstance(error, NothingQuantizedError)
        return _failed(error, in_cli_words(str(error)), as_json, MISSED if missed else ERROR)
    if as_json:
        _print(json.dumps(answer.data, indent=2, allow_nan=False))
    elif not quiet:
        lines = [answer.text, *([answer.details] if verbose and answer.details else [])]
        _print(shown("\n".join(lines), newlines=True))
    return MET if answer.is_met else MISSED


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # as behind "| head"; what is left goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(error: BaseException, text: str, as_json: bool, code: int) -> int:
    print(f"pyquant: {text}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": type(error).__name__, "message": text}, indent=2))
    return code


class _Logging:
    """Sends what pyquant logs to stderr while a command runs."""

    def __init__(self, quiet: bool, verbose: bool) -> None:
        self._logger = logging.getLogger("pyquant")
        self._level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING

    def __enter__(self) -> None:
        self._before = self._logger.level, self._logger.propagate
        self._handler = logging.StreamHandler()
        self._handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        self._logger.setLevel(self._level)
        self._logger.addHandler(self._handler)
        self._logger.propagate = False  # Paddle has a handler of its own for all loggers

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._handler)
        level, self._logger.propagate = self._before
        self._logger.setLevel(level)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See '{self.prog} --help'.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pyquant",
        description="Quantize PaddlePaddle inference models after training.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pyquant {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in _COMMANDS:
        name = module.__name__.rpartition(".")[2]
        one: Any = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(one)
        add_common(one)
        one.set_defaults(command=module.answer)
    return parser
