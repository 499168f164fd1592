"""Running the recognition model, and scoring what it reads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]

# Which switches of the config make which kind of run: 3.x names first, then 2.6's.
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
    config.enable_memory_optim()
    config.switch_ir_optim(run != "plain")
    for name, older_name in _SWITCHES[run]:
        getattr(config, name if hasattr(config, name) else older_name)()
    return inference.create_predictor(config)


def run_batch(predictor: Any, images: Images) -> NDArray[np.float32]:
    """Return the model's output for one batch: probabilities [lines, steps, classes]."""
    predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(images)
    predictor.run()
    output = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
    return np.asarray(output)


def read_lines(predictor: Any, images: Images, classes: list[str], batch: int = 16) -> list[str]:
    """Return the text of every image, by greedy CTC decoding."""
    texts = []
    for start in range(0, len(images), batch):
        for steps in run_batch(predictor, images[start : start + batch]).argmax(axis=2):
            kept = steps[np.insert(steps[1:] != steps[:-1], 0, True)]
            texts.append("".join(classes[index] for index in kept))
    return texts


def line_accuracy(read: list[str], texts: list[str]) -> float:
    """Return the share of lines read without a mistake."""
    return statistics.fmean(a == b for a, b in zip(read, texts))


def without_spaces(texts: list[str]) -> list[str]:
    """Drop spaces, which the model adds and misses at the ends of lines even in float."""
    return [text.replace(" ", "") for text in texts]


def character_accuracy(read: list[str], texts: list[str]) -> float:
    """Return 1 - edit distance / length over all lines."""
    errors = sum(_edit_distance(a, b) for a, b in zip(read, texts))
    return 1 - errors / sum(map(len, texts))


def milliseconds_per_line(
    predictors: Mapping[str, Any], images: Images, rounds: int = 9
) -> dict[str, float]:
    """Return the median time per line of each predictor, measured in turns."""
    times: dict[str, list[float]] = {name: [] for name in predictors}
    for _ in range(rounds + 1):
        for name, predictor in predictors.items():
            start = time.perf_counter()
            run_batch(predictor, images)
            times[name].append((time.perf_counter() - start) * 1000 / len(images))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def _edit_distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]
