"""``pyquant convert``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .answer import Answer
from .arguments import add_model, renamed
from .choices import one_of

if TYPE_CHECKING:
    from ..program.model import Model

_BACKENDS = ("OpenVINO",)

HELP = "a float model as .pdmodel or as .onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_model(parser)
    parser.add_argument(
        "output", type=Path, metavar="OUT", help="directory of the result, or an .onnx file"
    )
    parser.add_argument(
        "--opset", type=int, metavar="N", help="version of ONNX's operators, 17 to 24 (17)"
    )
    parser.add_argument(
        "--deploy-backend",
        type=one_of(_BACKENDS),
        metavar="TARGET",
        help=f"write other ops for those that it lacks: {', '.join(_BACKENDS)}",
    )


def answer(options: dict[str, Any]) -> Answer:
    """Write the model."""
    from ..program.model import load_model

    outputs = {name: options.pop(name) for name in ("output", "opset", "deploy_backend")}
    paths = write(load_model(**renamed(options)), **outputs)
    return Answer("\n".join(paths), {"files": paths})


def write(model: Model, output: Path, opset: int | None, deploy_backend: str | None) -> list[str]:
    """Write a float model as an .onnx file, or as .pdmodel under the name that it had.

    Returns the paths of the files.
    """
    from ..errors import SettingError
    from ..program.misfusion import keep_apart
    from ..program.model import save_model
    from ..program.onnx_model.export import OPSET, is_onnx, save_onnx
    from ..program.targets.openvino import check_readable, rewrite

    if is_onnx(output):
        if deploy_backend is not None:
            raise SettingError(
                f"--deploy-backend {deploy_backend}: it reads any {output.name}. Leave it out."
            )
        return [*map(str, save_onnx(model, output, OPSET if opset is None else opset))]
    if opset is not None:
        raise SettingError(f"--opset {opset}: it is for OUT.onnx, not for {output}. Leave it out.")
    keep_apart(model)
    if deploy_backend is not None:
        check_readable(model)
        rewrite(model)
    name = model.model_path.stem
    return [*map(str, save_model(model, output, f"{name}.pdmodel", f"{name}.pdiparams"))]
