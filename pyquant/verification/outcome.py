"""What a check of an int8 model finds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..comparison.compared import Compared
from ..comparison.output_sums import OutputSums
from ..comparison.similarity import Similarity, as_float
from ..plain import plain
from ..program.parameters import Array
from ..program.predictor import all_cores
from ..shown import as_html
from .kernel_times import KernelTime, shares


class OutputDifference(NamedTuple):
    """How far an output of the int8 run, or a part of it, is from what it should be.

    Attributes:
        name: of the output, with the part.
        similarity: to what it should be; None if it holds no value.
        power: of the error, as a share of the output's power around its mean. A sigmoid may be near
            0 throughout: its power counts as `compared.LEAST_POWER` per value at least. NaN if a
            value is NaN or infinite, or the shape is wrong.
    """

    name: str
    similarity: Similarity | None
    power: float

    def __str__(self) -> str:
        """Say it in a few words."""
        if math.isnan(self.power):
            return f"'{self.name}' holds NaN or infinity, or is of another shape"
        if self.similarity is None:
            return f"'{self.name}' holds nothing to compare"
        rms = 100 * math.sqrt(self.power)
        cosine = self.similarity.cosine
        return f"'{self.name}' differs by {rms:.2f} % of its variation (rms), cosine {cosine:.4f}"


def worst(errors: Sequence[OutputDifference]) -> OutputDifference:
    """Return the error of the largest power, NaN before all others."""
    return max(errors, key=lambda one: math.inf if math.isnan(one.power) else one.power)


def differences(
    parts: Sequence[Compared], expected: Iterable[list[Array]], found: Iterable[list[Array]]
) -> list[OutputDifference]:
    """Return how far the parts of outputs are from what they should be, over all batches."""
    sums = [OutputSums(part.least) for part in parts]
    for outputs, references in zip(found, expected):
        for one, reference, output in zip(sums, references, outputs):
            one.add(as_float(reference), as_float(output))
    return [
        OutputDifference(str(part), one.similarity, one.power) for part, one in zip(parts, sums)
    ]


@dataclass(frozen=True)
class Findings:
    """What the outputs of an int8 model show, on calibration data, as it is deployed on a CPU.

    Attributes:
        errors: of each output of the int8 run, or of what decides it, against the float model's
            (see `compared.compared_parts`).
        departures: likewise, against the simulation: the program computed op by op in float.
        departs: whether the run departs from the simulation by more than rounding explains, and is
            farther from the float model.
        batches: how many batches were run.
    """

    errors: Sequence[OutputDifference]
    departures: Sequence[OutputDifference]
    departs: bool
    batches: int


@dataclass(frozen=True)
class Verification(Findings):
    """What a check of an int8 model found: its outputs and its time.

    Attributes:
        float_seconds: median time of one sample, or of a batch if the model fixes its size, by the
            float model, folded, on all cores.
        int8_seconds: likewise by the int8 model, in turns with the former.
        speedup: how many times as fast as float the int8 model is, the median of pairs of runs.
        repairs: what was done about errors; empty if nothing was.
        kernels: of one sample in int8, the longest times first, if that takes longer than in float.
    """

    float_seconds: float
    int8_seconds: float
    speedup: float
    repairs: Sequence[str]
    kernels: Sequence[KernelTime]

    @property
    def error_percent(self) -> float:
        """The rms of the worst error, in percent of the output's variation; infinite for NaN."""
        power = worst(self.errors).power
        return math.inf if math.isnan(power) else 100 * math.sqrt(power)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON has it, with ``error_percent``."""
        return {**plain(self), "error_percent": plain(self.error_percent)}

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        return as_html(str(self))

    def __str__(self) -> str:
        """Say it in three lines, and one for each repair."""
        times = f"{1e3 * self.float_seconds:.1f} ms in float, {1e3 * self.int8_seconds:.1f} in int8"
        reason = f"; it takes {shares(self.kernels)}" if self.kernels else ""
        return "\n".join(
            (
                f"check  {self.batches} batch(es) against float: {worst(self.errors)}",
                f"check  the run against the program: {worst(self.departures)}",
                f"check  {times}: {self.speedup:.2f} x as fast on {all_cores()} core(s){reason}",
                *(f"check  repair: {repair}" for repair in self.repairs),
            )
        )
