"""What calibration data decide about an int8 program."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
        factors: float32[channels], which divide activations before they become integers; ranges
            and weights already include them.
        corrections: float64[outputs], added to the outputs of ops as bias correction; per token, to
            the products of the quotients.
        per_token: the activations whose positions are divided by their largest magnitudes, as their
            ranges say.
    """

    ranges: Mapping[str, Range]
    weights: Mapping[str, QuantizedWeight]
    weight_only: Sequence[WeightedOp]
    factors: Mapping[str, Array] = field(default_factory=dict)
    corrections: Mapping[WeightedOp, Array] = field(default_factory=dict)
    per_token: Collection[str] = ()
