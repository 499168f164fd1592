"""Models for Paddle-Lite: its optimizer takes them, if it is installed, and their form is right.

It picks the kernels for ARM on any machine. Its wheel needs a Python of 3.8 or 3.10:
``PADDLE_LITE_OPT`` names the program, which otherwise is sought by the search path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_forms import converted, folded
from ocr_images import inputs
from programs import Net

from bench.ocr import models
from pyquant import load_model, quant_post_dynamic, quant_post_static
from pyquant.program import proto
from pyquant.program.op import make_op
from pyquant.program.op_protos import complete

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
    optimized = tmp_path / "optimized"
    files = [f"--model_file={model}", f"--param_file={parameters}", f"--optimize_out={optimized}"]
    ran = subprocess.run(
        [str(OPT), *files, "--valid_targets=arm"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert optimized.with_suffix(".nb").stat().st_size > 1e5


@pytest.mark.parametrize(
    ("op_type", "name", "value"),
    [("relu6", "threshold", 6.0), ("swish", "beta", 1.0), ("fill_constant", "force_cpu", False)],
)
def test_ops_have_what_paddle_lite_reads(op_type: str, name: str, value: Any) -> None:
    op = make_op(op_type, {"X": ["x"]}, {"Out": ["y"]}, {})
    complete(op)
    assert op.value(name) == value


def test_integers_are_declared_as_the_floats_that_they_become(tmp_path: Path) -> None:
    model, *_ = weights_alone(activations(tmp_path), tmp_path / "out", None)
    written = load_model(model.parent, model.name)
    integers = [name for name, array in written.parameters.items() if array.dtype == np.int8]
    declared = {var.name: var for var in written.program.blocks[0].vars}
    assert len(integers) == 2
    for name in integers:
        assert proto.tensor_desc(declared[name]).data_type == proto.FP32
