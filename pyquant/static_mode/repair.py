"""Checks the int8 program of a plan, and keeps ops in float until it is near the float model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..calibration.data import Feed
from ..errors import PyquantError
from ..program.model import Model
from ..program.quantizable import FloatOp
from ..verification import Check, OutputError, Verification, worst
from .accuracy_control import fewest
from .decisions import Decisions, Emitted, emit
from .plan import Plan
from .ranking import ranked_by_error

MOST_ERROR = 0.05
"""The share of an output's power that its error by int8 may have."""


def checked(
    model: Model, plan: Plan, decisions: Decisions, feeds: Sequence[Feed], repairs: bool
) -> tuple[Plan, Emitted, Verification]:
    """Return the int8 program of a plan, or of one with fewer int8 ops where it errs too much.

    Args:
        model: the float model, folded.
        plan: of it.
        decisions: by the data.
        feeds: batches to check it on.
        repairs: whether ops may be kept in float.

    Raises:
        ModelFileError: Paddle cannot load a model.
        CalibrationDataError: it cannot run one.
    """
    check = Check(model, feeds)
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
    ranked = ranked_by_error(model, plan, decisions, feeds[0])
    ops = [op for op, _ in ranked]

    def holds(kept: int) -> bool:
        return _holds(worst(check.errors(emit(plan.of(ops[kept:]), decisions).model)))

    kept = fewest(holds, len(ops))
    if kept == len(ops) and not holds(kept):
        repair = f"nothing, for without any int8 op it is no better: {reason}"
        return plan, emitted, replace(check.verify(emitted.model), repairs=(repair,))
    reasons = [
        FloatOp(op.op_type, op.output, f"check: its integers err by {error:.2%}")
        for op, error in ranked[:kept]
    ]
    plan = plan.of([op for op in plan.ops if op not in ops[:kept]], reasons)
    emitted = emit(plan, decisions)
    repair = f"{kept} op(s) kept in float, as otherwise {reason}"
    return plan, emitted, replace(check.verify(emitted.model), repairs=(repair,))


def _holds(error: OutputError) -> bool:
    return error.power <= MOST_ERROR  # which NaN is not
