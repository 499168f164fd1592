"""Int8 runs of QDQ programs against their simulation, op by op."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paddle_run
import programs
import pytest
import qdq
from ocr_images import inputs
from processors import QDQ, needs_vnni
from programs import CONV, POOLING, Net
from static_runs import error_of, quantized

from bench.ocr import models
from pyquant import Model, load_model, quant_post_static, save_model
from pyquant.program.op import Op, ops_of


def run(model: Model, directory: Path, feed: Any, how: str) -> Any:
    paths = save_model(model, directory, "m.pdmodel", "m.pdiparams")
    return paddle_run.predict(*paths[:2], feed, how)[0]


# How many ops of each kind in a model are tested, each alone, so that no rounding spreads.
KINDS = {
    models.RECOGNITION: {"conv2d": 3, "matmul_v2": 3, "conv2d of a relu": 2},
    models.DIRECTION: {"conv2d": 2, "depthwise_conv2d of a relu": 3},
}


@pytest.mark.usefixtures("int8_of_any_size")
@pytest.mark.parametrize("name", KINDS)
def test_each_op_of_a_real_model_alone_computes_what_is_simulated(
    name: str, tmp_path: Path
) -> None:
    needs_vnni()
    images = inputs(name, 8)
    directory = tmp_path / "int8"
    # With outliers, int8 changes more than the float kernels of the other ops differ.
    options = {"data_loader": [images], "equalize": False, "verify": False, **QDQ}
    quant_post_static(None, models.model_dir(name), directory, **options)
    model = without_softmax(load_model(directory))
    feed = {"x": images[:2]}
    floats = run(qdq.with_only(model, ()), tmp_path, feed, "plain")
    found: defaultdict[str, list[str]] = defaultdict(list)
    for output, op in qdq.quantized_ops(model).items():
        found[f"{op.type} of a relu" if qdq.is_behind_relu(model, op) else op.type].append(output)
    for kind, count in KINDS[name].items():
        assert len(found[kind]) >= count
        for output in found[kind][:count]:
            alone = qdq.with_only(model, (output,))
            simulation = qdq.with_levels_of_the_run(alone)
            simulated = run(simulation, tmp_path, feed, "plain")
            int8 = run(alone, tmp_path, feed, "int8")
            changed = paddle_run.relative_error(simulated, floats)
            assert changed > 1e-4
            assert paddle_run.relative_error(int8, simulated) < 0.05 * changed, output


def without_softmax(model: Model) -> Model:
    """Let the model end before its softmax, which hides the differences of its input."""
    block = model.program.blocks[0]
    (position,) = [i for i, op in enumerate(ops_of(block)) if model.fetches[0] in op.writes()]
    softmax = Op(block.ops[position]).copy()
    assert softmax.type == "softmax"
    del block.ops[position]
    Op(block.ops[-1]).rename_inputs({model.fetches[0]: softmax.reads()[0]})
    return model


def depthwise_net() -> Net:
    net = Net([4, 3, 8, 8]).conv(16).act("relu")
    return net.conv(16, {**CONV, "groups": 16}, "depthwise_conv2d").conv(8).end()


def residual_net() -> Net:
    net = Net([4, 3, 8, 8]).conv(8).act("relu")
    shared = net.last
    net.conv(8).act("relu").conv(8)
    net.then("elementwise_add", {"X": net.last, "Y": shared}, "Out", {"axis": -1}).act("relu")
    return net.conv(8).end()


NETS: dict[str, Callable[[], Net]] = {"depthwise": depthwise_net, "residual": residual_net}


@pytest.mark.parametrize("name", NETS)
def test_a_network_of_relus_runs_with_unsigned_levels(name: str, tmp_path: Path) -> None:
    if name in ("depthwise", "residual"):
        needs_vnni()
    source = NETS[name]().save(tmp_path / "float")
    feed = {"x": programs.random((4, 3, 8, 8), 3)}
    quantized(tmp_path, [feed], **QDQ)
    model = load_model(tmp_path / "int8")
    floats = paddle_run.run(source, feed)[0]
    int8 = run(model, tmp_path / "out", feed, "int8")
    simulated = run(qdq.with_levels_of_the_run(model), tmp_path / "out", feed, "plain")
    assert paddle_run.relative_error(int8, simulated) < 0.2 * paddle_run.relative_error(
        int8, floats
    )


def concat_net() -> Net:
    """A convolution of averages that are much smaller than the values averaged."""
    net = Net([4, 3, 8, 8])
    image = net.last
    pooling = {"pooling_type": "avg", "ksize": [3, 3], "strides": [1, 1], "paddings": [1, 1]}
    pooled = []
    for _ in range(2):
        net.last, net.dims = image, [4, 3, 8, 8]
        net.conv(8).act("tanh").constant("elementwise_mul", [3.0]).act("exp")
        pooled.append(net.then("pool2d", {"X": net.last}, "Out", pooling).last)
    net.dims[1] = 16
    net.then("concat", {"X": pooled[0]}, "Out", {"axis": 1})
    net.block.ops[-1].inputs[0].arguments.append(pooled[1])
    return net.conv(4).end()


def test_what_concatenates_an_average_pooling_stays_in_float(tmp_path: Path) -> None:
    needs_vnni()
    concat_net().save(tmp_path / "float")
    feed = {"x": programs.random((4, 3, 8, 8), 3)}
    result = quantized(tmp_path, [feed], **QDQ)
    (kept,) = result.kept_float
    assert "average pooling" in kept.reason
    model = load_model(tmp_path / "int8")
    int8, simulated = (run(model, tmp_path / "out", feed, how) for how in ("int8", "plain"))
    assert paddle_run.relative_error(int8, simulated) < 1e-5


def concatenated(*acts: str | None) -> Net:
    """A concatenation of convolutions with these activations."""
    net = Net([4, 8, 12, 12])
    outputs = []
    for act in acts:
        net.last, net.dims = "x", [4, 8, 12, 12]
        net.conv(16)
        outputs.append((net if act is None else net.act(act)).last)
    return net.concat(*outputs)


def joined(*acts: str | None) -> Net:
    return concatenated(*acts).conv(3).end()


def dense() -> Net:
    """A concatenation of a relu with the output of a convolution that also reads this relu."""
    net = Net([4, 8, 12, 12]).conv(16).act("relu")
    first = net.last
    return net.conv(16).act("relu").concat(first, net.last).conv(3).end()


def carried() -> Net:
    """A concatenation of relus whose pooling and tanh are concatenated in turn."""
    net = concatenated("relu", "relu")
    first = net.last
    pooling = {**POOLING, "ksize": [3, 3], "strides": [1, 1], "paddings": [1, 1]}
    pooled = net.then("pool2d", {"X": first}, "Out", pooling).last
    net.last = first
    return net.act("tanh").concat(pooled, net.last).conv(3).end()


@pytest.mark.parametrize(
    ("net", "runs"),
    [
        (joined("relu", "relu"), True),
        (joined(None, "hard_swish"), True),
        (joined("relu", None), False),
        (joined("relu", "tanh"), False),
        (dense(), False),
        (carried(), False),
    ],
)
def test_concatenations_of_both_types_of_integers(net: Net, runs: bool, tmp_path: Path) -> None:
    """OneDNN does not join int8 with uint8, which Paddle's passes make only of relus."""
    data = programs.random((4, 8, 12, 12), 3)
    net.save(tmp_path / "float")
    result = quantized(tmp_path, [data], **QDQ)
    assert any("concatenation" in op.reason for op in result.kept_float) == (not runs)
    assert error_of(tmp_path, data, "int8") < 0.05
