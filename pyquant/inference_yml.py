"""The preprocessing that PaddleX's exporters write beside a model, in inference.yml.

The steps are those of PaddleOCR (ppocr/data/imaug/operators.py, rec_img_aug.py), of PaddleClas
(deploy/python/preprocess.py) and of PaddleDetection (deploy/python/preprocess.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import CalibrationDataError, UnsupportedError
from .images import Finish, Images, Resize, in_layout, normalized, resized, sequence
from .program.parameters import Array

if TYPE_CHECKING:
    from PIL.Image import Image

FILENAME = "inference.yml"

_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
# Steps that do nothing to an image.
_NOTHING = ("KeepKeys", "LabelEncode")


def images_as_in(directory: str | Path, file: Path) -> Images:
    """Return the images of a directory, preprocessed as an ``inference.yml`` says.

    Raises:
        CalibrationDataError: the file cannot be read, or says nothing about preprocessing.
        UnsupportedError: it has a step that is not known, or PyYAML is not installed.
    """
    channels, resizes, finishes = "BGR", list[Resize](), list[Finish]()
    for name, options in _steps(file):
        if name == "DecodeImage":
            channels = str(options.get("img_mode", "BGR")).upper()
        elif name in _RESIZES:
            resizes.append(_RESIZES[name](options))
        elif name == "RecResizeImg":
            _, height, width = options["image_shape"]
            resizes.append(partial(_within, height=height, width=width))
            finishes += [normalized([0.5], [0.5], 1 / 255), partial(_padded, width=width)]
            finishes.append(in_layout("CHW"))
        elif name in _FINISHES:
            finishes.append(_FINISHES[name](options))
        elif not name.endswith(_NOTHING):
            raise UnsupportedError(
                f"{file}: its step '{name}' is not known. Give --image-size, --mean and --std, or "
                "arrays."
            )

    def resize(image: Image) -> Image:
        for step in resizes:
            image = step(image)
        return image

    return Images.prepared(directory, channels, resize, sequence(*finishes))


def _steps(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name and the options of each step."""
    try:
        import yaml
    except ImportError as error:
        raise UnsupportedError(
            f"{file}: reading it needs PyYAML. Install it: pip install 'pyquant-paddle[images]'"
        ) from error
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CalibrationDataError(f"{file}: cannot be read ({error}).") from error
    content = content if isinstance(content, dict) else {}
    if isinstance(content.get("Preprocess"), list):  # PaddleDetection's
        yield "DecodeImage", {"img_mode": "RGB"}
        for step in content["Preprocess"]:
            yield str(step.get("type")), step
        return
    steps = (content.get("PreProcess") or {}).get("transform_ops")
    if not steps:
        raise CalibrationDataError(
            f"{file}: it says nothing about preprocessing. Give --image-size, --mean and --std."
        )
    if not any("DecodeImage" in step for step in steps):  # PaddleClas's
        yield "DecodeImage", {"img_mode": "RGB"}
    for step in steps:
        for name, options in step.items():
            yield name, options or {}


def _resize_short(options: Mapping[str, Any]) -> Resize:
    """Return what PaddleClas's ResizeImage does: to a size, or to a length of the short side."""
    if "size" in options:
        return resized(*_pair(options["size"]))
    short = int(options["resize_short"])

    def resize(image: Image) -> Image:
        ratio = short / min(image.size)
        return resized(round(image.height * ratio), round(image.width * ratio))(image)

    return resize


def _crop(options: Mapping[str, Any]) -> Resize:
    """Return what cuts out the middle."""
    height, width = _pair(options["size"])

    def crop(image: Image) -> Image:
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))

    return crop


def _resize_for_detection(options: Mapping[str, Any]) -> Resize:
    """Return what PaddleOCR's DetResizeForTest does, whose sides are multiples of 32 or 128."""
    if "image_shape" in options:
        return resized(*options["image_shape"][-2:])
    long = options.get("resize_long")
    limit, kind = options.get("limit_side_len", 736), options.get("limit_type", "min")

    def resize(image: Image) -> Image:
        if long is not None:
            ratio = long / max(image.size)
            sides = [-(-int(side * ratio) // 128) * 128 for side in (image.height, image.width)]
            return resized(*sides)(image)
        side = max(image.size) if kind == "max" else min(image.size)
        is_beyond = side > limit if kind == "max" else side < limit
        ratio = limit / side if is_beyond else 1.0
        sides = [max(round(int(one * ratio) / 32) * 32, 32) for one in (image.height, image.width)]
        return resized(*sides)(image)

    return resize


def _resize_to_target(options: Mapping[str, Any]) -> Resize:
    """Return what PaddleDetection's Resize does."""
    if options.get("keep_ratio"):
        raise UnsupportedError(
            "inference.yml: Resize with keep_ratio is not known. Give --image-size, --mean and "
            "--std, or arrays."
        )
    return resized(*_pair(options["target_size"]))


def _normalize(options: Mapping[str, Any]) -> Finish:
    if options.get("norm_type") == "none":
        return normalized([0.0], [1.0], 1 / 255 if options.get("is_scale", True) else 1.0)
    default = 1 / 255 if options.get("is_scale", True) else 1.0
    scale = _number(options.get("scale") or default)
    means, stds = ([*map(float, options.get(one) or _IMAGENET[one])] for one in ("mean", "std"))
    return normalized(means, stds, scale)


def _number(value: Any) -> float:
    """Return a number, as 1./255. is."""
    above, _, below = str(value).partition("/")
    return float(above) / float(below or 1)


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return int(height), int(width)


def _within(image: Image, height: int, width: int) -> Image:
    """Resize to a height, and to a width of at most ``width``, as the ratio says."""
    return resized(height, min(width, -(-height * image.width // image.height)))(image)


def _padded(pixels: Array, width: int) -> Array:
    return np.pad(pixels, ((0, 0), (0, width - pixels.shape[1]), (0, 0)))


_RESIZES: dict[str, Callable[[Mapping[str, Any]], Resize]] = {
    "ResizeImage": _resize_short,
    "CropImage": _crop,
    "DetResizeForTest": _resize_for_detection,
    "Resize": _resize_to_target,
}
_FINISHES: dict[str, Callable[[Mapping[str, Any]], Finish]] = {
    "NormalizeImage": _normalize,
    "ToCHWImage": lambda _: in_layout("CHW"),
    "Permute": lambda _: in_layout("CHW"),
}
