"""``pyquant compare``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from .answer import Answer
from .arguments import (
    add_isolation,
    add_pair,
    add_samples,
    answer_isolated,
    load_pair,
    positive,
    renamed,
)
from .data import data_words, take_data

HELP = "a float model and its quantized one, tensor by tensor, over data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_pair(parser)
    add_samples(parser)
    add_isolation(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write an illustrated page")
    parser.add_argument(
        "--top", type=positive, metavar="N", help="print the N worst lines of each table only"
    )
    parser.add_argument(
        "--fail-below",
        type=float,
        metavar="DB",
        help="end with exit code 3 if the SQNR of an output is below this many dB",
    )


def answer(options: dict[str, Any]) -> Answer:
    """Compare two models; write a page if one is asked for."""
    return answer_isolated(_answer, options, "float_model", "int8_model")


def _answer(options: dict[str, Any]) -> Answer:
    from ..comparing import compare
    from ..comparison.page import save_page

    html, top, bar = (options.pop(name) for name in ("html", "top", "fail_below"))
    data = data_words(options)
    options.update(take_data(options, options["float_model"]))
    comparison = replace(compare(*load_pair(options), **renamed(options)), data=data)
    lines = [comparison.table(top)]
    if html is not None:
        save_page(comparison, html)
        lines += ["", f"page {html}"]
    least = comparison.least_sqnr
    is_met = bar is None or least >= bar
    if bar is not None:
        lines += ["", f"{'met' if is_met else 'missed'}: {least:.1f} dB, the bar is {bar:g} dB"]
    found = {**comparison.to_dict(), "page": None if html is None else str(html)}
    return Answer("\n".join(lines), found, is_met=is_met)
