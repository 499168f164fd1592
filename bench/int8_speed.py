"""Static int8 against float, of Paddle 3 .json models: python -m bench.int8_speed [NAME ...].

The networks are those of ``paddle.vision.models`` with random weights, which take as much time as
trained ones. The check is left out: their outputs hardly vary from image to image, so that it would
keep ops in float. A last line shows the bound: how much faster oneDNN's int8 kernel alone is on
this processor, over convolutions of 2048 channels.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pyquant

from .networks import export, vision_network
from .predictor import make_predictor, run_batch
from .report import Report, add_report
from .timing import median_seconds


def main() -> None:
    """Print a row per network."""
    parser = argparse.ArgumentParser(description="Static int8 against float, from .json models.")
    parser.add_argument("networks", nargs="*", default=["mobilenet_v1", "resnet50"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    add_report(parser)
    options = parser.parse_args()
    header = (f"network, batch {options.batch}", "float ms", "int8 ms", "ratio", "rms error")
    Report(options.report).table(header, _rows(options))


def _rows(options: argparse.Namespace) -> Iterator[Sequence[str]]:
    images = _random(options.batch, 3, 224, 224)
    for name in options.networks:
        yield _compare(name, vision_network(name), images, options.rounds)
    deep = _random(options.batch, 512, 14, 14)
    yield _compare("convolutions alone", _convolutions(), deep, options.rounds)


def _compare(name: str, network: Any, images: Any, rounds: int) -> Sequence[str]:
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        export(network, directory / "model", list(images.shape[1:]))
        result = pyquant.quant_post_static(
            None, directory, directory / "int8", data_loader=[images], verify=False
        )
        assert result.params_path is not None
        predictors = {
            "float": make_predictor(
                directory / "model.json", directory / "model.pdiparams", "float"
            ),
            "int8": make_predictor(result.model_path, result.params_path, "int8"),
        }
        outputs = {run: run_batch(predictor, images) for run, predictor in predictors.items()}
        runs = {run: predictor.run for run, predictor in predictors.items()}
        seconds = median_seconds(runs, rounds)
    error = np.sqrt(np.mean((outputs["int8"] - outputs["float"]) ** 2))
    error /= np.sqrt(np.mean(outputs["float"] ** 2))
    times = (f"{1000 * seconds[run]:.1f}" for run in ("float", "int8"))
    return (name, *times, f"{seconds['float'] / seconds['int8']:.2f}", f"{error:.4f}")


def _convolutions() -> Any:
    """Return so many convolutions that converting the input and the output hardly counts.

    The kernel also computes a relu, without which two convolutions would be folded into one.
    """
    from paddle import nn

    channels = (512, *(2048,) * 7)
    pairs = ((nn.Conv2D(*both, 1), nn.ReLU()) for both in zip(channels, channels[1:]))
    return nn.Sequential(*(layer for pair in pairs for layer in pair))


def _random(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


if __name__ == "__main__":
    main()
