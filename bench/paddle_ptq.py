"""Paddle's own PTQ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from .source import Source

ALGORITHMS = ("abs_max", "hist", "avg", "mse", "emd", "KL")
# Without conv2d_transpose, which fails as int8 in Paddle 3.3 because of a wrong type.
_OP_TYPES = ["conv2d", "depthwise_conv2d", "mul", "matmul", "matmul_v2"]


def quantize(source: Source, output: Path, algo: str) -> tuple[Path, Path]:
    """Write the model that Paddle quantizes; return its program and its parameters."""
    samples = [{source.input: image} for image in source.images]
    return _quantize(source.paths, samples, source.batch, output, algo)


def quantize_feeds(
    paths: tuple[Path, Path], feeds: Sequence[Mapping[str, Any]], output: Path, algo: str
) -> tuple[Path, Path]:
    """As `quantize`, with whole batches by the names of the inputs."""
    return _quantize(paths, feeds, None, output, algo)


def _quantize(
    paths: tuple[Path, Path],
    samples: Sequence[Mapping[str, Any]],
    batch: int | None,
    output: Path,
    algo: str,
) -> tuple[Path, Path]:
    import paddle
    from paddle.static.quantization import PostTrainingQuantization

    model_path, params_path = paths
    paddle.enable_static()
    # Paddle 3 reads a .pdmodel only in its older program form, the only one of 2.6.
    older_form = getattr(getattr(paddle, "pir_utils", None), "OldIrGuard", nullcontext)
    # Paddle 2.6 accepts only its own DataLoader.
    loader = paddle.io.DataLoader(samples, batch_size=batch, return_list=True)
    with older_form(), paddle.static.scope_guard(paddle.static.Scope()):
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
    return output / "model.pdmodel", output / "model.pdiparams"
