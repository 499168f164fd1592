"""The outcome of a comparison, as data and as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibration.statistic import ActivationHistogram
from ..plain import plain
from ..shown import as_html, shown
from .similarity import Similarity
from .verdict import Verdict, verdict_of

SIMULATED, INT8_RUN = "simulated", "int8 run"
"""How the quantized model computed an output: op by op as its program says, or by int8 kernels."""


_INDENT = " " * 11

_ANY_NAMES = ("inference", "model", "__model__")


@dataclass(frozen=True)
class ComparedTensor:
    """One tensor of the quantized model, compared with the float model's.

    Attributes:
        name: its name in the program; for a weight, the name of the float parameter.
        kind: ``"activation"``, ``"weight"``, ``"op output"`` (of an op that reads a quantized
            tensor), or an output of the model, ``"simulated"`` or from the ``"int8 run"``.
        op_types: of the ops that read an activation or a weight; of the op that writes an output.
        error: float against int8. For an activation, the float model's values against those that
            the int8 model's ops read; for a weight, the parameter against its dequantized
            integers. None if there is nothing to compare with.
        error_percent: for an output of the model, the rms of the error in percent of the output's
            variation, as in `Verification`.
        inherited: for an activation, the error of its values before they are quantized.
        own: for an activation, the error of quantizing the float model's values, or the int8
            model's values if the float model has no such tensor.
        bits: of the integers.
        axis: the axis of the channels; None for a single threshold.
        threshold: the magnitude that maps to 2^(bits-1)-1: a float, or float32[channels]. The
            greatest value, if ``least`` is given.
        least: the least value that an integer stands for, if it is not minus the threshold.
        saturation: the share of the values beyond these limits.
        histogram: of an activation's magnitudes.
        equalized: whether, in both models, the activation is divided or the weight multiplied by
            the factors of an equalized model.
        note: why it cannot be compared or trusted; else empty.
    """

    name: str
    kind: str
    op_types: tuple[str, ...]
    error: Similarity | None
    error_percent: float | None = None
    inherited: Similarity | None = None
    own: Similarity | None = None
    bits: int | None = None
    axis: int | None = None
    threshold: float | NDArray[Any] | None = None
    least: float | None = None
    saturation: float | None = None
    histogram: ActivationHistogram | None = None
    equalized: bool = False
    note: str = ""

    @property
    def label(self) -> str:
        """The name, as the report shows it."""
        return f"{self.name} (equalized)" if self.equalized else self.name

    @property
    def badness(self) -> tuple[int, float]:
        """A key that sorts worst first: NaN, then by SQNR, then those with an own SQNR alone."""
        known = self.error or self.own
        if known is None:
            return 3, 0.0
        if math.isnan(known.sqnr):
            return 0, 0.0
        return (1 if self.error else 2), known.sqnr


@dataclass(frozen=True, repr=False)
class Comparison:
    """The outcome of `pyquant.compare`.

    Attributes:
        float_path: the float model's program.
        quantized_path: the quantized model's program.
        batches: how many batches both models ran.
        samples: how many samples the batches held.
        tensors: the compared tensors, in the order of the quantized program.
        notes: remarks on the comparison as a whole.
        float_bytes: size of the float model's files.
        quantized_bytes: size of the quantized model's files.
        kept_float: of a model with int8 activations, the ops that could have read them and run in
            float, as type and output.
        weights_of: the weight of the op that computes each output of a quantized op, by its name.
        record: what pyquant.json beside the quantized model says; None if there is none.
        data: what follows ``--data`` in commands to paste.

    Example:
        >>> comparison = pyquant.compare("float", "int8", data_loader=batches)
        >>> [tensor.name for tensor in comparison.worst("simulated")]
        ['y']
        >>> comparison.worst("simulated")[0].error.sqnr > 20  # dB
        True
    """

    float_path: Path
    quantized_path: Path
    batches: int
    samples: int
    tensors: list[ComparedTensor]
    notes: list[str]
    float_bytes: int = 0
    quantized_bytes: int = 0
    kept_float: tuple[tuple[str, str], ...] = ()
    weights_of: Mapping[str, str] = field(default_factory=dict)
    record: dict[str, Any] | None = None
    data: str = "DATA"

    @property
    def verdict(self) -> Verdict:
        """What it means, in words, and what to do next."""
        return verdict_of(self)

    @property
    def model_name(self) -> str:
        """The float model's name: of its program, or of the directory where that says nothing."""
        stem = self.float_path.stem
        return self.float_path.resolve().parent.name if stem in _ANY_NAMES else stem

    def worst(self, *kinds: str) -> list[ComparedTensor]:
        """Return the tensors of ``kinds``, of all kinds if none is given, worst first."""
        wanted = [tensor for tensor in self.tensors if not kinds or tensor.kind in kinds]
        return sorted(wanted, key=lambda tensor: tensor.badness)

    @property
    def least_sqnr(self) -> float:
        """The least SQNR of the outputs, in dB; minus infinity if an output is not comparable."""
        outputs = [one for one in self.tensors if one.kind in (SIMULATED, INT8_RUN)]
        known = [one.error.sqnr if one.error else math.nan for one in outputs]
        return min((-math.inf if math.isnan(sqnr) else sqnr for sqnr in known), default=-math.inf)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON has it, without the histograms."""
        tensors = [replace(tensor, histogram=None) for tensor in self.tensors]
        return {**plain(replace(self, tensors=tensors)), "least_sqnr": plain(self.least_sqnr)}

    def __repr__(self) -> str:
        """Say in one line what it is; ``print`` says it all."""
        outputs = f"outputs from {self.least_sqnr:.1f} dB"
        return f"<Comparison: {len(self.tensors)} tensors, {outputs}, {self.quantized_path}>"

    def _repr_html_(self) -> str:
        """Show the worst of each table in a notebook."""
        return as_html(self.table(top=10), wrapped=False)

    def table(self, top: int | None = None) -> str:
        """Return the report as text, with the ``top`` worst lines of each table or all."""
        lines = [
            f"float      {self.float_path}",
            f"quantized  {self.quantized_path}",
            f"data       {self.samples} samples in {self.batches} batches",
            *(f"note       {note}" for note in self.notes),
            f"verdict    {self.verdict.headline}",
            *(
                line
                for sentence in self.verdict.sentences
                for line in wrap(sentence, 100, initial_indent=_INDENT, subsequent_indent=_INDENT)
            ),
            *([f"  {self.verdict.command}"] if self.verdict.command else []),
        ]
        for table in TABLES:
            tensors = self.worst(*table.kinds)
            if tensors:
                lines += ["", f"{table.title}: {len(tensors)}, worst first", f"  ({table.legend})"]
                lines += _aligned(table, tensors[:top])
                if top is not None and top < len(tensors):
                    lines.append(f"  and {len(tensors) - top} more")
        return "\n".join(map(shown, lines))

    def __str__(self) -> str:
        """Return the whole report as text."""
        return self.table()


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and its text for a tensor."""

    heading: str
    text: Callable[[ComparedTensor], str]


