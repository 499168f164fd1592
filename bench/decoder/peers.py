"""What other tools make of the decoder.

Paddle's own PTQ is not among them. By channels it fails: ``quant_tensor`` takes the wrong axis of a
weight that is read transposed. Its int8 passes do not load what it writes with one scale per
weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyquant

from .text import Texts

INPUT = "ids"

Paths = tuple[Path, Path]


def legacy(source: Path, output: Path) -> Paths:
    """Write the float decoder as a ``.pdmodel``, which OpenVINO reads."""
    model = pyquant.load_model(source)
    program, parameters = pyquant.save_model(model, output, "float.pdmodel", "float.pdiparams")
    return program, parameters


def onnx_float(source: Path, output: Path) -> Paths:
    """Write the folded float decoder for ONNX Runtime."""
    model = pyquant.load_model(source)
    pyquant.fold(model)
    output.mkdir(parents=True, exist_ok=True)
    path = pyquant.save_onnx(model, output / "float.onnx")[0]
    return path, path


def nncf(source: Path, output: Path, batches: Sequence[Texts]) -> Paths:
    """Quantize by NNCF, with SmoothQuant, as for transformers."""
    import nncf
    import openvino

    model = openvino.Core().read_model(legacy(source, output / "float")[0])
    data, kind = nncf.Dataset(_feeds(batches)), nncf.ModelType.TRANSFORMER
    path = output / "nncf.xml"
    openvino.save_model(nncf.quantize(model, data, model_type=kind), path, compress_to_fp16=False)
    return path, path.with_suffix(".bin")


def quantize_static(source: Path, output: Path, batches: Sequence[Texts]) -> Paths:
    """Quantize by ONNX Runtime's own tool, by channel, in QDQ."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat
    from onnxruntime.quantization import quantize_static as quantize

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds: Iterator[Mapping[str, Any]] = iter(_feeds(batches))

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self._feeds, None)

    path = output / "model.onnx"
    before, _ = onnx_float(source, output / "float")
    quantize(before, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    return path, path


def _feeds(batches: Sequence[Texts]) -> list[dict[str, Texts]]:
    return [{INPUT: batch} for batch in batches]
