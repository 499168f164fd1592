"""Real images with labels: Fashion-MNIST, or a folder laid out like ImageNet."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
_FASHION_MEAN, _FASHION_STD = 0.2860, 0.3530

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
_IMAGENET_SIZE, _IMAGENET_SHORT_SIDE = 224, 256
_SPLIT_SEED = 0


@dataclass(frozen=True)
class Images:
    """Labelled images that are decoded on demand.

    Attributes:
        labels: int64[n].
        decode: returns the images at some indices, normalised, float32[len(indices), 3, h, w].
    """

    labels: NDArray[Any]
    decode: Callable[[NDArray[Any]], NDArray[Any]]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield images and labels in order."""
        for start in range(0, len(self), size):
            chosen = np.arange(start, min(start + size, len(self)))
            yield self.decode(chosen), self.labels[chosen]

    def sample(self, count: int, seed: int = 0) -> NDArray[Any]:
        """Return ``count`` images drawn without replacement."""
        return self.decode(np.random.default_rng(seed).permutation(len(self))[:count])


def fashion_mnist(part: str, size: int) -> Images:
    """Return the 60,000 images of ``part`` "train", or the 10,000 of "t10k".

    They are scaled to ``size`` × ``size``, with gray repeated as red, green and blue.

    Raises:
        FileNotFoundError: the data set is not installed.
    """
    if not FASHION_MNIST.is_dir():
        raise FileNotFoundError(
            f"{FASHION_MNIST} is missing. Install it: apt-get install dataset-fashion-mnist"
        )
    small = _idx(FASHION_MNIST / f"{part}-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28)
    labels = _idx(FASHION_MNIST / f"{part}-labels-idx1-ubyte.gz", header=8).astype(np.int64)
    scaled = np.stack([_scaled(image, size) for image in small])

    def decode(indices: NDArray[Any]) -> NDArray[Any]:
        gray = (scaled[indices].astype(np.float32) / 255 - _FASHION_MEAN) / _FASHION_STD
        return np.repeat(gray[:, None], 3, axis=1)

    return Images(labels, decode)


def image_folder(folder: Path, calibration_images: int) -> tuple[Images, Images]:
    """Return the images to calibrate on and those to test, from a folder laid out like ImageNet.

    Test images are ``val/CLASS/*``; the order of the sorted class folders gives the labels.
    Calibration images are ``train/CLASS/*``, or else images of ``val``, which are then not tested.

    Raises:
        FileNotFoundError: there is no image.
        ValueError: all of them would calibrate.
    """
    test = _files(folder / "val")
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(test))
    if (folder / "train").is_dir():
        return _of_files(_files(folder / "train")), _of_files([test[i] for i in order])
    chosen, left = order[:calibration_images], order[calibration_images:]
    if not len(left):
        raise ValueError(f"{folder}: all of its {len(test)} images calibrate; none is left to test")
    return _of_files([test[i] for i in chosen]), _of_files([test[i] for i in left])


def _idx(path: Path, header: int) -> NDArray[Any]:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def _scaled(image: NDArray[Any], size: int) -> NDArray[Any]:
    scaled = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(scaled)


def _files(folder: Path) -> list[tuple[Path, int]]:
    classes = sorted(path for path in folder.glob("*") if path.is_dir())
    files = [(path, label) for label, name in enumerate(classes) for path in sorted(name.iterdir())]
    if not files:
        raise FileNotFoundError(f"{folder}: no images; they are expected as {folder}/CLASS/*.JPEG")
    return files


def _of_files(files: Sequence[tuple[Path, int]]) -> Images:
    def decode(indices: NDArray[Any]) -> NDArray[Any]:
        return np.stack([_centre_crop(files[i][0]) for i in indices])

    return Images(np.array([label for _, label in files], np.int64), decode)


def _centre_crop(path: Path) -> NDArray[Any]:
    with Image.open(path) as image:
        ratio = _IMAGENET_SHORT_SIDE / min(image.size)
        width, height = (round(side * ratio) for side in image.size)
        scaled = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - _IMAGENET_SIZE) // 2, (height - _IMAGENET_SIZE) // 2
    box = (left, top, left + _IMAGENET_SIZE, top + _IMAGENET_SIZE)
    values = np.asarray(scaled.crop(box), np.float32) / 255
    return np.moveaxis((values - _IMAGENET_MEAN) / _IMAGENET_STD, 2, 0)
