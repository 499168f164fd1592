"""Runs a model's files by Paddle's Predictor and Executor, and compares the outputs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import inference
from paddle.base.dygraph import guard

Arrays = dict[str, np.ndarray[Any, Any]]


def predict(
    model_path: Path,
    params_path: Path | None,
    feed: Arrays,
    how: str = "plain",
    lod: list[list[int]] | None = None,
) -> list[np.ndarray[Any, Any]]:
    """Run one batch, whose inputs are sequences if there is a ``lod``.

    ``how``: "plain" (the program as it is), "optimized" without oneDNN, "unfused" (the program as
    it is, by oneDNN), or optimized by oneDNN as "float" or "int8".
    """
    return _run(_predictor(model_path, params_path, how), feed, lod)


def run(where: Path, feed: Arrays, how: str = "plain") -> list[np.ndarray[Any, Any]]:
    """Run one batch through a program, or the one in a directory, as `predict` does.

    The parameters lie beside the program, under its name.
    """
    program = next(where.glob("*.pdmodel")) if where.is_dir() else where
    return predict(program, program.with_suffix(".pdiparams"), feed, how)


def observe(
    model_path: Path,
    params_path: Path | None,
    feed: Arrays,
    names: Collection[str],
    how: str = "plain",
) -> tuple[list[np.ndarray[Any, Any]], Arrays]:
    """Run one batch as `predict` does; return the outputs, and the tensors called ``names``."""
    seen: Arrays = {}

    def see(op_type: str, name: str, tensor: Any) -> None:
        if name in names:
            # Copied by an op that oneDNN lacks, so that Paddle first makes it a plain tensor.
            seen[name] = paddle._C_ops.assign(tensor).numpy()

    predictor = _predictor(model_path, params_path, how)
    predictor.register_output_hook(see)
    with guard(paddle.CPUPlace()):
        return _run(predictor, feed), seen


def _predictor(model_path: Path, params_path: Path | None, how: str) -> Any:
    if params_path is None:
        config = inference.Config(str(model_path.parent))
    else:
        config = inference.Config(str(model_path), str(params_path))
    config.disable_gpu()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(1)
    if how in ("plain", "unfused"):
        config.switch_ir_optim(False)
    if how in ("plain", "optimized"):
        if hasattr(config, "disable_onednn"):  # 3.3 uses oneDNN's kernels unless told not to
            config.disable_onednn()
    else:
        _either(config, "enable_onednn", "enable_mkldnn")
    if how == "unfused":
        config.switch_ir_optim(False)
    if how == "int8":
        _either(config, "enable_onednn_int8", "enable_mkldnn_int8")
    return inference.create_predictor(config)


def _run(
    predictor: Any, feed: Arrays, lod: list[list[int]] | None = None
) -> list[np.ndarray[Any, Any]]:
    for name, array in feed.items():
        handle = predictor.get_input_handle(name)
        handle.copy_from_cpu(array)
        if lod is not None:
            handle.set_lod(lod)
    predictor.run()
    names = predictor.get_output_names()
    return [predictor.get_output_handle(name).copy_to_cpu() for name in names]


def execute(model_path: Path, params_path: Path | None, feed: Arrays) -> list[Any]:
    """Run one batch by Paddle's Executor."""
    paddle.enable_static()
    try:
        return _executed(model_path, params_path, feed)
    finally:
        paddle.disable_static()


def _executed(model_path: Path, params_path: Path | None, feed: Arrays) -> list[Any]:
    executor = paddle.static.Executor(paddle.CPUPlace())
    with paddle.static.scope_guard(paddle.static.Scope()):
        program, _, targets = paddle.static.load_inference_model(
            str(model_path.parent),
            executor,
            model_filename=model_path.name,
            params_filename=params_path.name if params_path else None,
        )
        # With sequences, Paddle itself returns no arrays.
        fetched = executor.run(program, feed=feed, fetch_list=targets, return_numpy=False)
        return [np.array(tensor) for tensor in fetched]


def relative_error(actual: Any, expected: Any) -> float:
    """Return the root mean square of the difference over that of ``expected``."""
    return float(np.sqrt(np.mean((actual - expected) ** 2) / np.mean(expected**2)))


def _either(config: Any, name: str, older: str) -> None:
    getattr(config, name if hasattr(config, name) else older)()
