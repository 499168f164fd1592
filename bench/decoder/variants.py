"""The ways to quantize the decoder, each in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyquant

from ..child import in_child
from .text import Texts


@dataclass(frozen=True)
class Quantized:
    """A quantized decoder.

    Attributes:
        paths: its two files.
        calibrating: the seconds that calibration took, 0 if there was none.
        total: the seconds that the whole call took.
        megabytes: its peak of memory, with Paddle.
        summary: what the call has to say.
    """

    paths: tuple[Path, Path]
    calibrating: float
    total: float
    megabytes: float
    summary: str


def quantized_as(name: str, source: Path, directory: Path, batches: Sequence[Texts]) -> Quantized:
    """Write a variant of the decoder in ``source`` into a directory of ``directory``."""
    result, megabytes = in_child(_quantize, name, source, directory / name, batches)
    return Quantized(*result[:3], megabytes, result[3])


def _quantize(
    name: str, source: Path, output: Path, batches: Sequence[Texts]
) -> tuple[tuple[Path, Path], float, float, str]:
    started = time.perf_counter()
    result = VARIANTS[name](source, output, batches)
    total = time.perf_counter() - started
    assert result.params_path is not None
    paths = result.model_path, result.params_path
    return paths, result.seconds.get("calibrate", 0.0), total, str(result)


def _dynamic(
    source: Path, output: Path, batches: Sequence[Texts], **settings: Any
) -> pyquant.QuantizationResult:
    return pyquant.quant_post_dynamic(source, output, **settings)


def _static(
    source: Path, output: Path, batches: Sequence[Texts], **settings: Any
) -> pyquant.QuantizationResult:
    data = [{"ids": batch} for batch in batches]
    return pyquant.quant_post_static(None, source, output, data_loader=data, **settings)


VARIANTS: Mapping[str, Callable[..., pyquant.QuantizationResult]] = {
    "dynamic": _dynamic,
    "int8 groups": partial(_dynamic, group_size=64),
    "4 bits": partial(_dynamic, weight_bits=4),
    "4 bits of 128": partial(_dynamic, weight_bits=4, group_size=128),
    "4 bits, nearest": partial(
        _dynamic, weight_bits=4, weight_quantize_type="channel_wise_abs_max"
    ),
    "static": _static,
    "abs_max": partial(_static, algo="abs_max"),
    "equalized": partial(_static, algo="abs_max", equalize=True),
}
