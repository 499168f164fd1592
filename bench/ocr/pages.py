"""Pages of text rendered as images, as PP-OCR's detection model takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .lines import choose_color, choose_colors, choose_text, worn

SIZE = (640, 640)
_LINES = (6, 16)  # to be placed on a page; those that find no room are left out
_PLACES = 20  # to be tried for a line
_FONT_SIZES = (12.0, 40.0)
_MARGIN = 4
_INVERTED = 0.25  # of the pages have light ink on dark paper

# PP-OCR's detection was trained with ImageNet's mean and standard deviation, but applies those of
# red, green and blue to blue, green and red.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)

Images = NDArray[np.float32]
Boxes = NDArray[np.float64]


class _Line(NamedTuple):
    text: str
    size: float
    start: tuple[float, float]
    box: tuple[float, float, float, float]


def render_pages(count: int, seed: int, size: tuple[int, int] = SIZE) -> tuple[Images, list[Boxes]]:
    """Render random pages.

    Args:
        count: the number of pages.
        seed: of the random texts, places and looks.
        size: height and width, multiples of 32.

    Returns:
        Images, float32[count, 3, height, width], normalised by ImageNet's mean and deviation, and
        for each page the boxes of its lines, float64[lines, 4]: left, top, right, bottom. A box is
        as high as the font's ascent and descent, whatever its letters.
    """
    if size[0] % 32 or size[1] % 32:
        raise ValueError(f"size: {size} is not a multiple of 32, by which detection downsamples.")
    generator = np.random.default_rng(seed)
    pages, boxes = zip(*(_page(size, generator) for _ in range(count)))
    return np.stack([_normalized(page) for page in pages]), list(boxes)


def _page(size: tuple[int, int], generator: np.random.Generator) -> tuple[Image.Image, Boxes]:
    """Draw lines at random places, and return the page and their boxes."""
    height, width = size
    light, dark = choose_colors(generator)
    inverted = generator.random() < _INVERTED
    image = Image.new("RGB", (width, height), dark if inverted else light)
    draw = ImageDraw.Draw(image)
    placed: list[_Line] = []
    for _ in range(generator.integers(*_LINES)):
        line = _placed(draw, size, placed, generator)
        if line is not None:
            placed.append(line)
            ink = choose_color(generator, *((176, 256) if inverted else (0, 80)))
            draw.text(line.start, line.text, ink, ImageFont.load_default(line.size))
    return worn(image, generator), np.array([line.box for line in placed], np.float64)


def _placed(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    others: Sequence[_Line],
    generator: np.random.Generator,
) -> _Line | None:
    """Find room for a random line; None if there is none."""
    height, width = size
    text, font_size = choose_text(generator), float(generator.uniform(*_FONT_SIZES))
    font = ImageFont.load_default(font_size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # because it has a size
    left, _, right, _ = draw.textbbox((0, 0), text, font=font)
    high = sum(font.getmetrics())
    room = (width - 2 * _MARGIN - (right - left), height - 2 * _MARGIN - high)
    if min(room) < 0:
        return None
    for _ in range(_PLACES):
        x = _MARGIN - left + float(generator.integers(0, int(room[0]) + 1))
        y = _MARGIN + float(generator.integers(0, int(room[1]) + 1))
        line = _Line(text, font_size, (x, y), (x + left, y, x + right, y + high))
        if all(_apart(line, other) for other in others):
            return line
    return None


def _apart(a: _Line, b: _Line) -> bool:
    """Return whether two lines are apart: by the larger font's height, vertically by half of it."""
    gap = max(a.size, b.size)
    return (
        a.box[0] - b.box[2] > gap
        or b.box[0] - a.box[2] > gap
        or a.box[1] - b.box[3] > gap / 2
        or b.box[1] - a.box[3] > gap / 2
    )


def _normalized(page: Image.Image) -> NDArray[np.float32]:
    bgr = np.asarray(page, np.float32)[:, :, ::-1]
    return np.ascontiguousarray(((bgr / 255 - _MEAN) / _STD).transpose(2, 0, 1))
