"""Biases that make up for the mean error of rounded weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from paddle_run import observe, relative_error, run
from processors import deployed
from programs import CONV, STRAIGHT, UNPADDED, Net
from static_runs import RUN, model_bytes

from pyquant import Calibration, calibrate, kernels, load_model, quant_post_static
from pyquant.calibration.channel_statistics import ChannelSums
from pyquant.calibration.forward import Forward
from pyquant.calibration.layouts import LAYOUTS, found_layout
from pyquant.calibration.statistic import ActivationHistogram, empty_statistic
from pyquant.program.op import Op
from pyquant.program.predictor import Optimization

IMAGES = programs.random((6, 8, 12, 12), 3) + np.float32(1)  # whose mean is not zero
LAST = programs.random((6, 12, 16, 8), 3) + np.float32(1)
ROWS = programs.random((6, 5, 32), 3) + np.float32(1)


def convolution() -> Net:
    return Net([6, 8, 12, 12]).conv(8, UNPADDED)


NETS: dict[str, Callable[[], Net]] = {
    "no bias": convolution,
    "bias": lambda: convolution().constant("elementwise_add", np.linspace(-1, 1, 8), 1),
    "relu": lambda: convolution().act("relu"),
    "groups": lambda: Net([6, 8, 12, 12]).conv(8, {**UNPADDED, "groups": 2}),
    "product": lambda: Net([6, 5, 32]).matmul(16, **STRAIGHT),
    "biased product": lambda: (
        Net([6, 5, 32])
        .matmul(16, **STRAIGHT)
        .constant("elementwise_add", np.linspace(-1, 1, 16), -1)
    ),
    "shared bias": lambda: shared_bias(),
}


def four_axes() -> Net:
    """A product after oneDNN's ops on images; it does not read along their channels."""
    net = Net([6, 8, 12, 12]).conv(16).act("relu")
    return net.matmul(8, **STRAIGHT)


def channels_last() -> Net:
    """Convolutions that read and write [samples, height, width, channels]."""
    net = Net([6, 12, 16, 8])
    for inputs in (8, 16):
        weight = net.parameter(f"w{inputs}", programs.random((16, inputs, 1, 1), inputs))
        net.dims = [6, 12, 16, 16]
        attributes = {**UNPADDED, "data_format": "NHWC"}
        net.then("conv2d", {"Input": net.last, "Filter": weight}, "Output", attributes)
    return net


def vector() -> Net:
    """A product of one axis, which has no samples."""
    return Net([32]).matmul(8, **STRAIGHT)


def shared_bias() -> Net:
    """Two convolutions in a row; the same parameter is added to both outputs."""
    net = convolution().constant("elementwise_add", np.linspace(-1, 1, 8), 1)
    bias = Op(net.block.ops[-1]).inputs("Y")[0]
    net.conv(8, UNPADDED)
    return net.then("elementwise_add", {"X": net.last, "Y": bias}, "Out", {"axis": 1})


@pytest.mark.parametrize("backend", ["QDQ", "OneDNN"])
@pytest.mark.parametrize("name", NETS)
def test_the_means_of_outputs_are_kept(tmp_path: Path, name: str, backend: str) -> None:
    net = NETS[name]()
    data = IMAGES if len(net.dims) == 4 else ROWS
    source = net.end().save(tmp_path / "in")

    def mean_error(**options: Any) -> float:
        batches = [data[:2], data[2:]]
        options = {"data_loader": batches, "verify": False, **deployed(backend), **options}
        wrong = wrong_by(source, tmp_path / "out", data, RUN[backend], **options)
        channels = np.moveaxis(wrong, 1 if wrong.ndim == 4 else -1, 0)
        return float(np.abs(channels.reshape(len(channels), -1).mean(axis=1)).mean())

    assert mean_error() < 0.4 * mean_error(bias_correction=False)


@pytest.mark.parametrize("backend", ["TensorRT", "ARM"])
@pytest.mark.parametrize("name", NETS)
def test_of_every_target(tmp_path: Path, name: str, backend: str) -> None:
    """TensorRT gets no further ops, which would separate an op from those fused to it."""
    net = NETS[name]()
    data = IMAGES if len(net.dims) == 4 else ROWS
    source = net.end().save(tmp_path / "in")
    sums = {}
    for corrects in (True, False):
        quant_post_static(
            None,
            source,
            tmp_path / "out",
            data_loader=[data],
            **deployed(backend),
            bias_correction=corrects,
        )
        ops = load_model(tmp_path / "out").ops()
        sums[corrects] = sum(op.type == "elementwise_add" for op in ops)
    has_bias = "bias" in name and name != "no bias"
    assert sums[True] == sums[False] + (backend == "ARM" and not has_bias)


