"""Quantize PP-OCRv4 recognition in both modes and show what it costs and gains.

`python -m bench.ocr` renders lines of text, calibrates on some, and reads others.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import pyquant

from ..paddle_ptq import ALGORITHMS, quantize
from ..predictor import make_predictor, run_batch
from . import models
from .lines import BATCH, CALIBRATION_SEED, batches, render_lines
from .recognizer import Images
from .scores import Variant, print_scores

_ONEDNN = {
    "deploy_backend": "OneDNN",
    "algo": "auto",
    "equalize": True,
    "round_type": "adaround",
}


def main() -> None:
    """Run the demonstration."""
    options = _options()
    calibration, _ = render_lines(options.calibration_lines, CALIBRATION_SEED)
    forward_seconds = _forward_seconds(calibration)
    dynamic = pyquant.quant_post_dynamic(
        models.model_dir(models.RECOGNITION), options.output / "dynamic"
    )
    static = _static(calibration, options, "static")
    more = _static(calibration, options, "onednn", **_ONEDNN)
    print(f"\n== dynamic (weights alone)\n{dynamic}")
    print(f"\n== static, algo {options.algo}, {len(calibration)} lines\n{static}")
    _print_thresholds(static)
    total = sum(static.seconds.values())
    print(
        f"\n== the whole static quantization took {total:.2f} s; the forward over the same "
        f"lines takes {forward_seconds:.2f} s: ratio {total / forward_seconds:.2f}"
    )
    variants = [
        Variant("float", *models.model_paths(models.RECOGNITION), "float"),
        Variant("dynamic int8", *_result_paths(dynamic), "float", sum(dynamic.seconds.values())),
        Variant("static int8", *_result_paths(static), "int8", sum(static.seconds.values())),
        Variant("static OneDNN", *_result_paths(more), "int8", sum(more.seconds.values())),
        *_paddle_variants(calibration, options.paddle, options.output),
    ]
    print(f"\n== {options.test_lines} lines that calibration did not see, one thread, oneDNN")
    print_scores(variants, options.test_lines)
    _print_use(more)


def _static(
    calibration: Images, options: argparse.Namespace, name: str, **more: Any
) -> pyquant.QuantizationResult:
    return pyquant.quant_post_static(
        None,
        models.model_dir(models.RECOGNITION),
        options.output / name,
        data_loader=batches(calibration),
        **{"algo": options.algo, **more},
    )


def _forward_seconds(images: Images) -> float:
    """Time the forward that calibration is measured by: oneDNN, all cores, loading included."""
    start = time.perf_counter()
    predictor = make_predictor(
        *models.model_paths(models.RECOGNITION), "float", os.cpu_count() or 1
    )
    for batch in batches(images):
        run_batch(predictor, batch)
    return time.perf_counter() - start


def _paddle_variants(calibration: Images, algos: list[str], output: Path) -> list[Variant]:
    variants = []
    for algo in algos:
        model_path, params_path, seconds = quantize(
            *models.model_paths(models.RECOGNITION),
            [{"x": image} for image in calibration],
            BATCH,
            algo,
            output / "paddle" / algo,
        )
        variants.append(Variant(f"Paddle {algo}", model_path, params_path, "int8", seconds))
    return variants


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.ocr", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("quantized-ocr"))
    parser.add_argument("--calibration-lines", type=int, default=32)
    parser.add_argument("--test-lines", type=int, default=300)
    parser.add_argument("--algo", default="mse")
    parser.add_argument(
        "--paddle", nargs="*", default=[], choices=ALGORITHMS, help="compare Paddle's own PTQ"
    )
    return parser.parse_args()


def _result_paths(result: pyquant.QuantizationResult) -> tuple[Path, Path]:
    assert result.params_path is not None
    return result.model_path, result.params_path


def _print_thresholds(result: pyquant.QuantizationResult) -> None:
    print("\n== activation thresholds")
    for tensor in result.quantized:
        if tensor.kind == "activation":
            print(f"{tensor.threshold:10.4f}  {tensor.name}  ({', '.join(tensor.op_types)})")


def _print_use(result: pyquant.QuantizationResult) -> None:
    model_path, params_path = _result_paths(result)
    print(
        "\n== to run the static model for oneDNN as int8\n"
        f'config = paddle.inference.Config("{model_path}", "{params_path}")\n'
        "config.enable_mkldnn()"
    )


if __name__ == "__main__":
    main()
