"""Accuracy control: as many ops in int8 as a metric allows.

Ops are ranked by what their integers do to the outputs, and by the time that they save (see
`ranking`). As few of the first ones as possible are kept in float.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import SettingError
from ..program.model import Model
from ..program.predictor import Optimization, all_cores, make_int8_predictor, make_predictor
from ..program.quantizable import WeightedOp
from .options import Metric
from .plan import OpEffect
from .search import fewest


@dataclass(frozen=True)
class Trial:
    """One evaluation of the metric."""

    kept: int  # how many of the first ops were in float
    metric: float
    seconds: float  # how long the evaluation took


@dataclass(frozen=True)
class Control:
    """The result of accuracy control.

    Attributes:
        kept: the ops to keep in float, those first that do most for the time that they save.
        trials: in the order in which they ran; the first is the float model's, its ``kept`` is -1.
        is_met: whether the metric holds.
    """

    kept: Sequence[OpEffect]
    trials: list[Trial]
    is_met: bool

    def __str__(self) -> str:
        reference = self.trials[0]
        chosen = next(trial for trial in self.trials if trial.kept == len(self.kept))
        first = next(trial for trial in self.trials if trial.kept == 0)
        met = "" if self.is_met else "; max_drop is not met even so"
        return (
            f"accuracy control: float {reference.metric:.4f}, int8 throughout {first.metric:.4f}, "
            f"with {chosen.kept} op(s) in float {chosen.metric:.4f}{met}; evaluating took "
            f"{reference.seconds:.2f} s in float, {first.seconds:.2f} s in int8 and "
            f"{chosen.seconds:.2f} s with both"
        )


def control(
    source: Model,
    write: Callable[[Sequence[WeightedOp]], Model],
    ranked: Sequence[OpEffect],
    metric: Metric,
    max_drop: float,
) -> Control:
    """Find how many of the first ops to keep in float.

    Their number is doubled until the metric holds, and then bisected. This takes about twice the
    logarithm of the number of ops in evaluations. ``write`` makes a model in which some ops are
    int8; ``ranked`` has the ops, those first that are kept first. The metric may fall below that of
    the float model, ``source``, by ``max_drop``.
    """
    ops = [one.op for one in ranked]
    reference = _evaluated(-1, metric, make_predictor(source, Optimization.FUSED, all_cores()))
    trials = [reference]

    def holds(kept: int) -> bool:
        known = [trial for trial in trials if trial.kept == kept]
        if not known:
            known = [_evaluated(kept, metric, make_int8_predictor(write(ops[kept:]), all_cores()))]
            trials.extend(known)
        return known[0].metric >= reference.metric - max_drop

    enough = fewest(holds, len(ops))
    return Control(ranked[:enough], trials, holds(enough))


def _evaluated(kept: int, metric: Metric, predictor: Any) -> Trial:
    start = time.perf_counter()
    value = metric(predictor)
    seconds = time.perf_counter() - start
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise SettingError(
            f"eval_function: it returned {value!r}, which is no finite number. Let it return a "
            "metric, the greater the better."
        )
    return Trial(kept, number, seconds)
