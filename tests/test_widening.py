"""Channels of zeros for borders, written by convolutions instead of concatenations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onednn_runs import check_run, images, op_types, quantized
from paddle_run import run
from programs import CONV, UNPADDED, Net
from pyramids import MEAN, pyramid

from pyquant import compare
from pyquant.program.targets.onednn import emit

CHANNELS, DIMS = 16, [4, 8, 12, 12]


def written(act: str = "gelu", channels: int = CHANNELS) -> Net:
    """A float image with more positive than negative values."""
    net = Net(DIMS).conv(channels, UNPADDED)
    net.constant("elementwise_add", np.linspace(-1, 3, channels), 1)
    return net.act(act).act("softsign")  # the first is part of the convolution


def read(net: Net) -> Net:
    """Read an image by a padded convolution, for which unsigned integers pay."""
    return net.conv(24).act("relu").end()


def scaled(bias: float) -> Net:
    net = written()
    return read(
        net.then("scale", {"X": net.last}, "Out", {"scale": 0.5, "bias": bias}).act("swish")
    )


def multiplied() -> Net:
    net = written().constant("elementwise_mul", np.linspace(1, 2, CHANNELS).reshape(1, -1, 1, 1))
    return read(net.act("softsign"))


def squeezed() -> Net:
    """The factors come from the multiplied image, through convolutions that stay in float."""
    net = written()
    image, dims = net.last, net.dims
    net.dims = [*dims[:2], 1, 1]
    net.then("pool2d", {"X": image}, "Out", MEAN).conv(4, UNPADDED)
    net.constant("elementwise_add", np.linspace(-1, 1, 4), 1).act("relu").conv(CHANNELS, UNPADDED)
    net.constant("elementwise_add", np.linspace(-1, 1, CHANNELS), 1)
    net.then("hard_sigmoid", {"X": net.last}, "Out", {"slope": 0.2, "offset": 0.5})
    factor, net.dims = net.last, dims
    return read(net.then("elementwise_mul", {"X": image, "Y": factor}, "Out", {"axis": -1}))


def summed() -> Net:
    """A sum of two convolutions, one of which reads the other."""
    net = written()
    first = net.last
    second = net.conv(CHANNELS, UNPADDED).act("gelu").act("softsign").last
    return read(net.then("elementwise_add", {"X": first, "Y": second}, "Out", {"axis": -1}))


def upsampled() -> Net:
    return read(written().nearest(2))


def last_of_concatenated() -> Net:
    net = Net(DIMS)
    first = net.conv(8, UNPADDED).act("softsign").nearest(2).last
    net.last, net.dims = "x", DIMS
    second = net.conv(8, UNPADDED).act("gelu").nearest(2).last
    return read(net.concat(first, second))


def read_by_two() -> Net:
    net = written()
    image, dims = net.last, net.dims
    read(net)
    net.last, net.dims = image, dims
    return net.conv(40, {**CONV, "strides": [1, 1]}).act("tanh").end()


WIDENED: dict[str, tuple[Callable[[], Net], int]] = {
    "an image": (lambda: read(written()), 0),
    "an image, scaled": (lambda: scaled(0.0), 0),
    "channels multiplied": (multiplied, 0),
    "squeeze and excitation": (squeezed, 0),
    "a sum": (summed, 0),
    "an image, upsampled": (upsampled, 0),
    "the last one of a concatenation": (last_of_concatenated, 1),
    "two readers": (read_by_two, 0),
    "a pyramid": (pyramid, 0),
}


@pytest.mark.usefixtures("int8_of_any_size")
@pytest.mark.parametrize("options", [{}, {"weight_quantize_type": "abs_max"}], ids=str)
@pytest.mark.parametrize("name", WIDENED)
def test_images_have_the_zeros_from_the_start(
    name: str, options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else changes, not by a bit."""
    build, concats = WIDENED[name]
    dims = (4, 8, 24, 24) if name == "a pyramid" else tuple(DIMS)
    data = images(0, dims)
    quantized(build(), tmp_path, data, algo="abs_max", **options)
    types = op_types(tmp_path)
    assert types["concat"] == concats
    check_run(tmp_path, data, 0.05)
    monkeypatch.setattr(emit, "find_family", lambda *_: None)
    quantized(build(), tmp_path / "narrow", data, algo="abs_max", **options)
    assert op_types(tmp_path / "narrow")["fused_conv2d"] > types["fused_conv2d"]
    made = tmp_path / "int8", tmp_path / "narrow" / "int8"
    for wide, narrow in zip(*(run(path, {"x": data}, "float") for path in made)):
        np.testing.assert_array_equal(wide, narrow)


