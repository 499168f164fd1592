"""Paddle's own PTQ."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import paddle
from paddle.static.quantization import PostTrainingQuantization

ALGORITHMS = ("abs_max", "hist", "avg", "mse", "emd", "KL")
_OP_TYPES = ["conv2d", "depthwise_conv2d", "conv2d_transpose", "mul", "matmul", "matmul_v2"]


def quantize(
    model_path: Path,
    params_path: Path,
    samples: Sequence[Mapping[str, Any]],
    batch: int,
    algo: str,
    output: Path,
) -> tuple[Path, Path, float]:
    """Write the model as Paddle quantizes it.

    Returns:
        The program, its parameters, and the seconds it took.
    """
    paddle.enable_static()
    start = time.perf_counter()
    # Paddle 2.6 takes nothing but its own DataLoader.
    loader = paddle.io.DataLoader(list(samples), batch_size=batch, return_list=True)
    with paddle.static.scope_guard(paddle.static.Scope()):
        ptq = PostTrainingQuantization(
            executor=paddle.static.Executor(paddle.CPUPlace()),
            model_dir=str(model_path.parent),
            model_filename=model_path.name,
            params_filename=params_path.name,
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
