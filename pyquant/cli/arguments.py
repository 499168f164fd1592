"""The options that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .answer import Answer
from .choices import (
    CHANNELS,
    DEPLOY_BACKENDS,
    LAYOUTS,
    PROCESSORS,
    one_of,
)
from .words import PARAMETERS

CHECKPOINT_EVERY = 50

_DATA = (
    "an .npz file of one array per input, by the input's name, axis 0 being the sample; an .npy "
    "file for a model of one input; a directory of such files, or of images; or module:function, "
    "which returns batches"
)


_KINDS = {
    "channel_wise_abs_max": "channel_wise_abs_max (the largest value of each channel, or group)",
    "abs_max": "abs_max (that of the tensor)",
    "mse": "mse (the least squared error of each group: the default for groups)",
}


def renamed(options: dict[str, Any]) -> dict[str, Any]:
    """Return options by the names of pyquant's parameters."""
    return {PARAMETERS.get(name, name): value for name, value in options.items()}


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print one JSON object: docs/cli.md")
    both = group.add_mutually_exclusive_group()
    both.add_argument("--quiet", action="store_true", help="print errors alone")
    both.add_argument("--verbose", action="store_true", help="print more, and what takes time")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the model and its files."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="the model's directory, or its program's path"
    )
    parser.add_argument(
        "--model-filename", metavar="NAME", help="the program's file, if it cannot be guessed"
    )
    parser.add_argument(
        "--params-filename", metavar="NAME", help="the combined parameter file, likewise"
    )


def add_pair(parser: argparse.ArgumentParser) -> None:
    """Add a float model and a quantized one."""
    parser.add_argument(
        "float_model", type=Path, metavar="FLOAT", help="its directory, or its program's path"
    )
    parser.add_argument(
        "int8_model", type=Path, metavar="INT8", help="likewise, what static or dynamic wrote"
    )
    for side in ("float", "int8"):
        parser.add_argument(
            f"--{side}-params", metavar="NAME", help="its parameter file, if it cannot be guessed"
        )


def load_pair(options: dict[str, Any]) -> tuple[Any, Any]:
    """Take the options of `add_pair` out, and load the two models."""
    from ..program.model import load_model

    first, second = (
        load_model(options.pop(f"{side}_model"), params_filename=options.pop(f"{side}_params"))
        for side in ("float", "int8")
    )
    return first, second


def add_result(
    parser: argparse.ArgumentParser,
    op_types: Sequence[str],
    kinds: Sequence[str],
    kind: str | None = None,
    output: str = "directory of the result",
) -> None:
    """Add what both modes take; weights have one of ``kinds`` of steps, by default ``kind``."""
    parser.add_argument("-o", "--output", type=Path, required=True, help=output)
    parser.add_argument(
        "--save-model-filename", metavar="NAME", help="the result's program (model.pdmodel)"
    )
    parser.add_argument(
        "--save-params-filename", metavar="NAME", help="its parameters (model.pdiparams)"
    )
    add_ops(parser, op_types)
    parser.add_argument(
        "--weight-quantize-type",
        default=kind,
        type=one_of(kinds),
        metavar="TYPE",
        help=f"what sets the steps of weights: {', '.join(map(_KINDS.__getitem__, kinds))}",
    )


def add_ops(parser: argparse.ArgumentParser, op_types: Sequence[str]) -> None:
    """Add which ops are quantized."""
    parser.add_argument(
        "--op-types",
        nargs="+",
        default=tuple(op_types),
        type=one_of(op_types),
        metavar="TYPE",
        help=f"op types to quantize (all of {', '.join(op_types)})",
    )
    parser.add_argument("--skip", nargs="+", metavar="TENSOR", help="keep ops of these in float")


