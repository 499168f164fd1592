"""``pyquant static``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .answer import Answer
from .arguments import add_calibration, add_model, add_result, renamed, settle_process
from .choices import (
    ACTIVATION_OP_TYPES,
    ALGORITHMS,
    ROUND_TYPES,
    WEIGHT_QUANTIZE_TYPES,
    one_of,
)
from .data import data_words, take_data
from .words import in_cli_words

HELP = "an int8 model, calibrated over data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_model(parser)
    add_result(parser, ACTIVATION_OP_TYPES, WEIGHT_QUANTIZE_TYPES, WEIGHT_QUANTIZE_TYPES[0])
    add_calibration(parser, parser.add_mutually_exclusive_group(required=True))
    parser.add_argument(
        "--algo",
        default="mse",
        type=one_of(ALGORITHMS),
        metavar="NAME",
        help=f"how thresholds are found: {', '.join(ALGORITHMS)} (mse)",
    )
    parser.add_argument(
        "--round-type",
        default=ROUND_TYPES[0],
        type=one_of(ROUND_TYPES),
        metavar="TYPE",
        help=f"how weights become integers: {' or '.join(ROUND_TYPES)} (round)",
    )
    parser.add_argument(
        "--weight-bits", type=int, default=8, metavar="BITS", help="2 to 8, stored in 8 (8)"
    )
    parser.add_argument(
        "--equalize",
        action=argparse.BooleanOptionalAction,
        help="even out the channels of activations wherever that halves the cost of int8 (only "
        "where int8 costs much)",
    )
    parser.add_argument(
        "--no-bias-correction",
        dest="bias_correction",
        action="store_false",
        help="do not adjust the biases for the mean error that rounding the weights causes",
    )
    parser.add_argument(
        "--hist-percent",
        type=float,
        default=0.9999,
        metavar="SHARE",
        help="of the values that --algo hist keeps in range (0.9999)",
    )
    parser.add_argument(
        "--scale-dict",
        type=Path,
        metavar="FILE",
        help="a .json file of thresholds by activation, to use as they are",
    )
    parser.add_argument(
        "--same-scale",
        nargs="+",
        action="append",
        metavar="TENSOR",
        help="activations that share their largest threshold; may be given more than once",
    )
    parser.add_argument(
        "--eval",
        metavar="MODULE:FUNCTION",
        help="accuracy control: the function takes a Predictor, and returns a metric to keep; the "
        "model then runs in this process",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        default=0.01,
        metavar="DROP",
        help="how far the metric of --eval may fall below the float model's (0.01)",
    )
    parser.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not run the result, nor keep ops in float that err too much",
    )
    parser.add_argument(
        "--max-error",
        type=float,
        default=5.0,
        metavar="PERCENT",
        help="ops stay in float if an output errs by more than this, as rms of its variation (5)",
    )
    parser.add_argument(
        "--plan-for",
        type=one_of(["here"]),
        metavar="here",
        help="keep ops in float where that is faster on this machine, as measured (by rules alone)",
    )


def answer(options: dict[str, Any]) -> Answer:
    """Quantize, and say what was done, and how to run the result."""
    from ..static import quant_post_static
    from .callables import load_callable
    from .files import read_thresholds

    for name in ("save_model_filename", "save_params_filename"):
        if options[name] is None:
            del options[name]
    if options["scale_dict"] is not None:
        options["scale_dict"] = read_thresholds(options["scale_dict"])
    if options["eval"] is not None:
        options["eval"] = load_callable("--eval", options["eval"])
    options["quantize_model_path"] = options.pop("output")
    settle_process(options)
    data = data_words(options)
    options.update(take_data(options, options["model"]))
    result = quant_post_static(None, **renamed(options))
    thresholds = "\n".join(
        f"threshold {threshold:<12.6g} {name}" for name, threshold in result.thresholds().items()
    )
    text = in_cli_words(str(result)).replace("--data DATA", f"--data {data}")
    return Answer(text, result.to_dict(), thresholds, is_met=bool(result.quantized))
