"""Quantized sentence encoders against float: python -m bench.sentences [--dynamic].

One is static int8; with ``--dynamic``, several have weights of 8 or 4 bits instead. All embed the
same sentences, which calibration did not see, in batches of 8, by Paddle's Predictor with oneDNN on
one thread.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyquant
from pyquant.result import file_bytes

from ..predictor import make_predictor
from ..report import Report, add_report
from ..timing import median_seconds
from .model import export
from .text import Batch, batches, sentences


def main() -> None:
    """Print a row per model."""
    options = _options()
    calibration, test = sentences(options.calibration_sentences, options.test_sentences)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        paths = {"float": export(directory)}
        for name, settings in (_DYNAMIC if options.dynamic else {}).items():
            result = pyquant.quant_post_dynamic(directory, directory / name, **settings)
            _add(paths, name, result)
        if not options.dynamic:
            result = pyquant.quant_post_static(
                None,
                directory,
                directory / "int8",
                data_loader=batches(calibration),
                algo=options.algo,
                round_type=options.round_type,
                equalize=options.equalize,
            )
            _add(paths, "int8", result)
        rows = _compared(paths, batches(test), len(test), options.rounds)
        Report(options.report).table(_HEADER, rows)


_DYNAMIC: Mapping[str, dict[str, Any]] = {
    "8 bits": {},
    "8 bits, groups": {"group_size": 64},
    "4 bits": {"weight_bits": 4},
    "4 bits, nearest": {"weight_bits": 4, "weight_quantize_type": "channel_wise_abs_max"},
}


def _add(
    paths: dict[str, tuple[Path, Path]], name: str, result: pyquant.QuantizationResult
) -> None:
    assert result.params_path is not None
    paths[name] = (result.model_path, result.params_path)
    print(result)


_HEADER = (
    "model", "bytes", "ms/sentence", "ratio", "mean cosine to float", "least cosine to float",
)  # fmt: skip


def _compared(
    paths: dict[str, tuple[Path, Path]], data: list[Batch], count: int, rounds: int
) -> Iterator[Sequence[str]]:
    predictors = {
        run: make_predictor(*files, run if run == "int8" else "float")
        for run, files in paths.items()
    }
    embedded = {run: embed(predictor, data) for run, predictor in predictors.items()}
    seconds = median_seconds(
        {run: partial(embed, predictor, data) for run, predictor in predictors.items()}, rounds
    )
    for run, files in paths.items():
        cosines = (embedded["float"] * embedded[run]).sum(1)
        milliseconds = seconds[run] * 1000 / count
        times = f"{milliseconds:.2f}", f"{seconds['float'] / seconds[run]:.2f}"
        yield run, f"{file_bytes(files):,}", *times, f"{cosines.mean():.5f}", f"{cosines.min():.5f}"


def embed(predictor: Any, data: Sequence[Batch]) -> NDArray[np.float32]:
    """Return the embeddings of all batches, float32[sentences, hidden]."""
    return np.concatenate([_embed_batch(predictor, batch) for batch in data])


def _embed_batch(predictor: Any, batch: Batch) -> NDArray[np.float32]:
    for name, tokens in batch.items():
        predictor.get_input_handle(name).copy_from_cpu(tokens)
    predictor.run()
    output = predictor.get_output_handle(predictor.get_output_names()[0])
    return np.asarray(output.copy_to_cpu(), np.float32)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.sentences", description=__doc__)
    parser.add_argument("--calibration-sentences", type=int, default=128)
    parser.add_argument("--test-sentences", type=int, default=500)
    parser.add_argument("--dynamic", action="store_true", help="quantize the weights alone")
    parser.add_argument("--algo", default="mse")
    parser.add_argument("--round-type", default="round")
    parser.add_argument("--equalize", action=argparse.BooleanOptionalAction)
    parser.add_argument("--rounds", type=int, default=3)
    add_report(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
