"""Integer weights whose products no kernel of oneDNN saturates, whatever the processor.

Without VNNI, kernels multiply uint8 activations by int8 weights with ``vpmaddubsw``: it adds the
products of two neighbouring inputs in 16 bits, and saturates. Kernels that read int8 activations
add 128 to them first. For these, convolutions halve the weights when they are loaded, and round
them once more; then no sum saturates (``scale_adjust`` in oneDNN's
``jit_uni_x8s8s32x_conv_kernel.cpp``, ``jit_avx512_core_x8s8s32x_conv_kernel.cpp``,
``jit_brgemm_conv_utils.cpp``). Inner products halve nothing (``gemm_x8s8s32x_inner_product.cpp``).
So with 8 bits

- two neighbouring weights of the same sign may add up to 128: 255 * 128 fits into 16 bits;
- weights that are halved have to be even: they are integers of 7 bits, doubled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..matrix_products import PRODUCTS
from ..op import Op
from ..quantizable import CONVOLUTIONS, WeightedOp
from ..weights import QuantizedWeight

ANY, VNNI = "any", "vnni"
PROCESSORS = (ANY, VNNI)
"""The processors for which integers are chosen: all, or those that never saturate."""

HALVED_BITS = 7
"""The bits of integers that are doubled because a kernel may halve them."""


def is_halved(op: WeightedOp, is_unsigned: bool) -> bool:
    """Return whether kernels halve the weight of an op that reads uint8 or, otherwise, int8."""
    return op.op_type in CONVOLUTIONS and not is_unsigned


def without_saturation(
    weight: QuantizedWeight, op: WeightedOp, desc: Op, is_unsigned: bool
) -> QuantizedWeight:
    """Return a weight as integers that an op multiplies exactly on every processor.

    Integers that were made already are kept if they will do. ``is_unsigned`` says whether the op
    reads uint8, and otherwise int8.
    """
    halved = is_halved(op, is_unsigned)
    bits = min(weight.bits, HALVED_BITS) if halved else weight.bits
    shape = weight.stored.shape
    adds = _adds_halved_neighbours(desc, shape) if halved else _adds_neighbours(op, desc, shape)
    fits_in_pairs = weight.fits_in_pairs or (adds and (halved or bits > HALVED_BITS))
    if bits == weight.bits and fits_in_pairs == weight.fits_in_pairs:
        return weight
    return replace(weight, bits=bits, fits_in_pairs=fits_in_pairs, rounded=None, known=None)


def _adds_neighbours(op: WeightedOp, desc: Op, shape: Sequence[int]) -> bool:
    """Return whether the kernels of an op add products of neighbours in 16 bits.

    Those of depthwise convolutions, with one filter for each channel, do not.
    """
    if op.op_type in PRODUCTS:
        return True
    groups = desc.geometry().groups
    return groups == 1 or tuple(shape[:2]) != (groups, 1)


def _adds_halved_neighbours(desc: Op, shape: Sequence[int]) -> bool:
    """Return whether a convolution may be computed as an inner product, which halves nothing.

    It may if it has one position, more than 27 taps, and no padding (``ip_convolution.hpp``). With
    the algorithm "SAME", the padding depends on the feature map, and there may be none.
    """
    paddings = desc.geometry().paddings
    is_padded = paddings is not None and any(map(any, paddings))
    return math.prod(shape[2:]) > _MOST_TAPS_OF_CONVOLUTIONS and not is_padded


_MOST_TAPS_OF_CONVOLUTIONS = 27
