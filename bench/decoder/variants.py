"""The ways to quantize the decoder, each in a process of its own.

Paddle's own PTQ is not among them. By channels it fails: ``quant_tensor`` takes the wrong axis of a
weight that is read transposed. Its int8 passes do not load what it writes with one scale per
weight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyquant

from .. import runtimes
from ..child import in_child
from .text import Texts

INPUT = "ids"


@dataclass(frozen=True)
class Made:
    """What a variant wrote.

    Attributes:
        paths: the program and its parameters, which may be one file.
        calibrating: the seconds that calibration took, 0 if they are not known.
        summary: what the call has to say.
    """

    paths: tuple[Path, Path]
    calibrating: float = 0.0
    summary: str = ""


@dataclass(frozen=True)
class Quantized(Made):
    """The same, with the seconds that the whole call took, and its peak of memory, with Paddle."""

    total: float = 0.0
    megabytes: float = 0.0


def quantized_as(name: str, source: Path, directory: Path, batches: Sequence[Texts]) -> Quantized:
    """Write a variant of the decoder in ``source`` into a directory of ``directory``."""
    output = directory / name
    output.mkdir()
    (made, total), megabytes = in_child(_timed, name, source, output, batches)
    return Quantized(made.paths, made.calibrating, made.summary, total, megabytes)


def _timed(name: str, source: Path, output: Path, batches: Sequence[Texts]) -> tuple[Made, float]:
    started = time.perf_counter()
    made = VARIANTS[name](source, output, batches)
    return made, time.perf_counter() - started


def _made(result: pyquant.QuantizationResult) -> Made:
    paths = result.model_path, result.params_path or result.model_path
    return Made(paths, result.seconds.get("calibrate", 0.0), str(result))


def _dynamic(source: Path, output: Path, batches: Sequence[Texts], **settings: Any) -> Made:
    return _made(pyquant.quant_post_dynamic(source, output, **settings))


def _static(source: Path, output: Path, batches: Sequence[Texts], **settings: Any) -> Made:
    data = _feeds(batches)
    return _made(pyquant.quant_post_static(None, source, output, data_loader=data, **settings))


def _elsewhere(
    write: Callable[[runtimes.Task, Path], Path],
    source: Path,
    output: Path,
    batches: Sequence[Texts],
) -> Made:
    path = write(runtimes.Task(source, _feeds(batches), ()), output)
    return Made((path, path))


def _feeds(batches: Sequence[Texts]) -> list[runtimes.Feed]:
    return [{INPUT: batch} for batch in batches]


VARIANTS: Mapping[str, Callable[[Path, Path, Sequence[Texts]], Made]] = {
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
    "unchecked": partial(_static, verify=False),
    "unchecked, OpenVINO": partial(_static, verify=False, deploy_backend="OpenVINO"),
    "unchecked, ONNX": partial(_static, verify=False, deploy_backend="ONNX"),
    "float, OpenVINO": partial(_elsewhere, runtimes.openvino_float),
    "float, ONNX": partial(_elsewhere, runtimes.onnx_float),
    "NNCF": partial(_elsewhere, runtimes.nncf_transformer),
    "quantize_static": partial(
        _elsewhere, partial(runtimes.by_quantize_static, reduce_range=False)
    ),
}
"""What quantizes the decoder, or has another runtime run it in float, by name."""
