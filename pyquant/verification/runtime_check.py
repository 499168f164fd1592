"""Runs an int8 model in the runtime that it is for, beside the float model in the same runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from ..calibration.data import Feed
from ..program.model import Model, copy_model
from ..program.parameters import Array
from .compared import Compared, compared_parts, showing
from .outcome import Verification, worst
from .output_sums import differences
from .turns import in_turns

_BATCHES = 2
_MOST_DEPARTURE = 0.05**2  # a share of an output's power, which rounding otherwise explains

Run = Callable[[Feed], Mapping[str, Array]]
"""Runs a batch; returns the outputs by their names."""


@dataclass(frozen=True)
class Runtime:
    """A runtime in which results are checked.

    Attributes:
        name: as its makers write it.
        module: what is imported of it.
        extra: pyquant's extra that installs it.
        run_float: loads a float model, which it may change.
        run_int8: loads an int8 model, which it may change.
        run_as_said: loads an int8 model, for a run that computes what the program says.
        int8_ops: counts what an int8 model computes with integers, by kinds.
    """

    name: str
    module: str
    extra: str
    run_float: Callable[[Model], Run]
    run_int8: Callable[[Model], Run]
    run_as_said: Callable[[Model], Run]
    int8_ops: Callable[[Model], Mapping[str, int]]


def check_in(
    runtime: Runtime, model: Model, int8: Model, feeds: Sequence[Feed]
) -> tuple[Verification | None, str]:
    """Run a float and an int8 model, which are not changed; return what that shows, and a note.

    It is None if the runtime is not installed, or cannot run them: then the note says why.
    """
    if find_spec(runtime.module) is None:
        return None, (
            f"the result was not run, as {runtime.name} is not installed: "
            f"pyquant's extra '{runtime.extra}'"
        )
    try:
        found = _run_in(runtime, model, int8, feeds[:_BATCHES])
        counts = runtime.int8_ops(copy_model(int8))
    except Exception as error:  # of whatever type the runtime raises
        said = " ".join(str(error).split())[-_SHOWN:]
        return None, f"the result was not checked, as {runtime.name} cannot run it here: {said}"
    named = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing"
    return found, f"{runtime.name} computes with integers: {named}"


_SHOWN = 300  # characters of an error, whose end tells most


def _run_in(runtime: Runtime, model: Model, int8: Model, feeds: Sequence[Feed]) -> Verification:
    parts = compared_parts(model)
    names = [part.name for part in parts]
    in_float, in_int8, as_said = (
        load(showing(copy_model(one), names))
        for load, one in (
            (runtime.run_float, model),
            (runtime.run_int8, int8),
            (runtime.run_as_said, int8),
        )
    )
    expected, found, said = (
        [_parts(run(feed), parts) for feed in feeds] for run in (in_float, in_int8, as_said)
    )
    errors, departures = differences(parts, expected, found), differences(parts, said, found)
    departs = not worst(departures).power <= _MOST_DEPARTURE
    times = in_turns(partial(in_float, feeds[0]), partial(in_int8, feeds[0]))
    return Verification(errors, departures, departs, len(feeds), *times, repairs=(), kernels=())


def _parts(outputs: Mapping[str, Array], parts: Sequence[Compared]) -> list[Array]:
    return [part.of(outputs[part.name]) for part in parts]
