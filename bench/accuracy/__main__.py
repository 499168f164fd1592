"""Top-1 of float and quantized classifiers: python -m bench.accuracy [NETWORK ...].

Networks of ``paddle.vision.models``, trained on Fashion-MNIST by `bench.accuracy.train`, calibrated
on images of its training part and tested on its 10,000 test images; or, with --imagenet, pretrained
ones on a folder in the manner of ImageNet. Times are of one thread, the variants in turns.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..paddle_ptq import ALGORITHMS
from ..timing import median_seconds
from .data import Images
from .networks import RECIPES
from .task import Task, fashion_mnist_task, imagenet_task
from .variants import (
    Variant,
    dynamic_variants,
    exported,
    float_variant,
    nncf_variant,
    paddle_variants,
    parse_option,
    static_variants,
)

_TEST_BATCH = 100
_TIMED_BATCH = 8
_ROUNDS = 15
_NETWORKS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "resnet18")

# PaddleSlim's table (docs/zh_cn/model_zoo.md, 1.1) is of 2020, when its example of quant_post
# (demo/quant/quant_post) took KL and 160 training images, in batches of 16.
_SLIM_ALGO, _SLIM_IMAGES, _SLIM_BATCH = "KL", 160, 16
_SLIM_IMAGENET_DROPS = {"mobilenet_v1": -0.81, "mobilenet_v2": -1.00, "resnet50": -0.17}


def main() -> None:
    """Print a table per network, behind what Paddle prints."""
    options = _options()
    for name in options.networks:
        task = _task(name, options)
        with tempfile.TemporaryDirectory() as temporary:
            _print_rows(name, list(_variants(task, options, Path(temporary))), task.test)
        if options.slim and name in _SLIM_IMAGENET_DROPS:
            published = "PaddleSlim's, published, on ImageNet"
            print(f"{name:20}{published:43}{_SLIM_IMAGENET_DROPS[name]:+7.2f}", flush=True)


def _task(name: str, options: argparse.Namespace) -> Task:
    if options.imagenet is None:
        return fashion_mnist_task(name, options.calibration_images)
    return imagenet_task(name, options.imagenet, options.weights, options.calibration_images)


def _variants(task: Task, options: argparse.Namespace, output: Path) -> Iterator[Variant]:
    source = exported(task.network, task.calibration, options.batch, output / "float")
    yield float_variant(source)
    yield from dynamic_variants(source, output)
    yield from static_variants(source, options.static_options, output)
    if "paddle" in options.peers:
        yield from paddle_variants(source, options.paddle_algos, output)
    if "nncf" in options.peers:
        yield nncf_variant(source, output)


def _print_rows(name: str, variants: list[Variant], test: Images) -> None:
    """Print top-1, its drop in points, and of 100 images how many fp32 gives the same class."""
    classes = {variant.name: _classes(variant, test) for variant in variants}
    first = test.decode(np.arange(min(_TIMED_BATCH, len(test))))
    runs = {variant.name: partial(variant.run, first) for variant in variants}
    seconds = median_seconds(runs, _ROUNDS)
    in_float = classes[variants[0].name]
    accuracy = 100 * np.mean(in_float == test.labels)
    print(
        f"{'network':20}{'variant':36}{'top-1':>7}{'drop':>7}{'same':>8}{'ms/image':>10}"
        f"{'quantized in':>14}{'bytes':>13}",
        flush=True,
    )
    for variant in variants:
        top1 = 100 * np.mean(classes[variant.name] == test.labels)
        same = 100 * np.mean(classes[variant.name] == in_float)
        took = "" if variant.seconds is None else f"{variant.seconds:.2f} s"
        print(
            f"{name:20}{variant.name:36}{top1:7.2f}{top1 - accuracy:+7.2f}{same:8.2f}"
            f"{1000 * seconds[variant.name] / len(first):10.3f}{took:>14}{variant.bytes:13,}",
            flush=True,
        )


def _classes(variant: Variant, test: Images) -> Any:
    scores = [variant.run(images) for images, _ in test.batches(_TEST_BATCH)]
    return np.concatenate(scores).argmax(axis=1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("networks", nargs="*", help=", ".join(RECIPES))
    parser.add_argument("--calibration-images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32, help="of calibration")
    parser.add_argument(
        "--static-options",
        nargs="+",
        action="append",
        type=parse_option,
        metavar="KEY=VALUE",
        help="of quant_post_static; may be given again, for one more row in the table",
    )
    parser.add_argument("--peers", nargs="*", default=[], choices=["paddle", "nncf"])
    parser.add_argument("--paddle-algos", nargs="+", default=["hist"], choices=ALGORITHMS)
    parser.add_argument(
        "--slim", action="store_true", help="PaddleSlim's settings, and what it publishes of them"
    )
    parser.add_argument("--imagenet", type=Path, metavar="FOLDER", help="val/CLASS/*.JPEG and more")
    parser.add_argument("--weights", type=Path, metavar="FILE.pdparams", help="for --imagenet")
    options = parser.parse_args()
    options.networks = options.networks or (_SLIM_IMAGENET_DROPS if options.slim else _NETWORKS)
    options.static_options = [dict(pairs) for pairs in options.static_options or [[]]]
    if options.slim:
        options.static_options = [{"algo": _SLIM_ALGO}]
        options.paddle_algos = [_SLIM_ALGO]
        options.calibration_images, options.batch = _SLIM_IMAGES, _SLIM_BATCH
    unknown = set(options.networks) - set(RECIPES)
    if unknown:
        parser.error(f"no such network: {', '.join(unknown)}; choose among {', '.join(RECIPES)}")
    if options.imagenet is not None and (options.weights is None or len(options.networks) != 1):
        parser.error("--imagenet needs one network, and its --weights")
    return options


if __name__ == "__main__":
    main()
