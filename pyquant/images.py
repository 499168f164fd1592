"""A directory of images as calibration data, by Pillow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import CalibrationDataError, SettingError, UnsupportedError
from .program.parameters import Array

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
LAYOUTS, CHANNELS = ("CHW", "HWC"), ("RGB", "BGR")

Resize = Callable[["Image"], "Image"]
Finish = Callable[[Array], Array]
"""From float32 [height, width, 3] to what the model takes."""


class Images:
    """The images of a directory and of those below it, each as one sample of a model.

    Give it as ``sample_generator``. Preprocess as in production: calibration on images of another
    scale or order of channels gives thresholds of no use.

    Example:
        >>> import numpy as np, tempfile, pathlib
        >>> from PIL import Image
        >>> directory = pathlib.Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (64, 48), "white").save(directory / "a.png")
        >>> images = Images(directory, size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> len(images)
        1
        >>> next(iter(images)).shape
        (3, 32, 32)
    """

    def __init__(
        self,
        directory: str | Path,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        scale: float = 1 / 255,
        layout: str = "CHW",
        channels: str = "RGB",
    ) -> None:
        """Look the files up; they are read while the samples are drawn.

        A sample is float32: (pixel * scale - mean) / std, of the image resized to ``size``.

        Args:
            directory: of the images: .bmp, .jpg, .png, .tif and .webp.
            size: height and width.
            mean: of the scaled pixels: one number, or one for each channel.
            std: likewise.
            scale: what a pixel of 0 to 255 is multiplied by.
            layout: ``"CHW"``, or ``"HWC"`` for a model with the channels last.
            channels: their order: ``"RGB"``, or ``"BGR"`` as OpenCV reads images.

        Raises:
            CalibrationDataError: there is no image.
            SettingError: an argument is wrong.
            UnsupportedError: Pillow is not installed.
        """
        for name, value, choices in (
            ("layout", layout, LAYOUTS),
            ("channels", channels, CHANNELS),
        ):
            if value not in choices:
                raise SettingError(f"{name}: {value!r} is not possible; give one of {choices}.")
        self._find(directory, channels)
        self._resize: Resize = resized(*size)
        self._finish: Finish = sequence(normalized(mean, std, scale), in_layout(layout))

    @classmethod
    def prepared(
        cls, directory: str | Path, channels: str, resize: Resize, finish: Finish
    ) -> Images:
        """Return images with any preprocessing: as Pillow's image, then as an array."""
        self = cls.__new__(cls)
        self._find(directory, channels)
        self._resize, self._finish = resize, finish
        return self

    def _find(self, directory: str | Path, channels: str) -> None:
        self._channels = channels
        self._image = _pillow()
        self._files = image_files(Path(directory))
        if not self._files:
            raise CalibrationDataError(
                f"{directory}: there is no image in it ({', '.join(SUFFIXES)})."
            )

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self._files)

    def __iter__(self) -> Iterator[Array]:
        """Yield a sample for each image, in the order of the paths."""
        for file in self._files:
            try:
                with self._image.open(file) as image:
                    resized_image = self._resize(image.convert("RGB"))
            except (OSError, ValueError, self._image.DecompressionBombError) as error:
                raise CalibrationDataError(
                    f"{file}: cannot be read as an image ({error}). Remove it."
                ) from error
            pixels = np.asarray(resized_image, np.float32)
            yield self._finish(pixels[..., ::-1] if self._channels == "BGR" else pixels)


def image_files(directory: Path) -> list[Path]:
    """Return the images of a directory and of those below it, in the order of their paths."""
    return sorted(path for path in directory.rglob("*") if path.suffix.lower() in SUFFIXES)


def resized(height: int, width: int) -> Resize:
    """Return what resizes an image, bilinearly."""
    if min(height, width) < 1:
        raise SettingError(f"size: {height} x {width} is not possible. Give height and width.")
    bilinear = _pillow().Resampling.BILINEAR
    return lambda image: image.resize((width, height), bilinear)


def normalized(mean: Sequence[float], std: Sequence[float], scale: float) -> Finish:
    """Return what scales and normalizes an array."""
    means, stds = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if means.size not in (1, 3) or stds.size not in (1, 3) or not stds.all():
        raise SettingError(
            f"mean and std: {[*mean]} and {[*std]} are not possible. Give one number or three; no "
            "std may be 0."
        )
    return lambda pixels: (pixels * np.float32(scale) - means) / stds


def in_layout(layout: str) -> Finish:
    """Return what puts the channels of an array first, for ``"CHW"``."""
    axes = (2, 0, 1) if layout == "CHW" else (0, 1, 2)
    return lambda pixels: np.ascontiguousarray(pixels.transpose(axes))


def sequence(*steps: Finish) -> Finish:
    """Return what does one step after another."""

    def finish(pixels: Array) -> Array:
        for step in steps:
            pixels = step(pixels)
        return pixels

    return finish


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise UnsupportedError(
            "images need Pillow. Install it: pip install 'pyquant-paddle[images]'"
        ) from error
    return Image
