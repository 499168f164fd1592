"""A trained network with the images that it is calibrated on and tested on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..networks import vision_network
from .data import Images, fashion_mnist, image_folder
from .networks import RECIPES, build, load_weights, weights_path


@dataclass(frozen=True)
class Task:
    """A trained network and its data.

    Attributes:
        network: the ``paddle.nn.Layer``.
        calibration: training images, float32[n, 3, h, w].
        test: images that neither training nor calibration sees.
    """

    network: Any
    calibration: NDArray[Any]
    test: Images


def fashion_mnist_task(name: str, calibration_images: int) -> Task:
    """Return the network for Fashion-MNIST; it is trained now if it never was."""
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
    return Task(network, calibration, fashion_mnist("t10k", size))


def imagenet_task(name: str, folder: Path, weights: Path, calibration_images: int) -> Task:
    """Return the network at full width with pretrained weights, a ``.pdparams`` file."""
    import paddle

    paddle.disable_static()
    network = vision_network(name)
    network.set_state_dict(paddle.load(str(weights)))
    calibration, test = image_folder(folder, calibration_images)
    return Task(network, calibration.sample(calibration_images), test)