@dataclass(frozen=True)
class Table:
    """A table of the report."""

    title: str
    legend: str  # what the numbers mean
    kinds: tuple[str, ...]  # the kinds of tensors in it
    columns: tuple[Column, ...]  # before the tensor's name


def sqnr_text(similarity: Similarity | None) -> str:
    """Return an SQNR as text, in dB."""
    if similarity is None:
        return "-"
    return "exact" if similarity.sqnr == math.inf else f"{similarity.sqnr:.1f}"


def _cosine_text(tensor: ComparedTensor) -> str:
    return "-" if tensor.error is None else f"{tensor.error.cosine:.6f}"


def threshold_text(tensor: ComparedTensor) -> str:
    """Return the threshold, or the range of several or of an asymmetric grid, as text."""
    if tensor.threshold is None:
        return "-"
    least, greatest = np.min(tensor.threshold), np.max(tensor.threshold)
    if tensor.least is not None:
        least = tensor.least
    return f"{least:.4g}" if least == greatest else f"{least:.3g} .. {greatest:.3g}"


def _saturation_text(tensor: ComparedTensor) -> str:
    share = tensor.saturation
    if share is None:
        return "-"
    return "0" if share == 0 else f"{100 * share:.4f} %" if share >= 1e-6 else "<0.0001 %"


def _percent_text(tensor: ComparedTensor) -> str:
    return "-" if tensor.error_percent is None else f"{tensor.error_percent:.2f}"


def _axis_text(tensor: ComparedTensor) -> str:
    return "-" if tensor.axis is None else str(tensor.axis)


def _op_types_text(tensor: ComparedTensor) -> str:
    return ", ".join(tensor.op_types) or "-"


_SQNR = Column("SQNR dB", lambda tensor: sqnr_text(tensor.error))
_COSINE = Column("cosine", _cosine_text)
_SATURATED = Column("saturated", _saturation_text)

TABLES = (
    Table(
        "outputs of the model",
        "error: the rms in percent of the variation; simulated: as the program says, op by op",
        (SIMULATED, INT8_RUN),
        (
            Column("error %", _percent_text),
            _SQNR,
            _COSINE,
            Column("run", lambda tensor: tensor.kind),
        ),
    ),
    Table(
        "activations",
        "own: error of quantizing it alone; inherited: error of its values before that",
        ("activation",),
        (
            _SQNR,
            _COSINE,
            Column("own dB", lambda tensor: sqnr_text(tensor.own)),
            Column("inherited dB", lambda tensor: sqnr_text(tensor.inherited)),
            Column("threshold", threshold_text),
            _SATURATED,
        ),
    ),
    Table(
        "weights",
        "the float weight against its dequantized integers",
        ("weight",),
        (
            _SQNR,
            _COSINE,
            Column("threshold", threshold_text),
            _SATURATED,
            Column("bits", lambda tensor: str(tensor.bits)),
            Column("axis", _axis_text),
        ),
    ),
    Table(
        "outputs of quantized ops",
        "with all inherited errors",
        ("op output",),
        (_SQNR, _COSINE, Column("op", _op_types_text)),
    ),
)
"""The tables of the report, in text and on the page."""


def _aligned(table: Table, tensors: Sequence[ComparedTensor]) -> list[str]:
    rows = [[column.text(tensor) for column in table.columns] for tensor in tensors]
    rows.insert(0, [column.heading for column in table.columns])
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    heads = [
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows
    ]
    lines = [f"{heads[0]}  tensor"]
    for head, tensor in zip(heads[1:], tensors):
        lines.append(f"{head}  {tensor.label}")
        if tensor.note:
            lines.append(f"      ({tensor.note})")
    return lines
