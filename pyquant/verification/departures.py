"""Finds the op at which an int8 run departs from what its program says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..calibration.data import Feed
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
    than what it is computed from: where integers may be rounded to either side, differences grow
    from op to op.
    """
    names = {name for op in model.ops() for name in op.writes()}
    simulation = simulate(model)
    stand_ins = {integers_of(simulation, name): name for name in names}
    says = _tensors(make_predictor(simulation, Optimization.NONE, all_cores()), stand_ins, feed)
    runs = _tensors(make_int8_predictor(model, all_cores()), {name: name for name in names}, feed)
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


def _tensors(predictor: Any, names: Mapping[str, str], feed: Feed) -> dict[str, Array]:
    """Return copies of the last values of tensors, whose own names ``names`` maps to others."""
    found: dict[str, Array] = {}
    with Hook(predictor, names.keys()).running(partial(_keep, found, names), feed, 0):
        run_outputs(predictor, feed)
    return found


def _keep(
    found: dict[str, Array], names: Mapping[str, str], op_type: str, name: str, tensor: Any
) -> None:
    from paddle import CPUPlace, _C_ops
    from paddle.base.dygraph import guard

    if op_type == "feed" or not tensor._is_initialized():
        return
    with guard(CPUPlace()):
        # assign has no oneDNN kernel: Paddle makes a plain tensor first.
        found[names[name]] = np.asarray(_C_ops.assign(tensor).numpy())


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
