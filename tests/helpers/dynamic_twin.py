"""A network quantized by dynamic mode, with its float twin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from programs import ProgramBuilder

from pyquant import quant_post_dynamic


def quantized(
    build: Callable[[], ProgramBuilder], directory: Path, bits: int, kind: str
) -> tuple[Path, Path, Path]:
    """Return the directory of the network, and the programs of its quantized form and its twin."""
    source = build().save(directory / "in")
    result = quant_post_dynamic(
        source,
        directory / "out",
        weight_bits=bits,
        weight_quantize_type=kind,
        generate_test_model=True,
    )
    assert result.test_model_path is not None
    return source, result.model_path, result.test_model_path
