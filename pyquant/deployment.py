"""Running models as they are deployed on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .program.model import Model, load_model
from .program.predictor import Optimization, all_cores, make_int8_predictor
from .program.predictor import make_predictor as make_float_predictor
from .program.quantizable import INT8_OP_TYPES
from .settings import check_positive


def make_predictor(
    model_dir: str | Path,
    model_filename: str | None = None,
    params_filename: str | None = None,
    threads: int | None = None,
) -> Any:
    """Return a ``paddle.inference.Predictor`` that is set up for what a directory holds.

    A model of int8 ops, or of QDQ, runs by oneDNN's int8 kernels, any other one by its float
    kernels, without the passes that are known to change what the model computes.

    Args:
        model_dir: directory of a model, quantized or not (see `pyquant.load_model`).
        model_filename: the program's file; None finds it.
        params_filename: the combined parameter file; None finds it, or takes separate files.
        threads: of the Predictor; None takes every core of the process.

    Raises:
        ModelFileError: the model cannot be read, or Paddle cannot load it.
        SettingError: ``threads`` is less than 1.
        UnsupportedError: it is a ``.json`` with ops that are not known.

    Example:
        >>> predictor = pyquant.make_predictor("int8", threads=1)
        >>> predictor.get_input_handle("x").copy_from_cpu(batches[0])
        >>> done = predictor.run()
        >>> predictor.get_output_handle("y").copy_to_cpu().shape
        (3, 10)
    """
    return deployed(load_model(model_dir, model_filename, params_filename), threads)


def deployed(model: Model, threads: int | None) -> Any:
    """As `make_predictor`, of a model that is read already."""
    count = all_cores() if threads is None else check_positive("threads", threads)
    if any(op.type in INT8_OP_TYPES for op in model.ops()):
        return make_int8_predictor(model, count)
    return make_float_predictor(model, Optimization.FUSED, count)
