"""Checks the int8 program of a plan, and keeps ops in float until it is near the float model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..errors import PyquantError
from ..program.graph import Graph
from ..program.model import Model, copy_model
from ..program.quantizable import FloatOp, WeightedOp
from ..program.targets.onednn.fusion import fuse
from ..program.targets.saturation import ANY
from ..result import Stopwatch
from ..verification.departures import Departure
from ..verification.outcome import Findings, OutputDifference, Verification, worst
from ..verification.outputs_check import OutputsCheck
from ..verification.turns import Times
from .decisions import Decisions, Emitted, decide, emit
from .observation import Observations
from .options import Options
from .plan import OpEffect, Plan
from .ranking import measured_ops, ranked_ops
from .search import cheapest_in_float

_MOST_DEPARTURES = 8
"""How many departures are looked for, each in a run of its own."""

LEAST_GAIN = 1.1
"""How many times smaller the error's power must become for a setting that nobody asked for.

They choose by a sample of the data, and a few batches tell what that does: less may be chance.
"""

_LEAST_LEFT = 0.05
"""If repairs leave less than this share of the time that int8 saves, every op stays in float.

So little is not worth the errors: DNSMOS had 0.3 % left, MTCNN's O-Net 0.5 % (`bench.zoo`).
"""


@dataclass(frozen=True)
class Checked:
    """A plan, the int8 program that it becomes, and what running that showed."""

    plan: Plan
    decisions: Decisions
    emitted: Emitted
    findings: Findings
    repairs: tuple[str, ...] = ()
    times: Times | None = None

    @classmethod
    def of(
        cls,
        plan: Plan,
        decisions: Decisions,
        check: OutputsCheck,
        repairs: tuple[str, ...] = (),
        emitted: Emitted | None = None,
    ) -> Checked:
        """Run the int8 program of a plan, which may have been emitted.

        Raises:
            ModelFileError: Paddle cannot load it.
            CalibrationDataError: it cannot run it.
        """
        emitted = emitted or emit(plan, decisions)
        return cls(plan, decisions, emitted, check.judge(emitted.model), repairs)

    @property
    def worst(self) -> OutputDifference:
        """The worst error of an output."""
        return worst(self.findings.errors)

    @property
    def is_near(self) -> bool:
        """Whether the outputs are near the float model's."""
        return self.worst.power <= self.decisions.options.most_power  # which NaN is not

    def repaired(self, repair: str) -> Checked:
        """Return the same with one repair more."""
        return replace(self, repairs=(*self.repairs, repair))

    def timed(self, check: OutputsCheck) -> Checked:
        """Return the same with the times of the program and of the float model."""
        return replace(self, times=self.times or check.times(self.emitted.model))

    def verification(self, check: OutputsCheck) -> Verification:
        """Return what the check found, with the times."""
        found, times = self.findings, self.times or check.times(self.emitted.model)
        kernels = check.kernels(self.emitted.model, times)
        return Verification(
            found.errors,
            found.departures,
            found.departs,
            found.batches,
            *times,
            self.repairs,
            kernels,
        )


class Trial(NamedTuple):
    """What settings decide, and the error that it costs on all kept batches."""

    plan: Plan
    decisions: Decisions
    emitted: Emitted
    power: float


def keep_settings_that_help(
    plan: Plan,
    observations: Observations,
    options: Options,
    watch: Stopwatch,
    check: OutputsCheck,
    plain: Trial | None = None,
    least_gain: float = 1.0,
) -> Trial:
    """Try each accuracy setting after the defaults: keep it if the outputs err less.

    The settings judge each op by itself; a run shows what their choices do to the outputs.
    ``plain`` is what the defaults decide, if that is known. ``least_gain`` is how many times
    smaller the error's power must become.
    """

    def tried(settings: Options) -> Trial:
        copied = plan.on(copy_model(plan.int8.model))  # the parameters may take factors in
        decisions = decide(copied, observations, settings, watch)
        emitted = emit(copied, decisions)
        power = worst(check.errors_on_all(emitted.model)).power
        watch.lap("check")
        return Trial(copied, decisions, emitted, power)

    best = plain or tried(options.without_accuracy_settings)
    for name, value in options.accuracy_settings.items():
        trial = tried(replace(best.decisions.options, **{name: value}))
        if least_gain * trial.power < best.power:
            best = trial
    return best


Decide = Callable[[Trial], Trial]
"""Decides anew, by settings that may be more accurate than those of a trial."""


