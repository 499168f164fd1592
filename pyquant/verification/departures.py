"""Finds the op at which an int8 run departs from what its program says."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..arrays import overwrite, view_values
from ..calibration.data import Feed
from ..calibration.layouts import plain_tensor
from ..comparison.similarity import ErrorSums, as_float
from ..program.model import Model
from ..program.parameters import Array
from ..program.predictor import (
    Hook,
    Optimization,
    all_cores,
    make_int8_predictor,
    make_predictor,
    run_outputs,
)
from ..program.targets.onednn.simulation import integers_of, simulate

# The shares of a tensor's power by which a run may depart from its simulation. Integers that lie
# between two may be rounded to either. Paddle's int8 passes for QDQ also round the weights of a
# convolution once more, to steps of their own (quant_dequant_onednn_pass.cc).
_BY_ROUNDING = 1e-4
_BY_ROUNDING_WEIGHTS = 2e-3
# How many times as large a difference may become by one op that computes what it should.
_GROWTH = 100
# The share of a tensor's integers that may be rounded to the other side, besides a single one.
_MOST_TO_THE_OTHER_SIDE = 0.01


class Departure(NamedTuple):
    """The first tensor of a run that is not what the program says.

    Attributes:
        name: of the tensor.
        op_type: of the op that writes it in the program.
        power: of the difference, as a share of the tensor's power.
    """

    name: str
    op_type: str
    power: float

    def __str__(self) -> str:
        """Say where it is, and how large."""
        return f"{self.op_type} '{self.name}' by {100 * math.sqrt(self.power):.1f} % (rms)"


def most_departure(model: Model) -> float:
    """Return the share of a tensor's power by which rounding alone may let the run depart."""
    is_qdq = any(op.type == "dequantize_linear" for op in model.ops())
    return _BY_ROUNDING_WEIGHTS if is_qdq else _BY_ROUNDING


def first_departure(model: Model, feed: Feed) -> Departure | None:
    """Run an int8 model as it is deployed and op by op, and return where the two begin to differ.

    What Paddle fuses further is not seen. None if all that is seen agrees, or differs little more
    than what it is computed from. What is computed from integers is compared with what the program
    says of the run's own integers, if it rounds the same values to them.
    """
    runs = _run(model, feed)
    says, _ = _said(model, feed, runs)
    most, powers = most_departure(model), dict[str, float]()
    for op in model.ops():
        before = max((powers.get(name, 0.0) for name in op.reads()), default=0.0)
        for name in op.writes():
            powers[name] = before
            if name in says and name in runs:
                powers[name] = _difference(says[name], runs[name])
            if not powers[name] <= max(most, _GROWTH * before):
                return Departure(name, op.type, powers[name])
    return None


def said_of_integers(model: Model, feed: Feed) -> dict[str, Array]:
    """Return the outputs that a program says, of the integers that its int8 run has.

    Of few values, one that is rounded to the other side may be much of an output. Here that makes
    no difference: every tensor of integers takes the run's, if these are rounded from its values.
    """
    return _said(model, feed, _run(model, feed))[1]


def _run(model: Model, feed: Feed) -> dict[str, Array]:
    """Return the tensors of an int8 model's run that are seen."""
    seen = dict[str, Array]()

    def see(name: str, array: Array, tensor: Any) -> None:
        seen[name] = array

    _show(make_int8_predictor(model, all_cores()), _written(model), feed, see)
    return seen


def _said(
    model: Model, feed: Feed, runs: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the tensors and the outputs of a simulation that takes a run's integers."""
    simulation = simulate(model)
    own_names = {integers_of(simulation, name): name for name in _written(model)}
    seen = dict[str, Array]()

    def see(name: str, array: Array, tensor: Any) -> None:
        own = own_names[name]
        if own in runs and _is_rounded_alike(array, runs[own]):
            array = runs[own].astype(array.dtype)
            overwrite(view_values(tensor), array)
        seen[own] = array

    predictor = make_predictor(simulation, Optimization.NONE, all_cores())
    outputs = _show(predictor, own_names, feed, see)
    return seen, dict(zip(predictor.get_output_names(), outputs))


def _is_rounded_alike(says: Array, runs: Array) -> bool:
    """Return whether integers, which one side has as floats, differ as by the side of rounding."""
    if says.dtype != np.float32 or runs.dtype.kind not in "iu" or says.shape != runs.shape:
        return False
    steps = np.abs(says - runs)
    most = 1 + _MOST_TO_THE_OTHER_SIDE * steps.size
    return bool(steps.max(initial=0) <= 1 and np.count_nonzero(steps) <= most)


def _written(model: Model) -> set[str]:
    return {name for op in model.ops() for name in op.writes()}


def _show(
    predictor: Any,
    names: Collection[str],
    feed: Feed,
    see: Callable[[str, Array, Any], None],
) -> list[Array]:
    """Run a batch, and return its outputs; ``see`` takes each name, a copy, and the tensor."""
    from paddle import CPUPlace
    from paddle.base.dygraph import guard

    def take(op_type: str, name: str, tensor: Any) -> None:
        if op_type == "feed" or not tensor._is_initialized():
            return
        with guard(CPUPlace()):
            see(name, np.asarray(plain_tensor(tensor).numpy()), tensor)

    with Hook(predictor, names).running(take, feed, 0):
        return run_outputs(predictor, feed)


def _difference(expected: Array, found: Array) -> float:
    """Return the power of a difference as a share of the tensor's power.

    Integers that the simulation has as floats are compared but for their scale.
    """
    expected, found = as_float(expected), as_float(found)
    if expected.shape != found.shape:
        return 0.0  # a layout of Paddle's own
    sums = ErrorSums()
    sums.add(expected, found)
    if sums.signal == 0 or not math.isfinite(sums.signal):
        return 0.0
    if found.dtype.kind == "f" or sums.noise == 0:
        return sums.noise / sums.signal
    return 1 - sums.product**2 / (sums.signal * sums.other) if sums.other else 1.0
