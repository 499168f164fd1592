"""Checks the int8 program of a plan, and keeps ops in float until it is near the float model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate

from ..errors import PyquantError
from ..program.graph import Graph
from ..program.model import copy_model
from ..program.quantizable import FloatOp, WeightedOp
from ..program.targets.onednn.fusion import fuse
from ..program.targets.saturation import ANY
from ..result import Stopwatch
from ..verification.check import Check
from ..verification.departures import Departure, first_departure
from ..verification.outcome import Verification, worst
from .accuracy_control import fewest
from .decisions import Decisions, Emitted, decide, emit
from .observation import Observations
from .options import Options
from .plan import Plan
from .ranking import ranked_by_error

MOST_ERROR = 0.01
"""The share of an output's power, around its mean, that its error by int8 may have.

It was chosen by the networks of `bench.zoo` and `bench.decoder`: 1.6 % cost a decoder 4.5 % of its
perplexity, 1.2 % a transcriber of music 16 points, 2.6 % a reader of text 0.8 points.
"""

_SLACK = 1 / 8
"""The share of the ops that are kept in float that need not be: fewer trials find it."""

_MOST_DEPARTURES = 8
"""How many departures are looked for, each in a run of its own."""


@dataclass(frozen=True)
class Checked:
    """A plan, the int8 program that it becomes, and what running that showed."""

    plan: Plan
    decisions: Decisions
    emitted: Emitted
    verification: Verification

    @property
    def is_near(self) -> bool:
        """Whether the outputs are near the float model's."""
        return worst(self.verification.errors).power <= MOST_ERROR  # which NaN is not

    def repaired(self, repair: str) -> Checked:
        """Return the same with one repair more."""
        return self._with((*self.verification.repairs, repair))

    def after(self, earlier: Checked) -> Checked:
        """Return the same with the repairs that were made before."""
        return self._with((*earlier.verification.repairs, *self.verification.repairs))

    def _with(self, repairs: tuple[str, ...]) -> Checked:
        return replace(self, verification=replace(self.verification, repairs=repairs))


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


Decide = Callable[[], tuple[Plan, Decisions]]
"""Decides anew, by settings that may be more accurate."""


def check_and_repair(
    plan: Plan, decisions: Decisions, check: Check, repairs: bool, decide_anew: Decide | None
) -> Checked:
    """Check the int8 program of a plan, and repair it where it is wrong.

    If the outputs are far from the float model's, other settings are tried first, which cost no
    time. Then ops stay in float: those at which the run departs from the program, and, until the
    outputs are near, those that err most.
    ``repairs`` is whether ops may be kept in float; ``decide_anew`` is None if the settings were
    given.

    Raises:
        ModelFileError: Paddle cannot load the result.
        CalibrationDataError: it cannot run it.
    """
    emitted = emit(plan, decisions)
    try:
        checked = Checked(plan, decisions, emitted, check.verify(emitted.model))
    except PyquantError as error:
        if not repairs:
            raise
        return _with_fewer_errors(plan, decisions, check, str(error))
    is_right = checked.is_near and not checked.verification.departs
    if not is_right and check.replace_wrong_float():
        checked = replace(checked, verification=check.verify(emitted.model))
    # Integers for processors with VNNI may depart on this one; that is what was asked for.
    repairs = repairs and not (checked.verification.departs and decisions.options.processors != ANY)
    if repairs and decide_anew is not None and not checked.is_near:
        checked = _by_other_settings(checked, check, decide_anew)
    checked = _without_departures(checked, check, repairs)
    if not repairs or checked.is_near:
        return checked
    left = worst(checked.verification.errors)
    fewer = _with_fewer_errors(checked.plan, checked.decisions, check, str(left), left.power)
    return fewer.after(checked)


def _by_other_settings(checked: Checked, check: Check, decide_anew: Decide) -> Checked:
    """Decide by settings with which the outputs err less, if there are any."""
    plan, decisions = decide_anew()
    taken = [f"{name}={value!r}" for name, value in decisions.options.accuracy_settings.items()]
    if not taken:
        return checked
    emitted, reason = emit(plan, decisions), worst(checked.verification.errors)
    found = Checked(plan, decisions, emitted, check.verify(emitted.model))
    return found.repaired(f"{' and '.join(taken)} taken, as otherwise {reason}")


def _without_departures(checked: Checked, check: Check, repairs: bool) -> Checked:
    """Keep ops in float at which the run departs from the program; name what cannot be helped."""
    kept, decisions = list[str](), checked.decisions
    while checked.verification.departs:
        departure = first_departure(checked.emitted.model, check.sample)
        if departure is None:
            break
        plan = _without_op_at(checked.plan, departure) if repairs else None
        if plan is None or len(kept) == _MOST_DEPARTURES:
            return checked.repaired(f"not that the run departs from the program at {departure}")
        kept.append(departure.name)
        emitted = emit(plan, decisions)
        made = Checked(plan, decisions, emitted, check.verify(emitted.model))
        checked = made.after(checked)
    if not kept:
        return checked
    return checked.repaired(
        f"{len(kept)} op(s) kept in float, where the run departed from the program: '{kept[0]}'"
    )


def _without_op_at(plan: Plan, departure: Departure) -> Plan | None:
    """Return the plan with the int8 op in float that computes a tensor; None if there is none."""
    graph = Graph(plan.int8.model)
    others, found = list[WeightedOp](), list[FloatOp]()
    for op in plan.ops:
        if departure.name in (op.output, fuse(graph, op).output):
            reason = f"check: its int8 run departs from the program at {departure}"
            found.append(FloatOp(op.op_type, op.output, reason))
        else:
            others.append(op)
    return plan.of(others, found) if found and others else None


def _guess(errors: Sequence[float], power: float) -> int:
    """Return how many of the worst ops to keep in float, if errors of ops add up in the outputs."""
    if not power > 0:  # NaN
        return 1
    squares = [error**2 for error in errors]
    bearable = MOST_ERROR / power * sum(squares)
    left = accumulate(reversed(squares), initial=0.0)
    return len(errors) - max(count for count, rest in enumerate(left) if rest <= bearable)


def _with_fewer_errors(
    plan: Plan, decisions: Decisions, check: Check, reason: str, power: float = math.nan
) -> Checked:
    """Keep the fewest of the ops that err most in float, for the outputs to be near.

    ``power`` is that of the error now; NaN if it is not known.
    """
    ranked = ranked_by_error(plan, decisions, check.feeds[0])
    ops = [op for op, _ in ranked]

    @cache
    def holds(kept: int) -> bool:
        if not kept:  # known already
            return False
        model = emit(plan.of(ops[kept:]), decisions).model
        return worst(check.errors(model)).power <= MOST_ERROR

    kept = fewest(holds, len(ops), _guess([error for _, error in ranked], power), _SLACK)
    if kept == len(ops) and not holds(kept):
        repair = f"nothing, for without any int8 op it is no better: {reason}"
    else:
        plan = plan.without(ranked[:kept], "check")
        repair = f"{kept} op(s) kept in float, as otherwise {reason}"
    emitted = emit(plan, decisions)
    return Checked(plan, decisions, emitted, check.verify(emitted.model)).repaired(repair)
