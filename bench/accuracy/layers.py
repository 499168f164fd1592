"""Where a network loses accuracy by static int8: python -m bench.accuracy.layers NETWORK.

First only one op at a time is quantized; then only one at a time stays in float. Both show how much
the scores of the test images change, as relative rms error, and how many images change their class.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyquant

from ..methods import float_variant, parse_option
from ..predictor import make_predictor, run_batch
from ..source import Source
from .networks import RECIPES
from .task import exported, fashion_mnist_classifier

_BATCH = 100
_CALIBRATION_BATCH = 32


class Experiment:
    """A network to be quantized again and again, and how its scores change."""

    def __init__(self, source: Source, images: NDArray[Any], options: dict[str, Any]) -> None:
        self._source, self._options = source, options
        self._batches = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
        run = float_variant(source).load()
        self._scores = np.concatenate([run(batch) for batch in self._batches])
        with tempfile.TemporaryDirectory() as temporary:
            result = self._quantize((), Path(temporary))
        self.thresholds = result.thresholds()
        self.weights = [tensor.name for tensor in result.quantized if tensor.kind == "weight"]

    def error(self, skipped: Collection[str]) -> tuple[float, float]:
        """Quantize all ops except those of the ``skipped`` weights.

        Returns:
            The relative rms error of the scores, and the percentage of images whose class changes.
        """
        with tempfile.TemporaryDirectory() as temporary:
            result = self._quantize(skipped, Path(temporary))
            assert result.params_path is not None
            predictor = make_predictor(result.model_path, result.params_path, "int8")
            scores = np.concatenate([run_batch(predictor, batch) for batch in self._batches])
        error = np.sqrt(np.mean((scores - self._scores) ** 2) / np.mean(self._scores**2))
        changed = np.mean(scores.argmax(axis=1) != self._scores.argmax(axis=1))
        return float(error), float(100 * changed)

    def _quantize(self, skipped: Collection[str], output: Path) -> pyquant.QuantizationResult:
        return pyquant.quant_post_static(
            None,
            self._source.paths[0].parent,
            output,
            data_loader=self._source.batches(),
            skip_tensor_list=list(skipped),
            **self._options,
        )


def main() -> None:
    """Print a line per quantized op, in the order of the program."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy.layers", description=__doc__)
    parser.add_argument("network", choices=list(RECIPES))
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--calibration-images", type=int, default=128)
    parser.add_argument("--static-options", nargs="*", default=[], type=parse_option)
    options = parser.parse_args()
    classifier = fashion_mnist_classifier(options.network, options.calibration_images)
    images = classifier.test.decode(np.arange(options.test_images))
    with tempfile.TemporaryDirectory() as temporary:
        source = exported(classifier, _CALIBRATION_BATCH, Path(temporary))
        experiment = Experiment(source, images, dict(options.static_options))
        _print_ops(pyquant.load_model(temporary), experiment)


def _print_ops(model: pyquant.Model, experiment: Experiment) -> None:
    rms, changed = experiment.error(())
    print(f"all ops: rms {rms:.4f}, {changed:.2f} % of the images change their class")
    print(
        f"{'op':18}{'activation':28}{'made by':26}{'threshold':>10}"
        f"{'alone: rms':>12}{'%':>7}{'without: rms':>14}{'%':>7}",
        flush=True,
    )
    producers = model.producers()
    for op in model.ops():
        names = op.reads()
        weight = next((name for name in names if name in experiment.weights), None)
        activation = next((name for name in names if name not in model.parameters), None)
        if weight is None or activation is None:  # such as the reshape of a folded bias
            continue
        alone = experiment.error([name for name in experiment.weights if name != weight])
        without = experiment.error([weight])
        threshold = experiment.thresholds.get(activation)
        print(
            f"{op.type:18}{activation:28}{producers[activation].type:26}"
            f"{'float' if threshold is None else f'{threshold:.3f}':>10}"
            f"{alone[0]:12.4f}{alone[1]:7.2f}{without[0]:14.4f}{without[1]:7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
