"""Runs an int8 model in the runtime that it is for, beside the float model in the same runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from ..calibration.data import Feed
from ..errors import UnsupportedError
from ..program.model import Model, copy_model
from ..program.op import Op, make_op, ops_of, replace_ops
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
        read: reads a float model, which it may change, without making it ready to run.
        run_float: loads a float model, which it may change.
        run_int8: loads an int8 model, which it may change.
        run_as_said: loads an int8 model, for a run that computes what the program says.
        int8_ops: counts what an int8 model computes with integers, by kinds.
    """

    name: str
    module: str
    extra: str
    read: Callable[[Model], object]
    run_float: Callable[[Model], Run]
    run_int8: Callable[[Model], Run]
    run_as_said: Callable[[Model], Run]
    int8_ops: Callable[[Model], Mapping[str, int]]


def refuse_unreadable(runtime: Runtime, model: Model) -> None:
    """Raise UnsupportedError if a runtime that is installed cannot read a model.

    It names the first op with which the runtime cannot read the ops so far.
    """
    if find_spec(runtime.module) is None:
        return
    error = _error_of_reading(runtime, model)
    if error is None:
        return
    ops = [op for op in ops_of(model.program.blocks[0]) if op.type not in ("feed", "fetch")]
    readable, failing = 0, len(ops)
    while failing - readable > 1:
        middle = (readable + failing) // 2
        found = _error_of_reading(runtime, _first_ops(model, ops[:middle]))
        readable, failing = (middle, failing) if found is None else (readable, middle)
        error = found or error
    op, said = ops[failing - 1], " ".join(str(error).split())[-_SHOWN:]
    raise UnsupportedError(
        f"{model.model_path}: {runtime.name} cannot read the op '{op.type}' that writes "
        f"'{next(iter(op.writes()), '')}': {said}. Choose another deploy_backend, or export the "
        "model without this op."
    )


def _error_of_reading(runtime: Runtime, model: Model) -> Exception | None:
    try:
        runtime.read(copy_model(model))
    except Exception as error:  # of whatever type the runtime raises
        return error
    return None


def _first_ops(model: Model, ops: Sequence[Op]) -> Model:
    """Return a model of the first ops of a model, whose outputs are those of the last one."""
    part = copy_model(model)
    block = part.program.blocks[0]
    (holder,) = {op.output() for op in part.ops() if op.type == "fetch"}
    dims, read = part.dims(), {name for op in ops for name in op.reads()}
    feeds = [op for op in part.ops() if op.type == "feed" and op.output() in read]
    outputs = [name for name in ops[-1].writes() if name in dims]
    fetches = [
        make_op("fetch", {"X": [name]}, {"Out": [holder]}, {"col": column})
        for column, name in enumerate(outputs)
    ]
    replace_ops(block, [*feeds, *ops, *fetches])
    known = {name for op in ops_of(block) for name in (*op.reads(), *op.writes())}
    kept = [var for var in block.vars if var.name in known]
    del block.vars[:]
    block.vars.extend(kept)
    for tensors in (part.parameters, part.derived, part.pending):
        for name in tensors.keys() - known:
            del tensors[name]
    return part


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
