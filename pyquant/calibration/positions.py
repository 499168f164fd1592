"""The choice of a few positions that represent a sample."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

_POSITIONS = 32  # per sample


@lru_cache
def spread(count: int) -> Any:
    """Return some of ``count`` positions, spread by the golden ratio to avoid patterns."""
    if count <= _POSITIONS:
        return np.arange(count)
    return np.unique(np.floor(np.arange(_POSITIONS) * 0.6180339887498949 % 1 * count).astype(int))
