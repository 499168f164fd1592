"""Checks the int8 program of a plan, and keeps ops in float until it is near the float model."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ..errors import PyquantError
from ..program.model import copy_model
from ..result import Stopwatch
from ..verification import Check, OutputDifference, Verification, worst
from .accuracy_control import fewest
from .decisions import Decisions, Emitted, decide, emit
from .observation import Observations
from .options import Options
from .plan import Plan
from .ranking import ranked_by_error

MOST_ERROR = 0.05
"""The share of an output's power that its error by int8 may have."""


def keep_settings_that_help(
    plan: Plan, observations: Observations, options: Options, watch: Stopwatch, check: Check
) -> tuple[Plan, Decisions]:
    """Decide by the defaults, then try each accuracy setting: keep it if the outputs err less.

    The settings judge each op by itself; a run shows what their choices do to the outputs.
    """
    if not options.accuracy_settings:
        return plan, decide(plan, observations, options, watch)

    def tried(settings: Options) -> tuple[float, Plan, Decisions]:
        copied = plan.on(copy_model(plan.int8.model))  # the parameters may take factors in
        decisions = decide(copied, observations, settings, watch)
        power = worst(check.errors(emit(copied, decisions).model)).power
        watch.lap("check")
        return power, copied, decisions

    best = tried(options.without_accuracy_settings)
    for name, value in options.accuracy_settings.items():
        trial = tried(replace(best[2].options, **{name: value}))
        if trial[0] < best[0]:
            best = trial
    return best[1:]


def check_and_repair(
    plan: Plan, decisions: Decisions, check: Check, repairs: bool
) -> tuple[Plan, Emitted, Verification]:
    """Return the int8 program of a plan, or of one with fewer int8 ops where it errs too much.

    ``repairs`` is whether ops may be kept in float.

    Raises:
        ModelFileError: Paddle cannot load the result.
        CalibrationDataError: it cannot run it.
    """
    emitted = emit(plan, decisions)
    try:
        found = check.verify(emitted.model)
        reason = str(worst(found.errors))
        if not repairs or _holds(worst(found.errors)):
            return plan, emitted, found
    except PyquantError as error:
        if not repairs:
            raise
        reason = str(error)
    ranked = ranked_by_error(plan, decisions, check.feeds[0])
    ops = [op for op, _ in ranked]

    @cache
    def holds(kept: int) -> bool:
        return kept > 0 and _holds(worst(check.errors(emit(plan.of(ops[kept:]), decisions).model)))

    kept = fewest(holds, len(ops))
    if kept == len(ops) and not holds(kept):
        repair = f"nothing, for without any int8 op it is no better: {reason}"
        return plan, emitted, replace(check.verify(emitted.model), repairs=(repair,))
    plan = plan.without(ranked[:kept], "check")
    emitted = emit(plan, decisions)
    repair = f"{kept} op(s) kept in float, as otherwise {reason}"
    return plan, emitted, replace(check.verify(emitted.model), repairs=(repair,))


def _holds(error: OutputDifference) -> bool:
    return error.power <= MOST_ERROR  # which NaN is not
