"""The ways to treat a network: a row for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyquant

from .. import paddle_ptq
from ..methods import ACCURATE_OPTIONS, Paths
from ..networks import add_op_roles
from .networks import Feed

Result = tuple[Paths, Any]


@dataclass(frozen=True)
class Mode:
    """A way to treat a network.

    Attributes:
        treat: writes the files of a model into a directory, given the float files and batches;
            returns their paths, and what pyquant says of them.
        run: how they run, as in `bench.predictor`.
    """

    treat: Callable[[Paths, list[Feed], Path], Result]
    run: str = "float"


def _original(paths: Paths, _: list[Feed], __: Path) -> Result:
    return paths, None


def _folded(paths: Paths, _: list[Feed], directory: Path) -> Result:
    model = load(paths)
    pyquant.fold(model)
    return save(model, directory), None


def _dynamic(bits: int, paths: Paths, _: list[Feed], directory: Path) -> Result:
    model, params = paths
    return _of(
        pyquant.quant_post_dynamic(
            model.parent, directory, model.name, params.name, weight_bits=bits
        )
    )


def _static(options: Mapping[str, Any], paths: Paths, feeds: list[Feed], directory: Path) -> Result:
    result = pyquant.quant_post_static(
        None,
        paths[0].parent,
        directory,
        data_loader=feeds,
        model_filename=paths[0].name,
        params_filename=paths[1].name,
        **options,
    )
    return _of(result)


def _paddle(paths: Paths, feeds: list[Feed], directory: Path) -> Result:
    return paddle_ptq.quantize_feeds(_legacy(paths, directory), feeds, directory, "avg"), None


def _legacy(paths: Paths, directory: Path) -> Paths:
    """Return a ``.pdmodel`` that Paddle's PTQ takes."""
    if paths[0].suffix != ".json":
        return paths
    model = load(paths)
    saved = save(model, directory / "legacy")
    add_op_roles(model, saved[0])
    return saved


def load(paths: Paths) -> pyquant.Model:
    """Read a model."""
    return pyquant.load_model(paths[0].parent, paths[0].name, paths[1].name)


def save(model: pyquant.Model, directory: Path) -> Paths:
    """Write a model as ``.pdmodel``."""
    program, params = pyquant.save_model(model, directory, "model.pdmodel", "model.pdiparams")
    return program, params


def _of(result: pyquant.QuantizationResult) -> Result:
    assert result.params_path is not None
    return (result.model_path, result.params_path), result


FLOAT, FOLD, PADDLE = "float", "fold", "paddle"

MODES: Mapping[str, Mode] = {
    FLOAT: Mode(_original),
    FOLD: Mode(_folded),
    "dynamic8": Mode(partial(_dynamic, 8)),
    "dynamic16": Mode(partial(_dynamic, 16)),
    "qdq": Mode(partial(_static, {"deploy_backend": "QDQ"}), "int8"),
    "default": Mode(partial(_static, {})),
    "accurate": Mode(partial(_static, ACCURATE_OPTIONS)),
    PADDLE: Mode(_paddle, "int8"),
}