def check_and_repair(
    plan: Plan, decisions: Decisions, check: OutputsCheck, repairs: bool, decide_anew: Decide | None
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
        checked = Checked.of(plan, decisions, check, emitted=emitted)
    except PyquantError as error:
        if not repairs:
            raise
        return _with_fewer_errors(plan, decisions, emitted, check, (), str(error))
    departs = checked.findings.departs
    if (departs or not checked.is_near) and check.replace_wrong_float():
        checked = replace(checked, findings=check.judge(checked.emitted.model))
    # Integers for processors with VNNI may depart on this one; that is what was asked for.
    repairs = repairs and not (checked.findings.departs and decisions.options.processors != ANY)
    if repairs and decide_anew is not None and not checked.is_near:
        checked = _by_other_settings(checked, check, decide_anew)
    checked = _without_departures(checked, check, repairs)
    if not repairs or checked.is_near:
        return checked
    return _with_fewer_errors(
        checked.plan,
        checked.decisions,
        checked.emitted,
        check,
        checked.repairs,
        str(checked.worst),
        checked.worst.power,
    )


def _by_other_settings(checked: Checked, check: OutputsCheck, decide_anew: Decide) -> Checked:
    """Decide by settings with which the outputs err less, if there are any."""
    power = worst(check.errors_on_all(checked.emitted.model)).power
    best = decide_anew(Trial(checked.plan, checked.decisions, checked.emitted, power))
    settings = best.decisions.options.accuracy_settings
    if not settings:
        return checked
    taken = " and ".join(f"{name}={value!r}" for name, value in settings.items())
    found = Checked.of(best.plan, best.decisions, check, emitted=best.emitted)
    return found.repaired(f"{taken} taken, as otherwise {checked.worst}")


def _without_departures(checked: Checked, check: OutputsCheck, repairs: bool) -> Checked:
    """Keep ops in float at which the run departs from the program; name what cannot be helped."""
    kept = list[str]()
    while checked.findings.departs:
        departure = check.first_departure(checked.emitted.model)
        if departure is None:
            break
        plan = _without_op_at(checked.plan, departure) if repairs else None
        if plan is None or len(kept) == _MOST_DEPARTURES:
            return checked.repaired(f"none where the run departs from the program: {departure}")
        kept.append(departure.name)
        checked = Checked.of(plan, checked.decisions, check, checked.repairs)
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


def _rankings(
    plan: Plan, decisions: Decisions, int8: Model, check: OutputsCheck
) -> Sequence[Sequence[OpEffect]]:
    """Return the ops with what they do to the outputs, in an order for each way to tell it.

    ``int8`` is the program in which all of them are int8.
    """

    def predicted(part: Plan) -> list[OpEffect]:
        return ranked_ops(part, decisions, check.worst_sample(int8))

    def powers_of(op: WeightedOp) -> Sequence[float]:
        return check.powers_of_op(emit(plan.of([op]), decisions).model)

    if not check.measures_ops:
        return [predicted(plan)]
    return measured_ops(plan, check.sample, powers_of, predicted)


def _with_fewer_errors(
    plan: Plan,
    decisions: Decisions,
    emitted: Emitted,
    check: OutputsCheck,
    repairs: tuple[str, ...],
    reason: str,
    power: float = math.nan,
) -> Checked:
    """Keep ops in float, for the outputs to be near, so that as little time is lost as possible.

    ``power`` is that of the error of the program that was ``emitted``; NaN if it does not run.
    """
    tried = dict[frozenset[WeightedOp], Emitted]()  # the last one

    def power_with(kept: frozenset[WeightedOp]) -> float:
        tried.clear()  # frees its memory
        tried[kept] = emit(plan.of([op for op in plan.ops if op not in kept]), decisions)
        return worst(check.errors(tried[kept].model)).power

    rankings = _rankings(plan, decisions, emitted.model, check)
    bound = decisions.options.most_power
    found = [_cheapest(ranked, power_with, power, bound) for ranked in rankings]
    near = [effects for effects in found if effects is not None]
    if not near:
        repair = f"nothing, for without any int8 op it is no better: {reason}"
        return Checked.of(plan, decisions, check, repairs, emitted).repaired(repair)
    best: Sequence[OpEffect] = min(near, key=_saved)
    if _saved(rankings[0]) - _saved(best) < _LEAST_LEFT * _saved(rankings[0]):
        best = rankings[0]
    repair = f"{len(best)} op(s) kept in float, as otherwise {reason}"
    known = tried.get(frozenset(one.op for one in best))
    plan = plan.without(best, "check")
    return Checked.of(plan, decisions, check, repairs, known).repaired(repair)


def _saved(effects: Sequence[OpEffect]) -> float:
    return sum(one.saved for one in effects)


def _cheapest(
    ranked: Sequence[OpEffect],
    power_with: Callable[[frozenset[WeightedOp]], float],
    power: float,
    bound: float,
) -> list[OpEffect] | None:
    """Return the ops to keep in float, by a ranking; None if the outputs are not near even so."""
    errors, saved = [one.error for one in ranked], [one.saved for one in ranked]

    def power_without(kept: frozenset[int]) -> float:
        return power_with(frozenset(ranked[position].op for position in kept))

    kept, is_near = cheapest_in_float(power_without, errors, saved, power, bound)
    return [ranked[position] for position in sorted(kept)] if is_near else None
