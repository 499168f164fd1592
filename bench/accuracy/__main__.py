"""Top-1 of float and quantized classifiers: python -m bench.accuracy [NETWORK ...].

Networks of ``paddle.vision.models``, trained on Fashion-MNIST by `bench.accuracy.train`, are
calibrated on its training images and tested on its 10,000 test images; or, with --imagenet,
pretrained ones on a folder laid out like ImageNet. Times are of one thread, the variants in turns.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from ..methods import (
    DYNAMIC,
    INT16,
    METHODS,
    PEERS,
    QDQ_OPTIONS,
    Method,
    float_variant,
    parse_option,
    peer_methods,
    quantized,
    static_method,
)
from ..paddle_ptq import ALGORITHMS
from ..report import Report, add_report
from ..task import measured
from .networks import RECIPES
from .task import Classifier, classification_task, fashion_mnist_classifier, imagenet_classifier

_ROUNDS = 15
_NETWORKS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "resnet18")

# PaddleSlim's table (docs/zh_cn/model_zoo.md, 1.1) is of 2020. Its example of quant_post
# (demo/quant/quant_post) then used KL and 160 training images, in batches of 16.
_SLIM_ALGO, _SLIM_IMAGES, _SLIM_BATCH = "KL", 160, 16
_SLIM_IMAGENET_DROPS = {"mobilenet_v1": -0.81, "mobilenet_v2": -1.00, "resnet50": -0.17}


def main() -> None:
    """Print a table per network."""
    options = _options()
    methods, report = _methods(options), Report(options.report)
    for name in options.networks:
        with tempfile.TemporaryDirectory() as temporary:
            output = Path(temporary)
            task = classification_task(_classifier(name, options), options.batch, output / "float")
            variants = [float_variant(task.source)]
            for title, method in methods.items():
                variants.append(quantized(title, method, task.source, output))
            report.table(*measured(task, variants, _ROUNDS))
        if options.slim and name in _SLIM_IMAGENET_DROPS:
            drop = _SLIM_IMAGENET_DROPS[name]
            report.lines("", f"PaddleSlim publishes {drop:+.2f} points for {name} on ImageNet")


def _classifier(name: str, options: argparse.Namespace) -> Classifier:
    if options.imagenet is None:
        return fashion_mnist_classifier(name, options.calibration_images)
    return imagenet_classifier(name, options.imagenet, options.weights, options.calibration_images)


def _methods(options: argparse.Namespace) -> dict[str, Method]:
    methods = {name: METHODS[name] for name in (DYNAMIC, INT16)}
    for settings in options.static_options:
        named = " ".join(f"{key}={value}" for key, value in settings.items())
        methods[f"static int8 {named}".rstrip()] = static_method(settings)
    return {**methods, **peer_methods(options.peers, options.paddle_algos)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("networks", nargs="*", help=", ".join(RECIPES))
    parser.add_argument("--calibration-images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32, help="of calibration")
    parser.add_argument(
        "--static-options",
        nargs="*",
        action="append",
        type=parse_option,
        metavar="KEY=VALUE",
        help="of quant_post_static, none for its defaults; repeat it for more rows in the table",
    )
    parser.add_argument("--peers", nargs="*", default=[], choices=PEERS)
    parser.add_argument("--paddle-algos", nargs="+", default=["hist"], choices=ALGORITHMS)
    parser.add_argument(
        "--slim", action="store_true", help="PaddleSlim's settings, and the drops that it publishes"
    )
    parser.add_argument("--imagenet", type=Path, metavar="FOLDER", help="val/CLASS/*.JPEG and more")
    add_report(parser)
    parser.add_argument("--weights", type=Path, metavar="FILE.pdparams", help="for --imagenet")
    options = parser.parse_args()
    options.networks = options.networks or (_SLIM_IMAGENET_DROPS if options.slim else _NETWORKS)
    options.static_options = [dict(pairs) for pairs in options.static_options or [[]]]
    if options.slim:
        options.static_options = [{**QDQ_OPTIONS, "algo": _SLIM_ALGO}]
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