@pytest.mark.parametrize("backend", ["TensorRT", "ARM"])
@pytest.mark.parametrize(
    ("make", "data"), [(four_axes, IMAGES), (vector, ROWS[0, 0]), (channels_last, LAST)]
)
def test_channels_along_other_axes(
    tmp_path: Path, make: Callable[[], Net], data: Any, backend: str
) -> None:
    source = make().end().save(tmp_path / "in")
    expected = run(source, {"x": data})[0]
    result = quant_post_static(
        None, source, tmp_path / "out", data_loader=[{"x": data}], **deployed(backend)
    )
    assert any(tensor.kind == "activation" for tensor in result.quantized)
    assert relative_error(run(result.model_path, {"x": data})[0], expected) < 0.05


@pytest.mark.parametrize("backend", ["QDQ", "OneDNN"])
def test_it_is_the_same_from_saved_calibrations(tmp_path: Path, backend: str) -> None:
    net = NETS["bias"]().act("relu").conv(8)
    source = net.end().save(tmp_path / "in")
    shards = [
        calibrate(source, data_loader=[part], **deployed(backend))
        for part in (IMAGES[3:], IMAGES[:1], IMAGES[1:3])
    ]
    Calibration.merge(shards).save(tmp_path / "all.npz")
    ways = {
        "here": {"data_loader": [IMAGES[:4], IMAGES[4:]]},
        "merged": {"calibration": tmp_path / "all.npz"},
        "checkpoint": {"data_loader": [IMAGES], "checkpoint": tmp_path / "state.npz"},
    }
    written = set()
    for name, data in ways.items():
        result = quant_post_static(None, source, tmp_path / name, **deployed(backend), **data)
        written.add(model_bytes(result.model_path.parent))
    assert len(written) == 1


def test_sums_do_not_depend_on_the_order() -> None:
    generator = np.random.default_rng(0)
    scales = np.float32(10.0) ** generator.integers(-6, 7, (40, 5, 1, 1))
    data = (generator.standard_normal((40, 5, 3, 7)) * scales).astype(np.float32)
    whole = ChannelSums()
    whole.add(kernels.channel_sums(data, 1), data.size)
    merged = ChannelSums()
    for begin, end in ((30, 40), (0, 11), (11, 12), (12, 30)):
        part = ChannelSums()
        part.add(kernels.channel_sums(data[begin:end], 1), data[begin:end].size)
        merged.merge(part)
    assert merged.positions == whole.positions == 40 * 21
    np.testing.assert_array_equal(merged.means, whole.means)
    expected = data.astype(np.float64).mean(axis=(0, 2, 3))
    bound = 3 * 2.0**-24 * np.abs(data).astype(np.float64).mean(axis=(0, 2, 3))
    assert (np.abs(whole.means - expected) <= bound).all()


