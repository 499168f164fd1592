"""Running calibration data through a model while its activations are observed.

Activations are seen in the hooks of Paddle's Predictor, by pointer, and consumed at once: nothing
is fetched, copied or kept, so that peak memory is that of a plain forward.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..arrays import view_values
from ..errors import ActivationError, CalibrationDataError, ModelFileError
from ..program.model import Model, save_model
from .data import Feed
from .statistic import ActivationStatistic

Statistics = dict[str, ActivationStatistic]


def collect_statistics(
    model: Model, tensors: Collection[str], feeds: Iterable[Feed], total: int | None = None
) -> Statistics:
    """Run every feed through ``model`` once and return a statistic per tensor.

    Args:
        model: as read from its files, which the Predictor reads again.
        tensors: the activations to observe.
        feeds: arrays by input name.
        total: the number of feeds, for the progress bar, if it is known.

    Raises:
        CalibrationDataError: there is no data, or the model cannot run it.
        ActivationError: a tensor holds NaN or infinity, is empty, or never occurs.
    """
    statistics = {name: ActivationStatistic() for name in tensors}
    runner = _Runner(model, statistics)
    batches = 0
    for feed in tqdm(feeds, desc="calibrating", unit="batch", total=total, disable=None):
        runner.run(feed, batches)
        batches += 1
    if not batches:
        raise CalibrationDataError("calibration data: it yields nothing. Give at least one batch.")
    for name, statistic in statistics.items():
        if not statistic.values:
            raise ActivationError(
                f"activation '{name}': it was never computed over {batches} batch(es). "
                "Give data that reaches it, or name it in skip_tensor_list."
            )
    return statistics


class _Runner:
    def __init__(self, model: Model, statistics: Statistics) -> None:
        self._statistics = statistics
        self._error: Exception | None = None
        self._batch = 0
        self._predictor = _predictor(model)
        self._predictor.register_output_hook(self._hook)

    def run(self, feed: Feed, batch: int) -> None:
        self._batch = batch
        for name, array in feed.items():
            self._predictor.get_input_handle(name).copy_from_cpu(array)
            if name in self._statistics:
                self._observe(name, array)
        try:
            self._predictor.run()
        except Exception as error:
            raise (self._error or self._run_failure(feed, error)) from error
        if self._error is not None:
            raise self._error

    def _hook(self, op_type: str, name: str, tensor: Any) -> None:
        # An exception that leaves a hook loses its type on the way through Paddle: keep it.
        if name not in self._statistics or self._error is not None:
            return
        if tensor._is_initialized() or 0 in tensor.shape:
            try:
                self._observe(name, view_values(tensor))
            except Exception as error:
                self._error = error

    def _observe(self, name: str, array: np.ndarray[Any, Any]) -> None:
        if array.size == 0:
            raise ActivationError(
                f"activation '{name}' has shape {list(array.shape)} in batch {self._batch}: there "
                "is nothing in it. Leave such inputs out, or name it in skip_tensor_list."
            )
        statistic = self._statistics[name]
        dtype = "bfloat16" if array.dtype == np.uint16 else None
        statistic.observe(array.reshape(array.shape[0] if array.ndim else 1, -1), dtype)
        if statistic.non_finite:
            raise ActivationError(
                f"activation '{name}' holds {statistic.non_finite} NaN or infinite value(s) of "
                f"{array.size} in batch {self._batch}. Repair that input or the model, or name the "
                "activation in skip_tensor_list."
            )

    def _run_failure(self, feed: Feed, error: Exception) -> CalibrationDataError:
        shapes = {name: list(array.shape) for name, array in feed.items()}
        return CalibrationDataError(
            f"batch {self._batch}: Paddle cannot run the model on inputs of shapes {shapes}: "
            f"{_summary(error)}"
        )


def _predictor(model: Model) -> Any:
    """Make a Predictor that runs the program's own ops, so that its own names are seen."""
    if model.params_path is not None and model.pir is None:
        return _predictor_of_files(model.model_path, model.params_path)
    with tempfile.TemporaryDirectory() as directory:
        if model.params_path is not None:
            # As read from .json, the program goes with the parameter file as it is.
            program_path = Path(directory) / "model.pdmodel"
            program_path.write_bytes(model.program.SerializeToString())
            return _predictor_of_files(program_path, model.params_path)
        # Separate files are found by the Predictor only beside a program called __model__.
        paths = save_model(model, directory, "model.pdmodel", "model.pdiparams")
        return _predictor_of_files(*paths)


def _predictor_of_files(model_path: Path, params_path: Path) -> Any:
    from paddle import inference

    config = inference.Config(str(model_path), str(params_path))
    config.disable_gpu()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(os.cpu_count() or 1)
    config.switch_ir_optim(False)
    config.enable_memory_optim()
    try:
        return inference.create_predictor(config)
    except Exception as error:
        raise ModelFileError(
            f"{model_path}: Paddle's Predictor cannot load the model: {_summary(error)}. "
            "Does it run in this version of Paddle?"
        ) from error


def _summary(error: Exception) -> str:
    """Return the line that tells most in one of Paddle's messages of many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "rror" in line or line.startswith("(")]
    return (telling or lines or [type(error).__name__])[-1]
