"""Paddle's own PTQ on the same task."""

from __future__ import annotations

import time
from pathlib import Path

import paddle
from paddle.static.quantization import PostTrainingQuantization

from . import models
from .lines import BATCH
from .recognizer import Images

ALGORITHMS = ("abs_max", "hist", "avg", "mse", "emd", "KL")
_OP_TYPES = ["conv2d", "depthwise_conv2d", "conv2d_transpose", "mul", "matmul", "matmul_v2"]


def quantize(calibration: Images, algo: str, output: Path) -> tuple[Path, Path, float]:
    """Write the model as Paddle quantizes it.

    Returns:
        The program, its parameters, and the seconds it took.
    """
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
            quantizable_op_type=_OP_TYPES,
            weight_quantize_type="channel_wise_abs_max",
            onnx_format=True,
        )
        ptq.quantize()
        ptq.save_quantized_model(str(output), "model.pdmodel", "model.pdiparams")
    seconds = time.perf_counter() - start
    return output / "model.pdmodel", output / "model.pdiparams", seconds
