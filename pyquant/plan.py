"""What static mode does with each op of a model: int8, the weight alone, or float."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np

from .program.folding.fold import fold
from .program.model import Model
from .program.onednn.writer import OneDnnWriter
from .program.qdq import QdqWriter
from .program.quantizable import FloatOp, WeightedOp, check_quantizable, find_weighted_ops
from .program.same_values import first_of_same_values
from .program.targets import DEPLOY_BACKENDS, Target, why_weight_only

Writer = Union[QdqWriter, OneDnnWriter]
"""What puts int8 ops into a program."""


@dataclass(frozen=True)
class Plan:
    """The ops of a model by what is done with them.

    Attributes:
        ops: activation and weight become int8.
        weight_only: the weight alone does.
        kept: what stays in float, or of which the activation does, and why.
        target: where the model is to run.
    """

    ops: list[WeightedOp]
    weight_only: list[WeightedOp]
    kept: list[FloatOp]
    target: Target

    def writer(self, model: Model, ops: Sequence[WeightedOp]) -> Writer:
        """Return what writes ``ops`` as int8."""
        return _WRITERS[self.target.form](model, ops)

    def observed(self, model: Model) -> dict[str, str]:
        """The tensor to observe for each activation: itself, or another of the same values."""
        return first_of_same_values(model, self.writer(model, self.ops).observed)


_WRITERS: dict[str, type[QdqWriter] | type[OneDnnWriter]] = {
    "qdq": QdqWriter,
    "onednn": OneDnnWriter,
}


def plan_static(
    model: Model,
    op_types: Collection[str],
    skip_tensors: Collection[str],
    deploy_backend: str | None,
    optimize_model: bool,
) -> Plan:
    """Fold ``model`` if ``optimize_model``; part its ops as the profile of ``deploy_backend`` says.

    Raises:
        UnsupportedError: the model is quantized already.
        SettingError: a name of ``skip_tensors`` is not in the program, or no op is left.
    """
    check_quantizable(model, skip_tensors)
    if optimize_model:
        shifts = DEPLOY_BACKENDS[deploy_backend].takes_zero_points
        fold(model, skip_tensors, shifts, settle=False)
    found, kept = find_weighted_ops(model, op_types, skip_tensors)
    target = DEPLOY_BACKENDS[deploy_backend]
    plan = Plan([], [], kept, target)
    axes = {op.weight: op.channel_axis for op in reversed(found)}
    reasons = why_weight_only(model, found, target)
    int8_weights = {op.weight for op in found if reasons[op] is None}
    for op in found:
        reason = _why_float(model, op, axes[op.weight])
        if reason is None and reasons[op] is None:
            plan.ops.append(op)
            continue
        if reason is None and op.weight not in int8_weights:
            plan.weight_only.append(op)
        kept.append(FloatOp(op.op_type, op.output, reason or str(reasons[op])))
    return plan


def _why_float(model: Model, op: WeightedOp, axis: int) -> str | None:
    weight = model.parameters[op.weight]
    if weight.dtype != np.float32:
        return f"weight '{op.weight}' is {weight.dtype}; static int8 takes float32"
    if op.activation in model.parameters:
        return f"its activation '{op.activation}' is a constant"
    if op.channel_axis != axis:
        return f"weight '{op.weight}' is quantized along axis {axis} for an earlier op"
    return None
