"""Batches of growing values for `programs.conv_net`, and models quantized from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import programs
from static_runs import model_bytes

from pyquant import quant_post_static

BATCHES = [programs.random((3, 3, 8, 8), seed) * np.float32(1.5**seed) for seed in range(13)]


def quantized(source: Path, output: Path, algo: str = "KL", **arguments: Any) -> bytes:
    """Return the bytes of the quantized model; that of one algorithm is checked, too."""
    verify = algo == "KL"
    result = quant_post_static(None, source, output, algo=algo, verify=verify, **arguments)
    return model_bytes(result.model_path.parent)
