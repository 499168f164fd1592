"""What calibration data decide of an int8 program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..parameters import Array
from ..quantizable import WeightedOp
from ..ranges import Range
from ..weights import QuantizedWeight


@dataclass(frozen=True)
class Choices:
    """What a plan leaves open.

    Attributes:
        ranges: of the tensors that the plan observes.
        weights: of the int8 ops and of ``weight_only``, as integers, by the weights' names.
        weight_only: ops that stay in float but for their weight.
        factors: by which activations are divided before they become integers, float32[channels];
            the ranges and the weights are those behind that.
        corrections: what is added to the outputs of ops for what their integers lack,
            float64[outputs].
    """

    ranges: Mapping[str, Range]
    weights: Mapping[str, QuantizedWeight]
    weight_only: Sequence[WeightedOp]
    factors: Mapping[str, Array] = field(default_factory=dict)
    corrections: Mapping[WeightedOp, Array] = field(default_factory=dict)
