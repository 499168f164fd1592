"""Other tools that compute the same. Each is optional: absent, it is left out with a word."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def paddle_kl(counts: NDArray[np.uint64], width: float) -> dict[str, Callable[[], Any]]:
    """Return Paddle's KL search on a histogram, by its name."""
    from paddle.static.quantization.cal_kl_threshold import cal_kl_threshold

    logging.getLogger("paddle.static.quantization.cal_kl_threshold").setLevel(logging.CRITICAL)
    signed = counts.astype(np.int64)
    return {"Paddle": lambda: cal_kl_threshold(signed, width, 8)}
