"""Networks of ``paddle.vision.models``, with random weights, as model files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyquant


def vision_network(name: str) -> Any:
    """Return a network of ``paddle.vision.models``."""
    from paddle.vision import models

    return getattr(models, name)()


def export(network: Any, path: Path, dims: list[int]) -> None:
    """Write ``path``.json and its parameters; the input is ``image``, [batch, *dims]."""
    import paddle

    network.eval()
    spec = paddle.static.InputSpec([None, *dims], "float32", "image")
    paddle.jit.save(network, str(path), input_spec=[spec])


def export_legacy(name: str, directory: Path) -> tuple[Path, Path]:
    """Write a network of ``paddle.vision.models`` as ``.pdmodel``; return its two files."""
    import paddle

    paddle.disable_static()
    export(vision_network(name), directory / "json" / "model", [3, 224, 224])
    model = pyquant.load_model(directory / "json")
    paths = pyquant.save_model(model, directory, "model.pdmodel", "model.pdiparams")
    add_op_roles(model, paths[0])
    return paths[0], paths[1]


def add_op_roles(model: pyquant.Model, path: Path) -> None:
    """Write a model's program again with what Paddle's PTQ needs and pyquant leaves out."""
    for op in model.ops():
        op.set_attr("op_role", 0)
    path.write_bytes(model.program.SerializeToString())
