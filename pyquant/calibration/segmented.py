"""Runs a model segment by segment; see `pyquant.program.segments`.

Each segment has a `Forward` of its own, which depends on its own batches alone. So the statistics
are the same whether a batch runs through all segments, or a segment runs over all batches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..program.mapped_files import forget_pages
from ..program.model import Model
from ..program.op import ops_of
from ..program.parameters import Array
from ..program.segments import Segment, cut, segment_model
from .data import Feed
from .forward import Forward, Observers
from .statistic import Statistics


class Runner(Protocol):
    """Runs batches through a model."""

    def run(self, feed: Feed, batch: int, statistics: Statistics) -> None:
        """Run one batch and add its activations to ``statistics``; see `Forward.run`."""


@dataclass(frozen=True)
class Part:
    """A segment, and the activations that are observed in it."""

    segment: Segment
    names: tuple[str, ...]


def make_runner(
    model: Model,
    names: Collection[str],
    threads: int | None = None,
    observers: Observers | None = None,
) -> Runner:
    """Make what runs a model as read from its files, or as folded, and observes ``names``."""
    model = as_observed(model, names)
    parts = parts_of(model, names)
    if len(parts) == 1:
        return Forward(model, names, threads, observers)
    return _Chain([SegmentForward(model, part, threads, observers) for part in parts])


def as_observed(model: Model, names: Collection[str]) -> Model:
    """Return the model to run: the original one if folding left the observed tensors unchanged."""
    if model.folded is not None and model.folded.rescaled.isdisjoint(names):
        return model.folded.original
    return model


def parts_of(model: Model, names: Iterable[str]) -> list[Part]:
    """Return the segments up to the last one in which something is observed."""
    segments = cut(model)
    if len(segments) == 1:
        return [Part(segments[0], tuple(names))]
    ops = [op for op in ops_of(model.program.blocks[0]) if op.type not in ("feed", "fetch")]
    written = {
        name: index
        for index, segment in enumerate(segments)
        for op in ops[segment.first : segment.end]
        for name in op.writes()
    }
    read = {
        name: index
        for index, segment in reversed([*enumerate(segments)])
        for name in segment.inputs
    }
    observed: list[list[str]] = [[] for _ in segments]
    for name in names:
        observed[written.get(name, read.get(name, 0))].append(name)
    while not observed[-1] and len(observed) > 1:
        observed.pop()
    return [Part(segment, tuple(found)) for segment, found in zip(segments, observed)]


class SegmentForward:
    """Runs batches through one segment."""

    def __init__(
        self, model: Model, part: Part, threads: int | None, observers: Observers | None
    ) -> None:
        self._segment = part.segment
        alone, self._weights = segment_model(model, part.segment)
        self._forward = Forward(
            alone,
            part.names,
            threads,
            observers,
            runs_to_end=bool(part.segment.outputs),
            shared=self._weights,
        )

    def run(self, known: Mapping[str, Array], batch: int, statistics: Statistics) -> Feed:
        """Run one batch, whose inputs are among ``known``; return the segment's outputs."""
        inputs = {name: known[name] for name in self._segment.inputs}
        self._forward.run(inputs, batch, statistics)
        outputs = self._segment.outputs
        return dict(zip(outputs, self._forward.outputs())) if outputs else {}

    def forget_weights(self) -> None:
        """Free the memory of weights that are mapped from a file."""
        for weight in self._weights.values():
            forget_pages(weight)


class _Chain:
    """Runs every batch through all segments, which are in memory together."""

    def __init__(self, forwards: Sequence[SegmentForward]) -> None:
        self._forwards = forwards

    def run(self, feed: Feed, batch: int, statistics: Statistics) -> None:
        known = dict(feed)
        for forward in self._forwards:
            known |= forward.run(known, batch, statistics)
