"""Trained networks with the images that they are calibrated on and tested on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyquant

from ..methods import Run
from ..networks import export, vision_network
from ..source import Source
from ..task import Scores, Task
from .data import Images, fashion_mnist, image_folder
from .networks import RECIPES, build, load_weights, weights_path

_TEST_BATCH = 100
_TIMED_BATCH = 8


@dataclass(frozen=True)
class Classifier:
    """A trained network and its data.

    Attributes:
        name: of the network.
        network: the ``paddle.nn.Layer``.
        calibration: training images, float32[n, 3, h, w].
        test: images that neither training nor calibration sees.
    """

    name: str
    network: Any
    calibration: NDArray[Any]
    test: Images


def fashion_mnist_classifier(name: str, calibration_images: int) -> Classifier:
    """Return the network for Fashion-MNIST, and train it first if it has no weights yet."""
    import paddle

    path = weights_path(name)
    if not path.exists():
        print(f"{path} is missing: training {name}, which takes minutes", flush=True)
        subprocess.run([sys.executable, "-m", "bench.accuracy.train", name], check=True)
    paddle.disable_static()  # as Paddle's PTQ leaves it on
    network = build(name)
    load_weights(network, path)
    size = RECIPES[name].size
    calibration = fashion_mnist("train", size).sample(calibration_images)
    return Classifier(name, network, calibration, fashion_mnist("t10k", size))


def imagenet_classifier(
    name: str, folder: Path, weights: Path, calibration_images: int
) -> Classifier:
    """Return the network at full width with pretrained weights, a ``.pdparams`` file."""
    import paddle

    paddle.disable_static()
    network = vision_network(name)
    network.set_state_dict(paddle.load(str(weights)))
    calibration, test = image_folder(folder, calibration_images)
    return Classifier(name, network, calibration.sample(calibration_images), test)


def exported(classifier: Classifier, batch: int, directory: Path) -> Source:
    """Export the network by Paddle, to be calibrated in batches of ``batch``."""
    images = classifier.calibration
    export(classifier.network, directory / "model", list(images.shape[1:]))
    model = pyquant.load_model(directory)
    assert model.params_path is not None
    return Source(classifier.name, (model.model_path, model.params_path), "image", images, batch)


def classification_task(classifier: Classifier, batch: int, directory: Path) -> Task:
    """Return the task of classifying the test images."""
    test = classifier.test
    return Task(
        exported(classifier, batch, directory),
        "image",
        partial(_classes, test),
        partial(_scores, test.labels),
        test.decode(np.arange(min(_TIMED_BATCH, len(test)))),
    )


def _classes(test: Images, run: Run) -> NDArray[Any]:
    scores = np.concatenate([run(images) for images, _ in test.batches(_TEST_BATCH)])
    return np.asarray(scores.argmax(axis=1))


def _scores(labels: NDArray[Any], classes: NDArray[Any], in_float: NDArray[Any]) -> Scores:
    return {
        "top-1": 100 * float(np.mean(classes == labels)),
        "same class as float": 100 * float(np.mean(classes == in_float)),
    }
