"""``pyquant verify``."""

from __future__ import annotations

import argparse
from typing import Any

from .answer import Answer
from .arguments import add_isolation, add_pair, add_samples, answer_isolated, load_pair, renamed
from .data import take_data

HELP = "run a quantized model beside its float one: errors of the outputs, and times"

_NEXT = "'pyquant compare', with the same arguments, says in which op the error grows most."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_pair(parser)
    add_samples(parser)
    add_isolation(parser)
    parser.add_argument(
        "--max-error",
        type=float,
        default=5.0,
        metavar="PERCENT",
        help="end with exit code 3 if an output errs by more, as rms in percent of its variation "
        "(5)",
    )


def answer(options: dict[str, Any]) -> Answer:
    """Run both models, and say how far they are apart."""
    return answer_isolated(_answer, options, "float_model", "int8_model")


def _answer(options: dict[str, Any]) -> Answer:
    from ..program.onnx_model.export import is_onnx
    from ..verifying import verify

    bar = options.pop("max_error")
    options.update(take_data(options, options["float_model"]))
    pair = _with_onnx(options) if is_onnx(options["int8_model"]) else load_pair(options)
    found = verify(*pair, **renamed(options))
    is_met = found.error_percent <= bar
    outcome = f"met: the bar is {bar:g} %" if is_met else f"missed: the bar is {bar:g} %. {_NEXT}"
    data = {**found.to_dict(), "max_error_percent": bar, "met": is_met}
    return Answer(f"{found}\n{outcome}", data, is_met=is_met)


def _with_onnx(options: dict[str, Any]) -> tuple[Any, Any]:
    """Take the options of `add_pair` out, and load the float model."""
    from ..errors import SettingError
    from ..program.model import load_model

    path, params = options.pop("int8_model"), options.pop("int8_params")
    if params is not None:
        raise SettingError(f"--int8-params {params}: {path} holds its parameters. Leave it out.")
    name = options.pop("float_model")
    return load_model(name, params_filename=options.pop("float_params")), path