def first_of_concatenated() -> Net:
    net = Net(DIMS)
    first = net.conv(8, UNPADDED).act("gelu").nearest(2).last
    net.last, net.dims = "x", DIMS
    return read(net.nearest(2).concat(first, net.last))


def fetched() -> Net:
    net = written()
    net.fetch(net.last)
    return read(net)


def flattened() -> Net:
    net = written()
    image, dims = net.last, net.dims
    net.then("reshape2", {"X": image}, "Out", {"shape": [0, -1]}).end()
    net.last, net.dims = image, dims
    return read(net)


def pooled_for_many() -> Net:
    """More convolutions would have to write the zeros than read them."""
    net = written()
    for _ in range(2):
        other = net.last
        net.conv(CHANNELS, UNPADDED).act("gelu").act("softsign")
        net.then("elementwise_add", {"X": net.last, "Y": other}, "Out", {"axis": -1})
    return read(net)


NARROW: dict[str, Callable[[], Net]] = {
    "of no convolution": lambda: read(Net([4, 16, 12, 12]).act("gelu")),
    "channels that are not zeros": lambda: scaled(-0.5),
    "an activation of zero that is not zero": lambda: read(
        written("sigmoid").constant(
            "elementwise_add", np.linspace(-1, 0, CHANNELS).reshape(1, -1, 1, 1)
        )
    ),
    "not the last one of a concatenation": first_of_concatenated,
    "fetched": fetched,
    "read by what mixes channels": flattened,
    "of too many convolutions": pooled_for_many,
    "depthwise": lambda: read(
        written().conv(CHANNELS, {**CONV, "groups": CHANNELS}, "depthwise_conv2d").act("softsign")
    ),
    "of groups": lambda: read(
        Net(DIMS).conv(CHANNELS, {**CONV, "groups": 2}).act("gelu").act("softsign")
    ),
}


@pytest.mark.parametrize("name", NARROW)
def test_other_images_are_concatenated(name: str, tmp_path: Path) -> None:
    data = images(0, (4, 16 if name == "of no convolution" else 8, 12, 12))
    quantized(NARROW[name](), tmp_path, data, algo="abs_max")
    assert op_types(tmp_path)["concat"] == 1
    check_run(tmp_path, data, 0.05)


def test_wide_images_and_weights_are_compared(tmp_path: Path) -> None:
    data = images(0, tuple(DIMS))
    quantized(squeezed(), tmp_path, data)
    found = compare(tmp_path / "float", tmp_path / "int8", [data])
    assert [tensor.name for tensor in found.tensors if tensor.note] == []
    weights = [tensor for tensor in found.tensors if tensor.kind == "weight"]
    assert len(weights) == 4
    assert all(tensor.error is not None and tensor.error.sqnr > 30 for tensor in weights)


def test_a_network_of_other_widths_is_no_float_model_of_it(tmp_path: Path) -> None:
    """Channels that the float model lacks are left out only if they are for borders."""
    data = images(0, tuple(DIMS))
    read(written(channels=8)).save(tmp_path / "less")
    quantized(read(written()), tmp_path, data)
    found = compare(tmp_path / "less", tmp_path / "int8", [data])
    assert any("[" in tensor.note for tensor in found.tensors)
