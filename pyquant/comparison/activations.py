"""Measures of tensors that both models compute, gathered batch by batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..calibration.statistic import ActivationHistogram
from ..program.parameters import Array
from .compared import Compared
from .output_sums import OutputSums
from .quantization import Activation
from .report import ComparedTensor
from .similarity import ErrorSums, as_float


class Measure(Protocol):
    """Gathers the values of one tensor."""

    note: str  # why the float model has no values to compare with, if it has none

    def add(self, reference: Array | None, value: Array) -> None:
        """Add one batch from the float model, if it has the tensor, and from the quantized one."""

    def compared(self) -> ComparedTensor:
        """Return the result."""


@dataclass
class PartMeasure:
    """A part of an output of the model, as the check of static mode measures it."""

    name: str  # of the output in the quantized model
    part: Compared  # of the output in the float model
    kind: str  # as in `ComparedTensor`, like the op types
    op_types: tuple[str, ...]
    note: str = ""

    def __post_init__(self) -> None:
        self._sums = OutputSums(self.part.least)

    def add(self, reference: Array | None, value: Array) -> None:
        if reference is None:
            return
        if reference.shape != value.shape:
            self.note = _other_shape(reference, value)
            return
        self._sums.add(as_float(self.part.of(reference)), as_float(self.part.of(value)))

    def compared(self) -> ComparedTensor:
        error = self._sums.similarity
        return ComparedTensor(
            str(self.part._replace(name=self.name)),
            self.kind,
            self.op_types,
            error,
            error_percent=None if error is None else 100 * math.sqrt(self._sums.power),
            note=self.note or ("" if error else "never computed, or not finite, over this data"),
        )


@dataclass
class OutputMeasure:
    """Values that an op of the quantized model computes, compared with the float model's."""

    name: str
    kind: str  # as in `ComparedTensor`, like the op types
    op_types: tuple[str, ...]
    note: str = ""
    error: ErrorSums = field(default_factory=ErrorSums)

    def add(self, reference: Array | None, value: Array) -> None:
        if reference is None:
            return
        value = _without_added_channels(reference, value)
        if reference.shape != value.shape:
            self.note = _other_shape(reference, value)
            return
        self.error.add(as_float(reference), as_float(value))

    def compared(self) -> ComparedTensor:
        return ComparedTensor(
            self.name,
            self.kind,
            self.op_types,
            self.error.similarity,
            note=self.note or ("" if self.error.values else "never computed over this data"),
        )


@dataclass
class ActivationMeasure:
    """A quantized activation: its own error, its inherited error, and both together.

    The errors are those of `ComparedTensor`. The histogram is of the float model's values, or of
    the quantized model's if it has none; ``beyond`` counts those beyond the threshold.
    """

    activation: Activation
    op_types: tuple[str, ...]
    note: str = ""
    error: ErrorSums = field(default_factory=ErrorSums)
    inherited: ErrorSums = field(default_factory=ErrorSums)
    own: ErrorSums = field(default_factory=ErrorSums)
    histogram: ActivationHistogram = field(default_factory=ActivationHistogram)
    beyond: int = 0

    def add(self, reference: Array | None, value: Array) -> None:
        value = as_float(value)
        source = value if reference is None else as_float(reference)
        self._describe(source)
        if reference is None:
            self.own.add(value, self.activation.rounded(value))
            return
        self.own.add(source, self.activation.rounded(source))
        value = _without_added_channels(source, value)
        if source.shape != value.shape:
            self.note = _other_shape(source, value)
            return
        self.inherited.add(source, value)
        self.error.add(source, self.activation.rounded(value))

    def compared(self) -> ComparedTensor:
        activation = self.activation
        note = self.note or ("" if self.own.values else "never computed over this data")
        if self.histogram.non_finite:
            note = f"holds {self.histogram.non_finite:,} NaN or infinite values"
        return ComparedTensor(
            activation.value.name,
            "activation",
            self.op_types,
            self.error.similarity,
            inherited=self.inherited.similarity,
            own=self.own.similarity,
            bits=activation.bits,
            threshold=activation.threshold,
            least=activation.least,
            saturation=self.beyond / self.own.values if self.own.values else None,
            histogram=self.histogram if self.own.values else None,
            note=note,
        )

    def _describe(self, values: Array) -> None:
        self.beyond += self.activation.beyond(values)
        if values.size:
            self.histogram.observe(values.reshape(values.shape[0] if values.ndim else 1, -1))


def _without_added_channels(reference: Array, value: Array) -> Array:
    """Drop channels beyond those of the float model that hold constants, as for borders.

    See ``program/targets/onednn/widening.py``.
    """
    channels = reference.shape[1:2]
    if value.ndim != 4 or reference.shape != (*value.shape[:1], *channels, *value.shape[2:]):
        return value
    added = value[:, channels[0] :]
    return value[:, : channels[0]] if np.all(added == added[:1, :, :1, :1]) else value


def _other_shape(reference: Array, value: Array) -> str:
    return f"its shape is {list(reference.shape)} in the float model, {list(value.shape)} here"