def add_samples(
    parser: argparse.ArgumentParser, source: argparse._ActionsContainer | None = None
) -> None:
    """Add the data; ``source`` gets ``--data``, which is required if ``source`` is None."""
    (source or parser).add_argument("--data", required=source is None, help=_DATA)
    parser.add_argument("--batch-size", type=positive, default=8, help="samples per batch (8)")
    parser.add_argument(
        "--batches", type=positive, metavar="N", help="use at most this many batches"
    )
    images = parser.add_argument_group(
        "images", "how the images of a directory become samples, unless inference.yml says it"
    )
    images.add_argument(
        "--image-size", type=positive, nargs="+", metavar="PIXELS", help="height and width, or both"
    )
    images.add_argument("--mean", type=float, nargs="+", help="of scaled pixels, one or three")
    images.add_argument("--std", type=float, nargs="+", help="likewise")
    images.add_argument("--scale", type=float, help="of pixels from 0 to 255 (1/255)")
    images.add_argument("--layout", type=one_of(LAYOUTS), metavar="ORDER", help="CHW or HWC (CHW)")
    images.add_argument(
        "--channels", type=one_of(CHANNELS), metavar="ORDER", help="RGB or BGR (RGB)"
    )


def add_calibration(
    parser: argparse.ArgumentParser, source: argparse._ActionsContainer | None = None
) -> None:
    """Add the options of a calibration."""
    add_samples(parser, source)
    if source is not None:
        source.add_argument("--calibration", type=Path, help="what calibrate or merge wrote")
    parser.add_argument(
        "--deploy-backend",
        type=one_of(DEPLOY_BACKENDS),
        metavar="TARGET",
        help=f"where the model will run: {', '.join(DEPLOY_BACKENDS)} (a CPU, by oneDNN)",
    )
    parser.add_argument(
        "--processors",
        default=PROCESSORS[0],
        type=one_of(PROCESSORS),
        metavar="WHICH",
        help="any or vnni: integers that are right on all processors, or on those with VNNI (any)",
    )
    parser.add_argument(
        "--full-quantize",
        action="store_true",
        help="quantize all that can run as int8 there, even if that loses accuracy or time",
    )
    parser.add_argument(
        "--no-optimize",
        dest="optimize_model",
        action="store_false",
        help="do not fold the model first",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="keep the calibration here while it runs; resume from it if it exists",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=positive,
        default=CHECKPOINT_EVERY,
        metavar="N",
        help=f"save it after every N batches ({CHECKPOINT_EVERY})",
    )
    parser.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="take at most this much memory, such as 2GB: the model runs in segments (what there "
        "is)",
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="run the data on a Ray cluster ('local' starts one here)"
    )
    add_isolation(parser)


def add_isolation(parser: argparse.ArgumentParser) -> None:
    """Add whether the model has a process of its own."""
    parser.add_argument(
        "--no-isolate",
        dest="isolate",
        action="store_false",
        help="run the model in this process, which it may end, instead of one of its own",
    )


def answer_isolated(
    answer: Callable[[dict[str, Any]], Answer], options: dict[str, Any], *models: str
) -> Answer:
    """Return what ``answer(options)`` returns, in a process of its own unless that is not wanted.

    ``models`` are the options that name the models.
    """
    if not options.pop("isolate"):
        return answer(options)
    from ..isolation import run_isolated

    paths = [options[name] for name in models]
    answered: Answer = run_isolated(answer, {"options": options}, paths)
    return answered


def settle_process(options: dict[str, Any]) -> None:
    """Turn ``--ray`` into an engine. What needs this process leaves no other one to the model."""
    engine = options["engine"] = _take_engine(options)
    options["isolate"] &= engine is None and options.get("eval") is None


def _take_engine(options: dict[str, Any]) -> Any:
    """Take ``--ray`` out; connect to that cluster and return its engine, or None."""
    address = options.pop("ray")
    if address is None:
        return None
    from ..errors import SettingError, UnsupportedError

    try:
        import ray
    except ImportError as error:
        raise UnsupportedError(
            f"--ray {address}: Ray is not installed. Install it: pip install 'pyquant-paddle[ray]'"
        ) from error
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SettingError(f"--ray {address}: there is no Ray cluster ({error}).") from error
    return ray


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number of at least 1")
    return int(text)
