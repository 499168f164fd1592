"""Every form in which pyquant writes a model, and every way in which each form is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from paddle_run import execute, predict, relative_error

from pyquant import fold, load_model, quant_post_static, save_model

BY_PADDLE = ("plain", "optimized")
BY_ONEDNN = ("unfused", "float")

Paths = tuple[Path, ...]


def converted(source: Path, directory: Path, data: Any) -> Paths:
    return save_model(load_model(source), directory, "m.pdmodel", "m.pdiparams")


def folded(source: Path, directory: Path, data: Any) -> Paths:
    model = load_model(source)
    fold(model)
    return save_model(model, directory, "m.pdmodel", "m.pdiparams")


def quantized(backend: str) -> Callable[[Path, Path, Any], Paths]:
    def write(source: Path, directory: Path, data: Any) -> Paths:
        result = quant_post_static(
            None, source, directory, data_loader=[data], deploy_backend=backend
        )
        assert result.params_path is not None
        return result.model_path, result.params_path

    return write


# The function that writes a form, how the form is run, and how far it may be from the original.
FORMS: dict[str, tuple[Callable[[Path, Path, Any], Paths], tuple[str, ...], float]] = {
    "convert": (converted, (*BY_PADDLE, *BY_ONEDNN, "executor"), 1e-5),
    "fold": (folded, (*BY_PADDLE, *BY_ONEDNN, "executor"), 1e-5),
    "QDQ": (quantized("QDQ"), (*BY_PADDLE, *BY_ONEDNN, "int8", "executor"), 0.05),
    "OneDNN": (quantized("OneDNN"), BY_ONEDNN, 0.05),
}


def check_runs(
    source: Path, form: str, directory: Path, name: str, data: Any, most: float | None = None
) -> None:
    """Check that a form of a model runs in every way, no further from the original than ``most``.

    None is the usual bound for small networks.
    """
    feed = {name: data}
    plain = converted(source, directory / "plain", data)
    expected = predict(*plain[:2], feed)[0]
    write, ways, usual = FORMS[form]
    model_path, params_path = write(source, directory / "out", data)
    for way in ways:
        if way == "executor":
            output = execute(model_path, params_path, feed)[0]
        else:
            output = predict(model_path, params_path, feed, way)[0]
        assert relative_error(output, expected) < (usual if most is None else most), way
