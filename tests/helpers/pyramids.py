"""Pyramids of images: each level is multiplied by factors from its means, and added to the next."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from programs import POOLING, UNPADDED, Net

MEAN = {
    **{**POOLING, "pooling_type": "avg", "adaptive": True},
    **{"ksize": [1, 1], "strides": [1, 1], "paddings": [0, 0]},
}
CHANNELS = 16
DIMS = [4, 8, 24, 24]


def squeezed(net: Net, factor_of: Callable[[Net, str], str] | None = None) -> str:
    """Multiply a pointwise convolution by factors from its means; return its output before that."""
    image = net.conv(CHANNELS, UNPADDED).constant("elementwise_add", np.linspace(-1, 1, 16), 1).last
    dims = net.dims
    factor = (factor_of or means)(net, image)
    net.dims = dims
    net.then("elementwise_mul", {"X": image, "Y": factor}, "Out", {"axis": -1})
    return image


def means(net: Net, image: str) -> str:
    net.dims = [*net.dims[:2], 1, 1]
    net.then("pool2d", {"X": image}, "Out", MEAN)
    net.conv(4, UNPADDED).act("relu").conv(CHANNELS, UNPADDED).act("sigmoid")
    return net.then("scale", {"X": net.last}, "Out", {"scale": 1.0, "bias": 1.0}).last


def halved(net: Net, source: str, dims: list[int]) -> Net:
    net.dims = [*dims[:2], dims[2] // 2, dims[3] // 2]
    return net.then("pool2d", {"X": source}, "Out", POOLING)


def add(net: Net, first: str, second: str) -> str:
    return net.then("elementwise_add", {"X": first, "Y": second}, "Out", {"axis": -1}).last


def pyramid(act: str = "softsign") -> Net:
    """Two levels below a smallest one, each read by a convolution that takes uint8."""
    net = Net(DIMS)
    sources = [(net.last, net.dims)]
    for _ in range(2):
        halved(net, *sources[-1])
        sources.append((net.last, net.dims))
    above = net.conv(CHANNELS, UNPADDED).act(act).last
    for source, dims in reversed(sources[:-1]):
        net.last, upsampled_dims = above, net.dims
        net.dims = upsampled_dims
        upsampled = net.nearest(2).last
        net.last, net.dims = source, dims
        squeezed(net)
        above = add(net, upsampled, net.last)
        net.fetch(net.conv(24).act("relu").last)
        net.dims = [*dims[:1], CHANNELS, *dims[2:]]
    return net
