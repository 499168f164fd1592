"""Runs an int8 model in the runtime that it is for, beside the float model in the same runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec

from ..calibration.data import Feed
from ..comparison.compared import Compared, before_softmax, compared_parts, showing
from ..errors import UnsupportedError
from ..program.model import Model, copy_model
from ..program.op import Op, ops_of
from ..program.parameters import Array
from ..program.segments import model_of_ops
from .outcome import Findings, worst
from .outputs_check import OutputsCheck, first_sample
from .turns import Times, in_turns

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
    if not is_installed(runtime):
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
    dims, read = model.dims(), {name for op in ops for name in op.reads()}
    inputs = [var.name for var in model.feeds if var.name in read]
    outputs = [name for name in ops[-1].writes() if name in dims]
    names = [name for name in model.parameters if name in read]
    return model_of_ops(model, ops, inputs, outputs, names)


class RuntimeCheck(OutputsCheck):
    """Runs int8 models beside their float model, both in a runtime that is installed.

    ONNX Runtime also rounds what a convolution writes, so that the ops that err most in PP-OCRv4
    recognition were predicted at a half of their error, and others at a hundred times theirs.
    """

    measures_ops = True

    def __init__(
        self,
        runtime: Runtime,
        model: Model,
        feeds: Sequence[Feed],
        batches: int,
        runs_all: bool = False,
        parts: Sequence[Compared] | None = None,
    ) -> None:
        """Load the float model, which may be folded; raise UnsupportedError if that fails.

        ``parts`` are compared; None takes those of `compared_parts`.
        """
        parts = compared_parts(model) if parts is None else parts
        super().__init__(parts, feeds, batches, runs_all)
        self._runtime, self._model = runtime, model
        self._float = self._loaded(runtime.run_float, model)
        sample = first_sample(model, feeds[0])
        with suppress(UnsupportedError):
            if all(array.size for array in self._run(self._float, sample)):
                self.sample = sample

    def judge(self, model: Model) -> Findings:
        """Compare an int8 model with the float model, and its run with what it says."""
        as_said = self._loaded(self._runtime.run_as_said, model)
        return self._findings(model, [self._run(as_said, self.sample)], _MOST_DEPARTURE)

    def powers_of_op(self, model: Model) -> Sequence[float]:
        """Return the power of the outputs' error by one op, and that of what softmax reads.

        Probabilities near 0 and 1 hide the errors of ops, until a few of them together change what
        is decided. But only they tell which op alone changes it.
        """
        errors, outputs = self._of_ops.errors(model), len(self._parts)
        return [worst(part).power for part in (errors[:outputs], errors[outputs:]) if part]

    @cached_property
    def _of_ops(self) -> RuntimeCheck:
        read = [
            part for part in before_softmax(self._model, self._parts) if part not in self._parts
        ]
        feeds = self.feeds[: self._checked]
        return RuntimeCheck(self._runtime, self._model, feeds, 0, True, [*self._parts, *read])

    def times(self, model: Model) -> Times:
        """Time an int8 model in turns with the float model, by one sample that both have run."""
        return in_turns(partial(self._float, self.sample), partial(self._int8(model), self.sample))

    def integers(self, model: Model) -> str:
        """Say what an int8 model computes with integers."""
        counts = self._runtime.int8_ops(copy_model(model))
        named = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing"
        return f"{self._runtime.name} computes with integers: {named}"

    def _float_outputs(self, feeds: Sequence[Feed]) -> Iterator[list[Array]]:
        return (self._run(self._float, feed) for feed in feeds)

    def _int8_outputs(self, model: Model, feeds: Sequence[Feed]) -> Iterator[list[Array]]:
        run = self._int8(model)
        return (self._run(run, feed) for feed in feeds)

    def _load_int8(self, model: Model) -> Run:
        return self._loaded(self._runtime.run_int8, model)

    def _loaded(self, load: Callable[[Model], Run], model: Model) -> Run:
        try:
            return load(showing(copy_model(model), [part.name for part in self._parts]))
        except Exception as error:  # of whatever type the runtime raises
            raise self._failure(error) from error

    def _run(self, run: Run, feed: Feed) -> list[Array]:
        try:
            outputs = run(feed)
        except Exception as error:
            raise self._failure(error) from error
        return [part.of(outputs[part.name]) for part in self._parts]

    def _failure(self, error: Exception) -> UnsupportedError:
        said = " ".join(str(error).split())[-_SHOWN:]
        return UnsupportedError(f"{self._runtime.name} cannot run it here: {said}")


_SHOWN = 300  # characters of an error, whose end tells most


def is_installed(runtime: Runtime) -> bool:
    """Return whether a runtime can be imported."""
    return find_spec(runtime.module) is not None
