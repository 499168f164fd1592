"""Places ops in int8 or in float by the time that they take on this machine."""

from __future__ import annotations

from collections.abc import Mapping

from ..program.quantizable import FloatOp, WeightedOp
from ..verification.outputs_check import OutputsCheck
from .plan import Plan
from .repair import Checked
from .work import multiplications, sizes_of

HERE = "here"
PLACES = (None, HERE)
"""For which machine a plan may be made: for none, by rules, or for this one, by measured time."""

# The shares of the multiplications that are left in int8, in the plans that are timed.
_SHARES = (0.9, 0.5, 0.0)

# How much less time one of them must take: less than this may be noise.
_GAIN = 1.03


def fastest(checked: Checked, check: OutputsCheck) -> Checked:
    """Return the fastest of a few plans: all int8, that in which the largest ops are, and float."""
    best, sizes = checked.timed(check), sizes_of(checked.plan, check.sample)
    for share in _SHARES:
        plan = _with_share(checked.plan, sizes, share)
        if len(plan.ops) == len(checked.plan.ops):
            continue
        found = Checked.of(plan, checked.decisions, check, checked.repairs).timed(check)
        if _is_faster(found, best) and (found.is_near or not best.is_near):
            moved = len(checked.plan.ops) - len(plan.ops)
            best = found.repaired(f"{moved} op(s) kept in float, which is faster here")
    return best


def _is_faster(found: Checked, best: Checked) -> bool:
    assert found.times is not None
    assert best.times is not None
    return found.times.ratio > _GAIN * best.times.ratio


def _with_share(plan: Plan, sizes: Mapping[str, int], share: float) -> Plan:
    """Return the plan with the fewest int8 ops that do a share of the multiplications."""
    counts = multiplications(plan, sizes)
    left, enough = set[WeightedOp](), share * sum(counts.values())
    for op in sorted(plan.ops, key=lambda op: -counts[op]):
        if sum(counts[one] for one in left) >= enough:
            break
        left.add(op)
    kept = [
        FloatOp(op.op_type, op.output, "plan_for='here': int8 saves no time on this machine")
        for op in plan.ops
        if op not in left
    ]
    return plan.of([op for op in plan.ops if op in left], kept)