def test_one_block_of_channels_is_all_of_them() -> None:
    plain = programs.random((2, 16, 5, 6))
    lying = plain.transpose(0, 2, 3, 1).copy().reshape(plain.shape)
    layout = found_layout(lying, plain)
    assert layout is not None
    np.testing.assert_array_equal(
        layout.blocks(lying)[:, 0].swapaxes(1, 2).reshape(plain.shape), plain
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_found_and_summed(name: str) -> None:
    layout = LAYOUTS[name]
    plain = programs.random((3, 32, 5, 6))
    block = layout.block or 32
    lying = plain.reshape(3, 32 // block, block, 30).swapaxes(2, 3).copy().reshape(plain.shape)
    assert found_layout(lying, plain) == layout
    sums = kernels.sample_maxima(layout.blocks(lying)).channel_sums
    np.testing.assert_array_equal(sums, kernels.channel_sums(plain, 1))
    assert found_layout(np.zeros_like(plain), np.zeros_like(plain)) is None
    assert found_layout(plain + 1, plain) is None


@pytest.mark.parametrize("optimization", Optimization)
def test_means_of_any_layout(tmp_path: Path, optimization: Optimization) -> None:
    """Channels in blocks and not in blocks, after ops that oneDNN computes and others."""
    net = Net([6, 8, 12, 12]).conv(16).act("relu").conv(32).act("hard_swish").conv(12)
    net.act("relu").conv(16)
    model = load_model(net.end().save(tmp_path / "in"))
    names = [name for op in model.ops() for name in op.writes() if op.type != "fetch"]
    statistics = {name: empty_statistic(ActivationHistogram, 1) for name in names}
    forward = Forward(model, names)
    while forward.optimization is not optimization:
        forward.weaken()
    for batch, data in enumerate((IMAGES[:2], IMAGES[2:4], IMAGES[4:])):
        forward.run({"x": data}, batch, statistics)
    _, seen = observe(model.model_path, model.params_path, {"x": IMAGES}, names)
    assert seen
    for name, values in seen.items():
        channels = statistics[name].channels
        assert channels is not None
        scale = np.abs(values).max()
        maxima = np.abs(values).max(axis=(0, 2, 3))
        np.testing.assert_allclose(channels.sample.abs_max, maxima, atol=1e-5 * scale)
        np.testing.assert_allclose(
            channels.sums.means, values.mean(axis=(0, 2, 3)), atol=1e-5 * scale
        )


def wrong_by(source: Path, directory: Path, data: Any, how: str, **options: Any) -> Any:
    """By how much weights of 4 bits change the outputs."""
    options = {"algo": "abs_max", "weight_bits": 4, **options}
    result = quant_post_static(None, source, directory, **options)
    expected = run(source, {"x": data})[0]
    return run(result.model_path, {"x": data}, how)[0] - expected


BY_TAPS: dict[str, Callable[[], Net]] = {
    "strided": lambda: Net([6, 8, 12, 12]).upsample(8),
    "strided more": lambda: Net([6, 8, 12, 12]).upsample(8, (4, 4)),
    "grouped": lambda: Net([6, 8, 12, 12]).upsample(8, groups=2),
    "multiplied": lambda: multiplied(),
}


def multiplied() -> Net:
    net = Net([6, 5, 32])
    weight = net.parameter("w1", programs.random((32, 16), 1))
    net.dims = [6, 5, 16]
    attributes = {"transpose_X": False, "transpose_Y": False, "alpha": 0.05}
    return net.then("matmul", {"X": "x", "Y": weight}, "Out", attributes)


@pytest.mark.parametrize("name", BY_TAPS)
def test_a_weight_counts_for_what_reaches_an_output(tmp_path: Path, name: str) -> None:
    """Only a share of a transposed convolution's taps reaches it; a product may have a factor."""
    net = BY_TAPS[name]()
    channels, axis = net.dims[1 if len(net.dims) == 4 else -1], 1 if len(net.dims) == 4 else -1
    data = IMAGES if axis == 1 else ROWS
    net.constant("elementwise_add", np.linspace(-1, 1, channels), axis)
    source = net.end().save(tmp_path / "in")
    errors = []
    for corrects in (True, False):
        options = {"deploy_backend": "TensorRT", "bias_correction": corrects}
        wrong = wrong_by(source, tmp_path / "out", data, "plain", data_loader=[data], **options)
        by_channel = np.moveaxis(wrong, axis, 0).reshape(channels, -1)
        errors.append(float(np.abs(by_channel.mean(axis=1)).mean()))
    assert errors[0] < 0.4 * errors[1]


def test_sums_of_many_samples_do_not_overflow() -> None:
    """Each adds less than 2^40 fractions to 63 bits."""
    sums = ChannelSums()
    part = np.full((2**21, 1), 0.75)
    for _ in range(9):
        sums.add(part, part.size)
    assert sums.positions == 9 * 2**21
    assert sums.means.tolist() == [0.75]


PADDED: dict[str, dict[str, Any]] = {
    "evenly": CONV,
    "on one side": {**CONV, "paddings": [0, 2, 1, 0]},
    "strided": {**CONV, "strides": [2, 2]},
    "SAME": {**CONV, "padding_algorithm": "SAME"},
    "dilated": {**CONV, "dilations": [2, 2], "paddings": [2, 2]},
}


@pytest.mark.parametrize("name", PADDED)
def test_padded_zeros_lack_nothing(tmp_path: Path, name: str) -> None:
    """In images of 4 x 4, each corner tap reaches beyond the border at 7 of 16 positions."""
    source = Net([6, 8, 4, 4]).conv(8, PADDED[name]).end().save(tmp_path / "in")
    data = np.full((6, 8, 4, 4), 2, np.float32)
    options = {"data_loader": [data], "deploy_backend": "ARM"}
    wrong = wrong_by(source, tmp_path / "out", data, "plain", **options)
    expected = run(source, {"x": data})[0]
    lacking = np.abs(wrong.mean(axis=(0, 2, 3))).max()
    assert lacking < 1e-3 * np.abs(expected).max()
