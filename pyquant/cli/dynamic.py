"""``pyquant dynamic``."""

from __future__ import annotations

import argparse
from typing import Any

from .answer import Answer
from .arguments import add_model, add_result, renamed
from .choices import (
    DYNAMIC_QUANTIZE_TYPES,
    GROUP_SIZES,
    WEIGHT_BITS,
    WEIGHT_ONLY_OP_TYPES,
    one_of,
)
from .words import in_cli_words

HELP = "weights to 4, 8 or 16 bits, without data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_model(parser)
    output = "directory of the result, or an .onnx file"
    add_result(parser, WEIGHT_ONLY_OP_TYPES, DYNAMIC_QUANTIZE_TYPES, output=output)
    parser.add_argument(
        "--weight-bits",
        default="8",
        type=one_of(WEIGHT_BITS),
        metavar="BITS",
        help=f"of the integers: {', '.join(WEIGHT_BITS)} (8)",
    )
    parser.add_argument(
        "--group-size",
        type=one_of(GROUP_SIZES),
        metavar="N",
        help="give every so many inputs of a channel a step of their own: "
        f"{', '.join(GROUP_SIZES)} (whole channels; 64 with 4 bits)",
    )
    parser.add_argument("--test-model", action="store_true", help="also write the float twin")
    parser.add_argument("--lite", action="store_true", help="Paddle-Lite's form, by attributes")


def answer(options: dict[str, Any]) -> Answer:
    """Quantize, and say what was done."""
    from ..dynamic import quant_post_dynamic

    for name in ("weight_bits", "group_size"):
        options[name] = options[name] and int(options[name])
    options["save_model_dir"] = options.pop("output")
    result = quant_post_dynamic(**renamed(options))
    return Answer(in_cli_words(str(result)), result.to_dict())
