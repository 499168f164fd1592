"""Weights as integers: symmetric, per channel or per tensor, nothing saturated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from .. import kernels
from ..errors import NonFiniteWeightError
from .mapped_files import forget_pages
from .model import Model, Pending
from .parameters import Array, DerivedTensor, row_chunks
from .quantizable import WeightedOp

WEIGHT_QUANTIZE_TYPES = ("channel_wise_abs_max", "abs_max")
"""PaddleSlim's names of one threshold per channel and of one per tensor."""

# Below this, Paddle's kernels no longer divide by a scale (inverse() in fake_quantize_functor.h).
_SMALLEST_THRESHOLD = np.float32(1e-30)


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight as integers, which are made when they are written."""

    name: str  # of the float parameter
    stored: Array  # the parameter; of its shape and type alone if pending. ``uint16`` is bfloat16.
    axis: int  # of the channels; -1 for one threshold per tensor
    bits: int  # of the integers, which are stored in 8 or 16
    file: Path  # where the parameter was read from, for messages
    rounded: Array | None = None  # the integers, if already made or not just the nearest ones
    known: Array | None = None  # the threshold, if it is known already
    pending: Pending | None = None  # the parameter, if it is yet to be made
    # Whether the threshold also covers the sum of two neighbouring inputs of an output channel
    # (see `saturation`).
    fits_in_pairs: bool = False

    @property
    def source(self) -> Array:
        """The float parameter; a pending one is made anew each time, so that it takes no memory."""
        return self.stored if self.pending is None else self.pending.make()

    def made(self) -> QuantizedWeight:
        """Return the same weight with its float values in memory."""
        return self if self.pending is None else replace(self, stored=self.source, pending=None)

    def keeping(self, made: QuantizedWeight, keeps_integers: bool) -> QuantizedWeight:
        """Return the same weight with the threshold of ``made``; free the pages of its floats.

        With ``keeps_integers``, it has those of ``made`` as well.
        """
        integers = made.integers if keeps_integers else None
        kept = replace(self, rounded=integers, known=made.threshold)
        for array in (self.stored, *([] if integers is None else [integers])):
            forget_pages(array)
        return kept

    @cached_property
    def threshold(self) -> Array:
        """The magnitude that maps to 2^(bits-1)-1: float32[channels], or [1] for one per tensor.

        Raises:
            NonFiniteWeightError: the weight holds NaN or infinity.
        """
        if self.known is not None:
            return self.known
        if self.why_float is not None:
            raise NonFiniteWeightError(
                f"{self.file}: {self.why_float}. Keep its ops in float by skip_tensor_list."
            )
        # A channel of zeros has no scale; any finite one keeps it zero, and kernels divide by it.
        magnitude = self._magnitude
        return np.where(magnitude <= _SMALLEST_THRESHOLD, np.float32(1), magnitude)

    @property
    def why_float(self) -> str | None:
        """Why the weight cannot become integers, or None; the first call reads the weight."""
        if self.known is not None or np.isfinite(self._magnitude).all():
            return None
        bad = np.count_nonzero(~np.isfinite(self._magnitude))
        return (
            f"weight '{self.name}' holds NaN or infinity in {bad} of {self._magnitude.size} "
            "channel(s)"
        )

    @property
    def values(self) -> DerivedTensor:
        """The integers, int8 or int16, of the weight's shape, in chunks."""
        dtype = np.dtype(np.int8 if self.bits <= 8 else np.int16)
        return DerivedTensor(self.stored.shape, dtype, self._chunks)

    @cached_property
    def integers(self) -> Array:
        """All values as one array, which is kept in memory."""
        if self.rounded is not None:
            return self.rounded
        integers = np.empty(self.stored.shape, self.values.dtype)
        source = self.source
        for rows in row_chunks(self.stored):
            self._round(source[rows], rows, integers[rows])
        return integers

    @property
    def scale(self) -> DerivedTensor:
        """The step, threshold / (2^(bits-1)-1), shaped to multiply the values: float32."""
        shape = [1] * self.stored.ndim
        shape[self.axis] = 1 if self.axis < 0 else self.stored.shape[self.axis]
        return DerivedTensor(tuple(shape), np.dtype(np.float32), lambda: [self.step])

    @property
    def full_scale(self) -> Array:
        """The magnitude that maps to the largest integer that can be stored.

        It is the threshold if all bits are used. Paddle's int8 passes take every stored integer for
        one of 8 bits, whatever ``bit_length`` says (``quant_dequant_onednn_pass.cc``).
        """
        stored_levels = 2 ** (8 * self.values.dtype.itemsize - 1) - 1
        unused = np.float32(stored_levels / (2 ** (self.bits - 1) - 1))
        full_scale: Array = self.threshold * unused
        return full_scale

    @property
    def full_scales(self) -> DerivedTensor:
        """The full scale as a tensor, made when it is written."""
        channels = 1 if self.axis < 0 else self.stored.shape[self.axis]
        return DerivedTensor((channels,), np.dtype(np.float32), lambda: [self.full_scale])

    @property
    def step(self) -> Array:
        """The step between neighbouring integers: float32, in the shape of the threshold."""
        levels = np.float32(2 ** (self.bits - 1) - 1)
        step: Array = (self.threshold / levels).astype(np.float32)
        with np.errstate(over="ignore"):  # as of a mask that holds the least float
            is_finite = np.isfinite(step * levels)
        return np.where(is_finite, step, np.nextafter(step, np.float32(0)))

    @property
    def share_lost(self) -> float:
        """The share of the values other than zero that become zero; reads the weight."""
        lost, nonzero, source = 0, 0, self.source
        for rows in row_chunks(self.stored):
            part = source[rows]
            is_nonzero = part & 0x7FFF if part.dtype == np.uint16 else part
            count = int(np.count_nonzero(is_nonzero))
            integers = self._round(part, rows, np.empty(part.shape, self.values.dtype))
            lost += count - int(np.count_nonzero(integers))
            nonzero += count
        return lost / max(1, nonzero)

    @property
    def dequantized(self) -> DerivedTensor:
        """The float values that the quantized program computes with, bit for bit."""
        return DerivedTensor(self.stored.shape, self.stored.dtype, self._floats)

    def inputs_for_sums_of_zero(self, zero_point: int) -> int:
        """Return how many inputs `with_sums_of_zero` adds."""
        return int(self.with_sums_of_zero(zero_point).stored.shape[1] - self.stored.shape[1])

    def with_sums_of_zero(self, zero_point: int) -> QuantizedWeight:
        """Return the filter with further inputs that make the integers at each tap sum to zero.

        These inputs read only ``zero_point``. Two of them fit into 16 bits together, and none is
        the neighbour of an original input (see `saturation`).
        """
        integers = self.integers
        rest = -integers.sum(axis=1, dtype=np.int32)
        levels = min(2 ** (self.bits - 1) - 1, (2**15 - 1) // (2 * zero_point))
        added: list[Array] = [np.zeros_like(rest)] * (integers.shape[1] % 2)
        # Kernels multiply four inputs at once.
        while (integers.shape[1] + len(added)) % 4 or rest.any():
            added.append(np.clip(rest, -levels, levels))
            rest = rest - added[-1]
        if not added:
            return self
        rounded = np.concatenate([integers, np.stack(added, 1).astype(integers.dtype)], 1)
        return self._of_integers(rounded, self.threshold)

    def with_zeros(self, outputs: int, inputs: int) -> QuantizedWeight:
        """Return the filter with this many further outputs and inputs, whose taps are zero."""
        added = [(0, outputs), (0, inputs)] + [(0, 0)] * (self.stored.ndim - 2)
        threshold = self.threshold
        if self.axis == 0:  # a channel of zeros has no scale; any finite one keeps it zero
            threshold = np.pad(threshold, (0, outputs), constant_values=1)
        return self._of_integers(np.pad(self.integers, added), threshold)

    def _of_integers(self, integers: Array, threshold: Array) -> QuantizedWeight:
        stored = np.broadcast_to(np.float32(0), integers.shape)
        return replace(self, stored=stored, rounded=integers, known=threshold, pending=None)

    @cached_property
    def _magnitude(self) -> Array:
        """The largest magnitude of each channel, or of the tensor: float32."""
        if not self.stored.size:
            return self._part_abs_max(self.stored)
        source = self.source
        if self.fits_in_pairs:
            maxima = _pair_maxima(source)
            return maxima if self.axis >= 0 else maxima.max(keepdims=True)
        parts = [self._part_abs_max(source[part]) for part in row_chunks(self.stored)]
        if self.axis == 0:
            return np.concatenate(parts)
        maximum: Array = np.maximum.reduce(parts)
        return maximum

    def _part_abs_max(self, part: Array) -> Array:
        dtype = bfloat16_name(part)
        if self.axis < 0:
            return np.array([kernels.abs_max(part, dtype=dtype)], np.float32)
        return kernels.channel_abs_max(part, self.axis, dtype=dtype)

    def _chunks(self) -> Iterator[Array]:
        if self.rounded is not None:
            yield from (self.rounded[rows] for rows in row_chunks(self.stored))
            return
        buffers: list[Array | None] = [None, None]
        source = self.source
        for rows in row_chunks(self.stored):
            part = source[rows]
            buffers.reverse()
            out = buffers[0]
            if out is None or len(out) != len(part):
                out = buffers[0] = np.empty(part.shape, self.values.dtype)
            yield self._round(part, rows, out)

    def _round(self, part: Array, rows: slice, out: Array) -> Array:
        axis = None if self.axis < 0 else self.axis
        threshold = self.threshold[rows] if axis == 0 else self.threshold
        return kernels.quantize(
            part, threshold, axis, self.bits, dtype=bfloat16_name(part), out=out
        )

    def _floats(self) -> Iterator[Array]:
        shape = [1] * self.stored.ndim
        shape[self.axis] = -1
        for rows, integers in zip(row_chunks(self.stored), self._chunks()):
            step = self.step[rows] if self.axis == 0 else self.step
            values = integers.astype(np.float32)
            values *= step.reshape(shape)
            is_bfloat16 = self.stored.dtype == np.uint16
            dtype = self.stored.dtype
            yield bfloat16_bits(values) if is_bfloat16 else values.astype(dtype, copy=False)


def quantize_weights(
    model: Model,
    ops: Sequence[WeightedOp],
    bits: int,
    per_channel: bool,
    factors: Mapping[str, Array] | None = None,
) -> dict[str, QuantizedWeight]:
    """Describe the weight of every op as integers, by its first op's axis if shared.

    ``per_channel`` gives each output channel its own threshold. ``factors`` first multiply weights,
    by their names.
    """
    weights: dict[str, QuantizedWeight] = {}
    for op in ops:
        if op.weight not in weights:
            pending = model.pending.get(op.weight)
            if factors and op.weight in factors:
                pending = model.yet_to_be_made(op.weight).multiplied(factors[op.weight])
            stored, axis = model.parameters[op.weight], op.channel_axis if per_channel else -1
            weights[op.weight] = QuantizedWeight(
                op.weight, stored, axis, bits, model.parameters_path, pending=pending
            )
    return weights


def _pair_maxima(weight: Array) -> Array:
    """Return the greatest magnitude of two neighbouring inputs together: float32[output channels].

    The weight is float32: a matrix [inputs, outputs], or a filter [outputs, inputs, height, width].
    With an odd number of inputs, kernels that first copy their input (im2col) or its rows may pair
    the last input of a tap with the first input of the next tap.
    """
    if weight.ndim == 2:
        return kernels.channel_pair_max(weight, 1, 0)
    of_each_tap = kernels.channel_pair_max(weight, 0, 1)
    if weight.shape[1] % 2 == 0:
        return of_each_tap
    by_rows = np.ascontiguousarray(np.moveaxis(weight, 1, -1))
    by_columns = np.ascontiguousarray(by_rows.swapaxes(1, 2))
    outputs, height = by_rows.shape[:2]
    orders = (outputs, height, -1), (outputs, 1, -1)
    found = [kernels.channel_pair_max(by_rows.reshape(order), 0, 2) for order in orders]
    found.append(kernels.channel_pair_max(by_columns.reshape(outputs, -1), 0, 1))
    maxima: Array = np.maximum.reduce([of_each_tap, *found])
    return maxima


def bfloat16_name(array: Array) -> str | None:
    """Return the kernels' name of the type of raw ``uint16``, None for other types."""
    return "bfloat16" if array.dtype == np.uint16 else None


def float32_of_bfloat16(bits: Array) -> Array:
    """Return the values of raw ``uint16`` as float32."""
    values: Array = (bits.astype(np.uint32) << 16).view(np.float32)
    return values


def bfloat16_bits(values: Array) -> Array:
    """Round finite float32 to bfloat16, to nearest even, as raw ``uint16``."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
