"""Suffixes that name a tensor after the one that it is made from.

Other modules, `compare` and later versions find tensors by them: they are part of the files.
"""

from __future__ import annotations

from collections.abc import Iterable

SCALE = "@scale"
"""The thresholds or steps of a tensor."""
ZERO_POINT = "@zero_point"
"""The zero points of a tensor in QDQ form."""
FACTORS = "@factors"
"""The factors that divide an activation's channels: a parameter that no op reads."""
RECIPROCALS = "@reciprocals"
"""The reciprocals that multiply an activation where no neighbour takes its factors in."""
EQUALIZED = ".equalized"
"""An activation that an op divided by its factors."""
PER_TOKEN = ".per_token"
"""An activation whose positions were divided by their largest magnitudes, or its product."""
QUANTIZED = ".quantized"
"""The integers of a tensor."""
DEQUANTIZED = ".dequantized"
"""The dequantized values of a tensor."""
BORDERED = ".bordered"
"""A feature map or filter with channels added to pad integers that have a zero point."""
WIDENED = ".widened"
"""A filter or constant with values for such channels."""


def stem(name: str, *suffixes: str) -> str:
    """Return ``name`` without its suffix, the first of ``suffixes`` that it ends with."""
    found = next((suffix for suffix in suffixes if name.endswith(suffix)), "")
    return name.removesuffix(found)


def stems(names: Iterable[str], suffix: str) -> set[str]:
    """Return the stems of the ``names`` that end with ``suffix``."""
    return {stem(name, suffix) for name in names if name.endswith(suffix)}
