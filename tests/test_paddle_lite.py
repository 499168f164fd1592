"""Models for Paddle-Lite: its optimizer takes them, if it is installed, and their form is right.

It picks the kernels for ARM on any machine. Its wheel needs a Python of 3.8 or 3.10:
``PADDLE_LITE_OPT`` names the program, which otherwise is sought by the search path.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from model_forms import converted, folded
from ocr_images import inputs
from programs import Net, random

from bench.networks import export, vision_network
from bench.ocr import models
from pyquant import load_model, quant_post_dynamic, quant_post_static
from pyquant.program import proto
from pyquant.program.op import make_op
from pyquant.program.op_protos import complete
from pyquant.program.quantizable import QUANTIZABLE_OPS

pytestmark = pytest.mark.any_isa

OPT = shutil.which(os.environ.get("PADDLE_LITE_OPT", "paddle_lite_opt"))
Write = Callable[[Path, Path, Any], tuple[Path, ...]]


def for_arm(source: Path, directory: Path, data: Any) -> tuple[Path, ...]:
    result = quant_post_static(
        None, source, directory, data_loader=[data], deploy_backend="ARM", algo="abs_max"
    )
    assert result.params_path is not None
    return result.model_path, result.params_path


def weights_alone(source: Path, directory: Path, data: Any) -> tuple[Path, ...]:
    result = quant_post_dynamic(source, directory, lite_format=True)
    assert result.params_path is not None
    return result.model_path, result.params_path


FORMS: list[Write] = [converted, folded, for_arm, weights_alone]


def activations(directory: Path) -> Path:
    net = Net([4, 8, 8, 8]).conv(8).act("relu6").conv(8).act("swish").end()
    return net.save(directory / "in")


@pytest.mark.skipif(OPT is None, reason="paddle_lite_opt is not installed")
@pytest.mark.parametrize("write", FORMS)
@pytest.mark.parametrize("name", [models.RECOGNITION, models.DETECTION, models.DIRECTION])
def test_paddle_lites_optimizer_takes_a_model(name: str, write: Write, tmp_path: Path) -> None:
    model, parameters, *_ = write(models.model_dir(name), tmp_path / "out", inputs(name, 1))
    assert optimized(model, parameters)


COMPUTING = ("conv2d", "depthwise_conv2d", "fc", "matmul", "matmul_v2", "mul")


@pytest.mark.skipif(OPT is None, reason="paddle_lite_opt is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what Paddle's networks use
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "resnet18"])
def test_all_convolutions_and_products_are_int8(name: str, tmp_path: Path) -> None:
    paddle.disable_static()
    try:
        export(vision_network(name), tmp_path / "in" / "model", [3, 64, 64])
    finally:
        paddle.enable_static()
    model, parameters, *_ = for_arm(tmp_path / "in", tmp_path / "out", random((1, 3, 64, 64), 1))
    kernels = optimized(model, parameters)
    computing = {one: count for one, count in kernels.items() if one[0] in COMPUTING}
    assert {precision for _, precision in computing} == {"int8_t"}
    ops = load_model(model.parent).ops()
    assert sum(computing.values()) == sum(op.type in QUANTIZABLE_OPS for op in ops)


def optimized(model: Path, parameters: Path) -> Counter[tuple[str, str]]:
    """Return how often Paddle-Lite's optimizer takes a kernel: its op type, and its precision."""
    output = model.parent / "optimized"
    files = [f"--model_file={model}", f"--param_file={parameters}", f"--optimize_out={output}"]
    ran = subprocess.run(
        [str(OPT), *files, "--valid_targets=arm"],
        env={**os.environ, "GLOG_v": "4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-2000:]
    assert output.with_suffix(".nb").stat().st_size > 1e5
    return Counter(re.findall(r"Statement (\w+) arm/(\w+)", ran.stdout + ran.stderr))


@pytest.mark.parametrize(
    ("op_type", "name", "value"),
    [("relu6", "threshold", 6.0), ("swish", "beta", 1.0), ("fill_constant", "force_cpu", False)],
)
def test_ops_have_what_paddle_lite_reads(op_type: str, name: str, value: Any) -> None:
    op = make_op(op_type, {"X": ["x"]}, {"Out": ["y"]}, {})
    complete(op)
    assert op.value(name) == value


def test_a_pdmodel_gets_what_paddle_lite_reads(tmp_path: Path) -> None:
    written = load_model(converted(activations(tmp_path), tmp_path / "out", None)[0].parent)
    values = {op.type: (op.value("threshold"), op.value("beta")) for op in written.ops()}
    assert values["relu6"] == (6.0, None)
    assert values["swish"] == (None, 1.0)


def test_integers_are_declared_as_the_floats_that_they_become(tmp_path: Path) -> None:
    model, *_ = weights_alone(activations(tmp_path), tmp_path / "out", None)
    written = load_model(model.parent, model.name)
    integers = [name for name, array in written.parameters.items() if array.dtype == np.int8]
    declared = {var.name: var for var in written.program.blocks[0].vars}
    assert len(integers) == 2
    for name in integers:
        assert proto.tensor_desc(declared[name]).data_type == proto.FP32
