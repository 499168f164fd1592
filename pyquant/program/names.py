"""What is added to a tensor's name for a tensor that is made from it, and how it is read back.

Other modules, `compare` and later versions find tensors by these: they are part of the files.
"""

from __future__ import annotations

from collections.abc import Iterable

SCALE = "@scale"
"""The thresholds or steps of a tensor."""
ZERO_POINT = "@zero_point"
"""The zero points of a tensor in QDQ form."""
FACTORS = "@factors"
"""What an activation's channels are divided by: a parameter that no op reads."""
RECIPROCALS = "@reciprocals"
"""What an activation is multiplied by where no neighbour takes its factors in."""
EQUALIZED = ".equalized"
"""An activation that an op divided by its factors."""
QUANTIZED = ".quantized"
"""The integers of a tensor."""
DEQUANTIZED = ".dequantized"
"""The floats that integers stand for."""
BORDERED = ".bordered"
"""An image, or a filter, with more channels: of zeros around an image of integers."""
WIDENED = ".widened"
"""A filter that writes such channels, too."""


def stem(name: str, *suffixes: str) -> str:
    """Return ``name`` without the first of ``suffixes`` that it ends in."""
    found = next((suffix for suffix in suffixes if name.endswith(suffix)), "")
    return name.removesuffix(found)


def stems(names: Iterable[str], suffix: str) -> set[str]:
    """Return the names of which ``names`` has one with ``suffix``."""
    return {stem(name, suffix) for name in names if name.endswith(suffix)}
