"""Lines of text rendered as images, as PP-OCR's recognition and direction models take them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Color = tuple[int, int, int]

HEIGHT, WIDTH = 48, 320
CROP_WIDTH = 192
BATCH = 8
CALIBRATION_SEED, TEST_SEED = 1, 2

_WORDS = """
the of and to in is you that it he was for on are as with his they at be this from have or by
one had not but what all were when we there can an your which their said if do will each about
how up out them then she many some so these would other into has more her two like him see time
could no make than first been its who now people my made over did down only way find use may
water long little very after words called just where most know get through back much before go
good new write our used me man too any day same right look think also around another came come
work three word must because does part even place well such here take why things help put years
different away again off went old number great tell men say small every found still between name
should home big give air line set own under read last never us left end along while might next
sound below saw something thought both few those always looked show large often together asked
house world going want school important until form food keep children feet land side without boy
once animals life enough took sometimes four head above kind began almost live page got earth
need far hand high year mother light parts country father let night following picture being
study second eyes soon times story boys since white days ever paper hard near sentence better
best across during today others however sure means knew try told young miles sun ways thing
whole hear example heard several change answer room invoice total price account street order
date phone number receipt ticket station airport
""".split()  # noqa: SIM905 (a list would take a line per word)


def render_lines(count: int, seed: int) -> tuple[NDArray[np.float32], list[str]]:
    """Render random lines.

    Returns:
        Images, float32[count, 3, 48, 320] in [-1, 1], and their texts.
    """
    generator = np.random.default_rng(seed)
    texts = [choose_text(generator) for _ in range(count)]
    images = [_image(text, generator) for text in texts]
    return np.stack([_normalized(image) for image in images]), texts


def render_crops(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Render random lines for the direction classifier, every second one upside down.

    Returns:
        Images, float32[count, 3, 48, 192] in [-1, 1], and their classes: 1 is upside down.
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = [
        _image(choose_text(generator), generator).rotate(180 * int(label), expand=True)
        for label in labels
    ]
    return np.stack([_normalized(image, CROP_WIDTH) for image in images]), labels


def batches(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Cut ``images`` into batches of `BATCH`; the last one may be smaller."""
    return [images[start : start + BATCH] for start in range(0, len(images), BATCH)]


def choose_text(generator: np.random.Generator) -> str:
    """Choose one to three words and numbers."""
    return " ".join(_token(generator) for _ in range(generator.integers(1, 4)))


def _token(generator: np.random.Generator) -> str:
    kind = generator.random()
    word = str(generator.choice(_WORDS))
    if kind < 0.55:
        return word
    if kind < 0.7:
        return word.capitalize()
    if kind < 0.78:
        return word.upper()
    if kind < 0.9:
        return str(generator.integers(0, 10 ** int(generator.integers(1, 6))))
    if kind < 0.95:
        return f"${generator.integers(1, 1000)}.{generator.integers(0, 100):02}"
    return f"{generator.integers(1, 29):02}/{generator.integers(1, 13):02}"


def _image(text: str, generator: np.random.Generator) -> Image.Image:
    """Draw one line, cropped as a detector would, with random colours, slant, blur and noise."""
    paper, ink = choose_colors(generator)
    font = ImageFont.load_default(float(generator.uniform(24, 34)))
    left, top, right, bottom = font.getbbox(text)
    margins = generator.uniform(2, 5, 4)
    size = (right - left + margins[0] + margins[1], bottom - top + margins[2] + margins[3])
    image = Image.new("RGB", (int(size[0]), int(size[1])), paper)
    draw = ImageDraw.Draw(image)
    draw.text((margins[0] - left, margins[2] - top), text, font=font, fill=ink)
    angle = float(generator.normal(0, 0.5))
    image = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=paper)
    return worn(image, generator)


def worn(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Blur, and add noise."""
    image = image.filter(ImageFilter.GaussianBlur(float(generator.uniform(0, 0.8))))
    noise = generator.normal(0, generator.uniform(0, 15), (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def choose_colors(generator: np.random.Generator) -> tuple[Color, Color]:
    """Choose a light paper and a dark ink."""
    return choose_color(generator, 150, 256), choose_color(generator, 0, 80)


def choose_color(generator: np.random.Generator, low: int, high: int) -> Color:
    """Choose a colour with red, green and blue all in [low, high)."""
    red, green, blue = generator.integers(low, high, 3)
    return int(red), int(green), int(blue)


def _normalized(image: Image.Image, full_width: int = WIDTH) -> NDArray[np.float32]:
    """Scale to the model's height, and pad with zeros to its width, as PP-OCR does."""
    width = min(full_width, round(image.width * HEIGHT / image.height))
    scaled = image.resize((width, HEIGHT), Image.Resampling.BILINEAR)
    padded = np.zeros((3, HEIGHT, full_width), np.float32)
    padded[:, :, :width] = (np.asarray(scaled, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5
    return padded
