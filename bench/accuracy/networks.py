"""The networks, how they are trained on Fashion-MNIST, and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = 10
KEPT = Path(__file__).parent / "weights"
CACHE = Path("trained-networks")


@dataclass(frozen=True)
class Recipe:
    """How a network of ``paddle.vision.models`` is made and trained.

    Attributes:
        size: of the images, which are square.
        epochs: over the 60,000 training images.
        rate: the peak of the learning rate.
        directory: where its weights are kept; in the repository if they are small.
        arguments: of the network's function.
    """

    size: int
    epochs: float
    rate: float
    directory: Path = KEPT
    arguments: Mapping[str, Any] = field(default_factory=dict)


# The mobile networks are narrow, so that their weights take about 1 MB; the ResNets have 22 and 47.
# From 33 × 33 on, the last stage of a network of stride 32 sees 2 × 2. At 1 × 1 it would only train
# the centres of its filters, and the random rest would coarsen the steps of its channel.
RECIPES: Mapping[str, Recipe] = {
    "mobilenet_v1": Recipe(33, 4, 0.1, arguments={"scale": 0.5}),
    "mobilenet_v2": Recipe(33, 3, 0.1, arguments={"scale": 0.5}),
    "mobilenet_v3_small": Recipe(48, 4, 0.1, arguments={"scale": 0.5}),
    "resnet18": Recipe(33, 2, 0.1, CACHE),
    "resnet50": Recipe(33, 2, 0.1, CACHE),
}


def build(name: str) -> Any:
    """Return the network for Fashion-MNIST, untrained."""
    from paddle.vision import models

    return getattr(models, name)(num_classes=CLASSES, **RECIPES[name].arguments)


def weights_path(name: str) -> Path:
    """Return where the trained weights are, or are to be."""
    return RECIPES[name].directory / f"{name}.npz"


def save_weights(path: Path, weights: Mapping[str, NDArray[Any]]) -> None:
    """Write weights, matrices and filters as fp16, which halves the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    halved: dict[str, Any] = {
        key: value.astype(np.float16 if value.ndim > 1 else np.float32)
        for key, value in weights.items()
    }
    np.savez_compressed(path, **halved)


def load_weights(network: Any, path: Path) -> None:
    """Give ``network`` the weights of a file that `save_weights` wrote.

    Raises:
        ValueError: they are not the weights of this network.
    """
    with np.load(path) as arrays:
        weights = {key: arrays[key].astype(np.float32) for key in arrays.files}
    missing, unexpected = network.set_state_dict(weights)
    if missing or unexpected:
        raise ValueError(f"{path}: not the weights of the network. Train it again.")
