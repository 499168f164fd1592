"""Runs a model by Paddle's Predictor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The switches of the config for each kind of run: the name in 3.x, then the one in 2.6.
_SWITCHES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "plain": (),
    "float": (("enable_onednn", "enable_mkldnn"),),
    "int8": (("enable_onednn", "enable_mkldnn"), ("enable_onednn_int8", "enable_mkldnn_int8")),
}


def make_predictor(model_path: Path, params_path: Path, run: str, threads: int = 1) -> Any:
    """Make a Predictor.

    Args:
        model_path: the program.
        params_path: its parameters.
        run: ``"plain"`` (no IR optimisation), ``"float"`` or ``"int8"`` (oneDNN).
        threads: of Paddle's math library.
    """
    from paddle import inference

    config = inference.Config(str(model_path), str(params_path))
    config.disable_gpu()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(threads)
    if model_path.suffix != ".json":  # with it, Paddle 3.3 fails to make the Predictor
        config.enable_memory_optim()
    config.switch_ir_optim(run != "plain")
    for name, older_name in _SWITCHES[run]:
        getattr(config, name if hasattr(config, name) else older_name)()
    return inference.create_predictor(config)


def run_batch(predictor: Any, images: NDArray[Any]) -> NDArray[Any]:
    """Return the first output for one batch of the only input."""
    predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(images)
    predictor.run()
    output = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
    return np.asarray(output)
