"""Photographs that packages carry, and pages and puzzles made of them."""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .sources import package_file

Array = NDArray[Any]

_PHOTOS = {
    "calibration": (
        ("skimage", "data/astronaut.png"),
        ("skimage", "data/chelsea.png"),
        ("skimage", "data/motorcycle_left.png"),
        ("ultralytics", "assets/bus.jpg"),
        ("sklearn", "datasets/images/china.jpg"),
    ),
    "test": (
        ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
        ("skimage", "data/coffee.png"),
        ("skimage", "data/rocket.jpg"),
        ("skimage", "data/motorcycle_right.png"),
        ("sklearn", "datasets/images/flower.jpg"),
        ("ultralytics", "assets/zidane.jpg"),
    ),
}
_SEEDS = {"calibration": 1, "test": 2}
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_PAGE = (608, 800)
_LINE, _GAP = 15, 10


def crops(part: str, count: int, size: int) -> list[Image.Image]:
    """Return squares of the photographs of a part, at random places, some mirrored."""
    generator = np.random.default_rng(_SEEDS[part])
    photos = _photos(part)
    return [_crop(photos[index % len(photos)], size, generator) for index in range(count)]


def pages(part: str, count: int) -> list[Image.Image]:
    """Return pages of English paragraphs, headings and photographs, 608 × 800."""
    generator = np.random.default_rng(_SEEDS[part])
    photos = _photos(part)
    return [_page(photos, generator) for _ in range(count)]


def page_corners(part: str, count: int, size: int = 224) -> tuple[Array, Array]:
    """Return upper parts of pages, turned clockwise by quarters, normalised; and how many."""
    generator = np.random.default_rng(_SEEDS[part])
    turns = np.arange(count) % 4
    squares = []
    for page, turn in zip(pages(part, count), turns):
        left, top = (int(value) for value in generator.integers(0, (page.width - 400, 60)))
        square = page.crop((left, top, left + 400, top + 400)).resize((size, size))
        squares.append(normalized(square.rotate(-90 * int(turn))))
    return np.stack(squares), turns


def puzzles(part: str, count: int, size: int = 416) -> Array:
    """Return photographs with large letters in them, as puzzles to be clicked on have, 0 to 255."""
    generator = np.random.default_rng(_SEEDS[part])
    found = []
    for image in crops(part, count, size):
        draw = ImageDraw.Draw(image)
        for _ in range(4):
            x, y = generator.integers(20, size - 80, 2)
            letter = chr(int(generator.integers(65, 91)))
            color = tuple(int(value) for value in generator.integers(0, 256, 3))
            draw.text((int(x), int(y)), letter, color, ImageFont.load_default(60.0), stroke_width=2)
        found.append(np.asarray(image, np.float32)[:, :, ::-1].transpose(2, 0, 1))
    return np.ascontiguousarray(np.stack(found))


def faces(size: int) -> tuple[Array, Array]:
    """Return scikit-image's 100 faces and 100 squares without one, in [-1, 1], NHWC, and labels."""
    gray = np.load(package_file("skimage", "data/lfw_subset.npy"))
    scaled = [
        np.asarray(Image.fromarray((255 * one).astype(np.uint8)).resize((size, size)))
        for one in gray
    ]
    images = (np.stack(scaled).astype(np.float32) - 127.5) / 128
    order = np.random.default_rng(0).permutation(len(images))
    labels = (np.arange(len(images)) < len(images) // 2).astype(np.int64)
    return np.repeat(images[..., None], 3, axis=-1)[order], labels[order]


def normalized(image: Image.Image) -> Array:
    """Return an image by ImageNet's mean and deviation, float32[3, h, w]."""
    values = np.asarray(image.convert("RGB"), np.float32) / 255
    return np.ascontiguousarray(((values - _MEAN) / _STD).transpose(2, 0, 1))


def between_0_and_1(image: Image.Image) -> Array:
    """Return an image as float32[3, h, w] in [0, 1]."""
    values = np.asarray(image.convert("RGB"), np.float32) / 255
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _photos(part: str) -> list[Image.Image]:
    return [Image.open(package_file(*where)).convert("RGB") for where in _PHOTOS[part]]


def _crop(photo: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    side = int(min(photo.size) * generator.uniform(0.5, 1))
    left, top = (int(generator.integers(0, length - side + 1)) for length in photo.size)
    square = photo.crop((left, top, left + side, top + side)).resize((size, size))
    return square if generator.random() < 0.5 else square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _page(photos: list[Image.Image], generator: np.random.Generator) -> Image.Image:
    page = Image.new("RGB", _PAGE, (255, 255, 255))
    draw = ImageDraw.Draw(page)
    words = topics[str(generator.choice(sorted(topics)))].split()
    top, start = 30, 0
    draw.text((60, top), " ".join(words[:4]), (0, 0, 0), ImageFont.load_default(26.0))
    top += 50
    while top < 720 and start < len(words):
        if generator.random() < 0.25:
            photo = photos[int(generator.integers(len(photos)))].resize((300, 180))
            page.paste(photo, (150, top))
            top += 190
            continue
        for _ in range(int(generator.integers(3, 9))):
            line = " ".join(words[start : start + 11])[:85]
            draw.text((50, top), line, (20, 20, 20), ImageFont.load_default(12.0))
            top, start = top + _LINE, start + 11
        top += _GAP
    return page
