"""Which positions of a sample stand for all of them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

_POSITIONS = 32  # of a sample are looked at


@lru_cache
def spread(count: int) -> Any:
    """Return some of ``count`` positions, spread by the golden ratio for no pattern to be met."""
    if count <= _POSITIONS:
        return np.arange(count)
    return np.unique(np.floor(np.arange(_POSITIONS) * 0.6180339887498949 % 1 * count).astype(int))
