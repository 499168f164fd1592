"""Paddle's own PTQ on the same task: `python -m bench.ocr.paddle_ptq [--algos ...]`."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112 (it reads a .pdmodel only so)

import paddle
from paddle.static.quantization import PostTrainingQuantization

from . import models
from .lines import BATCH, CALIBRATION_SEED, TEST_SEED, render_lines
from .recognizer import (
    Images,
    character_accuracy,
    line_accuracy,
    make_predictor,
    milliseconds_per_line,
    read_lines,
)

OP_TYPES = ["conv2d", "depthwise_conv2d", "conv2d_transpose", "mul", "matmul", "matmul_v2"]


def main() -> None:
    """Quantize by each algorithm, and score the int8 runs beside the float one."""
    parser = argparse.ArgumentParser(prog="python -m bench.ocr.paddle_ptq", description=__doc__)
    parser.add_argument("--algos", nargs="+", default=["abs_max", "hist", "avg", "mse"])
    parser.add_argument("--output", type=Path, default=Path("quantized-ocr/paddle"))
    parser.add_argument("--calibration-lines", type=int, default=32)
    parser.add_argument("--test-lines", type=int, default=300)
    options = parser.parse_args()
    calibration, _ = render_lines(options.calibration_lines, CALIBRATION_SEED)
    seconds = {algo: quantize(calibration, algo, options.output / algo) for algo in options.algos}
    source = models.model_dir(models.RECOGNITION)
    predictors = {
        "float": make_predictor(
            source / models.MODEL_FILENAME, source / models.PARAMS_FILENAME, "float"
        )
    }
    for algo in options.algos:
        predictors[algo] = make_predictor(*_paths(options.output / algo), "int8")
    _print_scores(predictors, seconds, options.test_lines)


def _print_scores(
    predictors: Mapping[str, Any], seconds: Mapping[str, float], test_lines: int
) -> None:
    images, texts = render_lines(test_lines, TEST_SEED)
    times = milliseconds_per_line(predictors, images[:BATCH])
    print(f"{'algo':10}{'line acc.':>11}{'char. acc.':>12}{'ms/line':>9}{'seconds':>9}")
    for name, predictor in predictors.items():
        read = read_lines(predictor, images, models.characters())
        print(
            f"{name:10}{line_accuracy(read, texts):11.3f}{character_accuracy(read, texts):12.3f}"
            f"{times[name]:9.1f}{seconds.get(name, 0.0):9.1f}",
            flush=True,
        )


def quantize(calibration: Images, algo: str, output: Path) -> float:
    """Write the model as Paddle quantizes it; return the seconds it took."""
    paddle.enable_static()
    start = time.perf_counter()
    # Paddle 2.6 takes nothing but its own DataLoader.
    loader = paddle.io.DataLoader(
        [{"x": image} for image in calibration], batch_size=BATCH, return_list=True
    )
    with paddle.static.scope_guard(paddle.static.Scope()):
        ptq = PostTrainingQuantization(
            executor=paddle.static.Executor(paddle.CPUPlace()),
            model_dir=str(models.model_dir(models.RECOGNITION)),
            model_filename=models.MODEL_FILENAME,
            params_filename=models.PARAMS_FILENAME,
            data_loader=loader,
            scope=paddle.static.global_scope(),
            algo=algo,
            hist_percent=0.9999,
            quantizable_op_type=OP_TYPES,
            weight_quantize_type="channel_wise_abs_max",
            onnx_format=True,
        )
        ptq.quantize()
        ptq.save_quantized_model(str(output), "model.pdmodel", "model.pdiparams")
    return time.perf_counter() - start


def _paths(directory: Path) -> tuple[Path, Path]:
    return directory / "model.pdmodel", directory / "model.pdiparams"


if __name__ == "__main__":
    main()
