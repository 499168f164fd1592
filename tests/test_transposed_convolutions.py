"""Transposed convolutions of every kind, for every target: int8, or float with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from processors import deployed
from programs import CONV, Net
from static_runs import RUN, error_of, quantized

IMAGES = programs.random((4, 8, 6, 7), 3) + np.float32(0.5)
UNPADDED = {"paddings": [0, 0]}
TWICE = {"strides": [2, 2], **UNPADDED}

# For each kind: the outputs, the kernel and the attributes.
KINDS: dict[str, tuple[int, tuple[int, int], dict[str, Any]]] = {
    "plain": (8, (3, 3), {}),
    "to one channel": (1, (3, 3), {}),
    "to one channel by blocks": (1, (2, 2), TWICE),
    "by blocks": (8, (2, 2), TWICE),
    "four by four": (8, (4, 4), {"strides": [2, 2]}),
    "in two groups": (8, (3, 3), {"groups": 2}),
    "to one channel of each group": (2, (3, 3), {"groups": 2}),
    "depthwise": (8, (3, 3), {"groups": 8, "strides": [2, 2]}),
    "dilated": (8, (3, 3), {"dilations": [2, 2]}),
    "strided": (8, (3, 3), {"strides": [2, 2]}),
    "strided along one axis": (8, (3, 3), {"strides": [2, 1]}),
    "apart": (8, (2, 2), {"strides": [3, 3], **UNPADDED}),
    "SAME": (8, (3, 3), {"padding_algorithm": "SAME", "strides": [2, 2]}),
    "VALID": (8, (3, 3), {"padding_algorithm": "VALID"}),
    "padded on one side": (8, (3, 3), {"paddings": [0, 1, 2, 0]}),
    "padded outputs": (8, (3, 3), {"strides": [2, 2], "output_padding": [1, 0]}),
    "of a given size": (8, (3, 3), {"strides": [2, 2], "output_size": [12, 14]}),
    "pointwise": (8, (1, 1), UNPADDED),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "accurate": {"algo": "auto", "equalize": False, "round_type": "adaround"},
}


def around(kind: str, sizes: list[int]) -> Net:
    """A convolution, a transposed one of this kind, and another one that reads its output."""
    outputs, kernel, attributes = KINDS[kind]
    net = Net([4, 8, *sizes]).conv(8).act("relu")
    shape = (8, outputs // attributes.get("groups", 1), *kernel)
    weight = net.parameter("wt", programs.random(shape, 2))
    net.dims = [4, outputs, -1, -1]
    read = {"Input": net.last, "Filter": weight}
    net.then("conv2d_transpose", read, "Output", {**CONV, **attributes})
    return net.act("relu").conv(6).end()


def test_adaround_tells_the_weights_that_it_leaves_out(tmp_path: Path) -> None:
    around("plain", [6, 7]).save(tmp_path / "float")
    settings = {"deploy_backend": "TensorRT", "round_type": "adaround"}
    (note,) = (n for n in quantized(tmp_path, [IMAGES], **settings).notes if "adaround" in n)
    assert "weight 'wt' of a transposed convolution has its nearest integers" in note


@pytest.mark.parametrize(
    ("options", "sizes"),
    [("default", [6, 7]), ("default", [-1, -1]), ("accurate", [6, 7])],
    ids=["fixed", "dynamic", "accurate"],
)
@pytest.mark.parametrize("backend", RUN)
@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_near_float(
    kind: str, backend: str, options: str, sizes: list[int], tmp_path: Path
) -> None:
    around(kind, sizes).save(tmp_path / "float")
    batches = [IMAGES[:2], IMAGES[2:]]
    result = quantized(tmp_path, batches, **deployed(backend), **OPTIONS[options])
    assert error_of(tmp_path, IMAGES, RUN[backend]) < 0.06
    assert "x" in result.thresholds()
    assert backend != "TensorRT" or not result.kept_float


@pytest.mark.parametrize("backend", ["QDQ", "OneDNN"])
def test_what_lies_in_blocks_is_read_as_floats(backend: str, tmp_path: Path) -> None:
    """Transposed ones of one group and whole strides write outputs that can become integers."""
    kept = {}
    kinds = "by blocks", "of a given size", "four by four", "strided", "plain", "depthwise"
    for kind in kinds:
        around(kind, [6, 7]).save(tmp_path / "float")
        result = quantized(tmp_path, [IMAGES], **deployed(backend))
        kept[kind] = [op.op_type for op in result.kept_float if "in blocks" in op.reason]
    assert kept == {kind: ["conv2d"] * (index > 2) for index, kind in enumerate(kinds)}


@pytest.mark.parametrize("backend", ["TensorRT", "ARM"])
def test_what_it_reads_can_be_divided(backend: str, tmp_path: Path) -> None:
    data = IMAGES.copy()
    data[:, 1] *= 30
    net = Net(list(data.shape)).upsample(8).end()
    net.save(tmp_path / "float")
    errors = []
    for equalize in (True, False):
        options = {"algo": "abs_max", "equalize": equalize}
        quantized(tmp_path, [data], **deployed(backend), **options)
        errors.append(error_of(tmp_path, data, RUN[backend]))
    assert errors[0] < errors[1] / 1.4
