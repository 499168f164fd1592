"""Train a network on Fashion-MNIST: python -m bench.accuracy.train NETWORK ...

The weights go to `networks.weights_path`. Training runs as a static program, whose convolutions can
be set to oneDNN's: Paddle's own are eight times slower on a CPU.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import Images, fashion_mnist
from .networks import RECIPES, Recipe, build, save_weights, weights_path

_BATCH = 128
_SEED = 1
_MOMENTUM = 0.9
_WEIGHT_DECAY = 1e-4
_WARM_UP = 0.2  # of the steps
_ONEDNN_OPS = ("conv2d", "depthwise_conv2d", "conv2d_grad", "depthwise_conv2d_grad")


def main() -> None:
    """Train the named networks."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy.train", description=__doc__)
    parser.add_argument("networks", nargs="+", choices=list(RECIPES), metavar="NETWORK")
    # Paddle reads this when it is imported. Only the older program form lets an op choose oneDNN.
    os.environ.update(FLAGS_enable_pir_api="0")
    for name in parser.parse_args().networks:
        path = weights_path(name)
        save_weights(path, train(name, RECIPES[name]))
        print(f"{path}: {path.stat().st_size:,} bytes", flush=True)


def train(name: str, recipe: Recipe) -> dict[str, NDArray[Any]]:
    """Train the network; return its weights by their names in its ``state_dict``."""
    import paddle

    paddle.enable_static()
    paddle.seed(_SEED)
    images = fashion_mnist("train", recipe.size)
    steps = round(recipe.epochs * (len(images) // _BATCH))
    main_program, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main_program, startup):
        network = build(name)
        loss = _loss(network, recipe.size)
        schedule = _minimize(loss, recipe.rate, steps)
    _choose_onednn(main_program)
    scope = paddle.static.Scope()
    with paddle.static.scope_guard(scope):
        executor = paddle.static.Executor(paddle.CPUPlace())
        executor.run(startup)
        watch = time.perf_counter()
        losses = []
        for step, feed in enumerate(_feeds(images, steps), 1):
            losses.append(executor.run(main_program, feed, [loss])[0])
            schedule.step()
            if step % 100 == 0 or step == steps:
                mean = float(np.mean(losses[-100:]))
                seconds = time.perf_counter() - watch
                print(f"{name} {step}/{steps} loss {mean:.3f} {seconds:.0f} s", flush=True)
        return {
            key: np.array(scope.find_var(value.name).get_tensor())
            for key, value in network.state_dict().items()
        }


def _loss(network: Any, size: int) -> Any:
    import paddle

    image = paddle.static.data("image", [_BATCH, 3, size, size], "float32")
    label = paddle.static.data("label", [_BATCH, 1], "int64")
    network.train()
    return paddle.nn.functional.cross_entropy(network(image), label)


def _minimize(loss: Any, rate: float, steps: int) -> Any:
    """Add the ops that train, and return the schedule of the learning rate."""
    import paddle

    schedule = paddle.optimizer.lr.OneCycleLR(rate, steps, phase_pct=_WARM_UP)
    paddle.optimizer.Momentum(
        schedule, _MOMENTUM, use_nesterov=True, weight_decay=_WEIGHT_DECAY
    ).minimize(loss)
    return schedule


def _choose_onednn(program: Any) -> None:
    for op in program.global_block().ops:
        if op.type in _ONEDNN_OPS:
            for attribute in ("use_mkldnn", "use_onednn"):  # 2.6's name, 3.x's name
                op._set_attr(attribute, True)


def _feeds(images: Images, steps: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield batches in random order, with images mirrored at random."""
    generator = np.random.default_rng(_SEED)
    batches = len(images) // _BATCH
    for step in range(steps):
        if step % batches == 0:
            order = generator.permutation(len(images))
        chosen = order[step % batches * _BATCH :][:_BATCH]
        batch = images.decode(chosen)
        mirrored = generator.random(_BATCH) < 0.5
        batch[mirrored] = batch[mirrored, :, :, ::-1]
        yield {"image": batch, "label": images.labels[chosen, None]}


if __name__ == "__main__":
    main()
