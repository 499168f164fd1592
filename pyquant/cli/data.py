"""The data that options describe."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_OPTIONS = ("image_size", "mean", "std", "scale", "layout", "channels")


def data_words(options: Mapping[str, Any]) -> str:
    """Return what follows ``--data``, with the options of images, for commands to paste."""
    words = [options["data"] or "DATA"]
    for name in _OPTIONS:
        value = options[name]
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def take_data(options: dict[str, Any], model: Path) -> dict[str, Any]:
    """Take the options of the data out; return the argument of pyquant's functions for them.

    Raises SettingError if they do not say how the images of a directory become samples.
    """
    text, prepared = options.pop("data"), {name: options.pop(name) for name in _OPTIONS}
    if text is None:
        return {}
    from .callables import load_callable, names_callable

    directory = Path(text)
    if not directory.exists() and names_callable(text):
        return {"data_loader": load_callable("--data", text)}
    if not directory.is_dir() or any(directory.glob("*.np[yz]")):
        return {"sample_generator": text}
    return {"sample_generator": _images(directory, model, prepared)}


def _images(directory: Path, model: Path, prepared: dict[str, Any]) -> Any:
    from ..errors import SettingError
    from ..images import Images, image_files
    from ..inference_yml import FILENAME, images_as_in

    if not image_files(directory):
        return str(directory)  # whose error names what may be in it
    given = {name: value for name, value in prepared.items() if value is not None}
    described = _beside(model, FILENAME)
    if not given and described.is_file():
        return images_as_in(directory, described)
    missing = [name for name in ("image_size", "mean", "std") if name not in given]
    if missing:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise SettingError(
            f"--data {directory}: it holds images; {options} are missing. Preprocess as in "
            f"production. Without them, {FILENAME} beside the model would say it; there is "
            f"{'one, but other options are given' if described.is_file() else 'none'}."
        )
    height, *width = given.pop("image_size")
    return Images(directory, size=(height, *(width or [height])), **given)


def _beside(model: Path, name: str) -> Path:
    """Return the path of a file in a model's directory, or below it, as dynamic mode writes it."""
    from ..program.model import QUANTIZED

    if not model.is_dir():
        return model.parent / name
    below = model / QUANTIZED / name
    return below if below.is_file() else model / name
