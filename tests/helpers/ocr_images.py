"""Images that the pretrained models of PP-OCRv4 and PP-OCRv5 take."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.ocr import lines, models, pages

RENDERERS = {
    models.RECOGNITION: lines.render_lines,
    models.DETECTION: partial(pages.render_pages, size=(320, 320)),
    models.DIRECTION: lines.render_crops,
}
V5_RENDERERS = {
    models.V5_RECOGNITION: RENDERERS[models.RECOGNITION],
    models.V5_DETECTION: RENDERERS[models.DETECTION],
}


def inputs(name: str, count: int) -> Any:
    """Return ``count`` images for the model called ``name``."""
    images, _ = (RENDERERS | V5_RENDERERS)[name](count, lines.CALIBRATION_SEED)
    return images
