"""What static mode does with each op of a model: int8, the weight alone, or float."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..program.folding.fold import fold
from ..program.folding.pooling import move_poolings
from ..program.graph import Graph
from ..program.matrix_products import why_misread
from ..program.model import Folding, Model, copy_model
from ..program.quantizable import (
    ACTIVATION_OP_TYPES,
    FloatOp,
    WeightedOp,
    check_quantizable,
    find_weighted_ops,
    refuse_nothing,
)
from ..program.targets.int8_plan import Int8Plan, plan_int8
from ..program.targets.onednn.plan import plan_onednn
from ..program.targets.profiles import Target, why_float
from ..program.targets.reads import reads_of_types
from ..program.weights import quantize_weights
from .options import CalibrationOptions


class OpEffect(NamedTuple):
    """What int8 does to an op.

    Attributes:
        op: the op.
        error: what its own integers do to the outputs of the model, as relative rms.
        saved: how much time they save, as `time_saved` estimates it.
    """

    op: WeightedOp
    error: float
    saved: float


@dataclass(frozen=True)
class Plan:
    """The ops of a model by what is done with them.

    Attributes:
        weight_only: the ops whose weight alone is stored as integers.
        kept: the ops that stay in float, or whose activation does, and why.
        skip_tensors: ops that read or write one of them stay in float.
    """

    weight_only: list[WeightedOp]
    kept: list[FloatOp]
    target: Target
    skip_tensors: Collection[str]
    int8: Int8Plan

    @property
    def ops(self) -> Sequence[WeightedOp]:
        """The ops whose activation and weight become int8."""
        return self.int8.ops

    def on(self, model: Model) -> Plan:
        """Return the plan for a copy of its model."""
        return replace(self, int8=replace(self.int8, model=model))

    def without(self, erring: Sequence[OpEffect], why: str) -> Plan:
        """Return the plan with some ops in float."""
        reason = f"{why}: its integers change the outputs"
        kept = [FloatOp(one.op.op_type, one.op.output, reason, error=one.error) for one in erring]
        others = {one.op for one in erring}
        return self.of([op for op in self.ops if op not in others], kept)

    def of(self, ops: Sequence[WeightedOp], kept: Sequence[FloatOp] = ()) -> Plan:
        """Return the plan with fewer int8 ops; ``kept`` are the others."""
        if len(ops) == len(self.ops):
            return self
        int8 = plan_int8(self.int8.model, ops, self.target, self.skip_tensors)
        return replace(self, kept=[*self.kept, *kept], int8=int8)


def plan_static(model: Model, options: CalibrationOptions) -> Plan:
    """Fold a float model and sort its ops, as the options say.

    Raises UnsupportedError if the model is quantized already, SettingError if a name of
    ``skip_tensor_list`` is not in the program or if no op is left.
    """
    target, skip_tensors = options.target, options.skip_tensor_list or ()
    is_full, optimizes = options.is_full_quantize, options.optimize_model
    check_quantizable(model, skip_tensors)
    if optimizes:
        fold(model, skip_tensors, target.takes_zero_points, settle=False)
    if target.check_readable is not None:
        target.check_readable(model)
    types = ACTIVATION_OP_TYPES if is_full else options.quantizable_op_type
    # If all is to be int8, so would be the convolution of the mean.
    if optimizes and target.form == "onednn" and not is_full:
        _pool_first(
            model, lambda other: _sorted_ops(other, types, skip_tensors, target), skip_tensors
        )
    ops, weight_only, kept = _sorted_ops(model, types, skip_tensors, target)
    int8 = plan_int8(model, ops, target, skip_tensors)
    return Plan(weight_only, kept, target, skip_tensors, int8)


def _pool_first(
    model: Model, part: Callable[[Model], _SortedOps], skip_tensors: Collection[str]
) -> None:
    """Move poolings in front of convolutions whose outputs then need not be float.

    Ops that read or write one of ``skip_tensors`` stay as they are. ``part`` sorts a model's ops.
    """
    trial = copy_model(model)
    if not move_poolings(trial, skip_tensors):
        return
    gaining = plan_onednn(trial, part(trial).ops).accumulated
    keep = tuple(sorted(skip_tensors))
    before = model.folded or Folding(keep, True, copy_model(model), frozenset())
    made = move_poolings(model, skip_tensors, gaining)
    if not made:
        return
    # The convolution of the mean may become one with what reads it.
    fold(model, skip_tensors, before.shifts, settle=False)
    again = model.folded.rescaled if model.folded is not None else frozenset()
    model.folded = before._replace(rescaled=before.rescaled | made | again)


class _SortedOps(NamedTuple):
    """The ops of a model: int8, with an integer weight alone, and float."""

    ops: list[WeightedOp]
    weight_only: list[WeightedOp]
    kept: list[FloatOp]


def _sorted_ops(
    model: Model, types: Collection[str], skip_tensors: Collection[str], target: Target
) -> _SortedOps:
    """Sort the ops of a model, as it is, by what is done with them."""
    found, kept = find_weighted_ops(model, types, skip_tensors)
    refuse_nothing(model, types, found, kept)
    int8_names = _names_of_weightless(model, target, skip_tensors)
    kept = [op for op in kept if op.name not in int8_names]
    parts = _SortedOps([], [], kept)
    axes = {op.weight: op.channel_axis for op in reversed(found)}
    reasons, misread = why_float(model, found, target), why_misread(model, found)
    weights = quantize_weights(model, found, 8, per_channel=True)
    int8_weights = {op.weight for op in found if reasons[op] is None}
    floats = model.float32_tensors()
    for op in found:
        reason = _why_float(model, op, axes[op.weight], floats) or weights[op.weight].why_float
        if reason is None and target.stores_integers:
            reason = misread.get(op)
        if reason is None and reasons[op] is None:
            parts.ops.append(op)
            continue
        if reason is None and op.weight not in int8_weights and target.stores_integers:
            parts.weight_only.append(op)
        kept.append(FloatOp(op.op_type, op.output, reason or str(reasons[op])))
    return parts


def _names_of_weightless(model: Model, target: Target, skip_tensors: Collection[str]) -> set[str]:
    """Return the names of the ops without a weight whose inputs ``target`` takes as integers."""
    if not target.weightless:
        return set()
    graph = Graph(model)
    reads = reads_of_types(graph, target.weightless, skip_tensors)
    return {graph.ops[read.position].output() for read in reads}


def _why_float(model: Model, op: WeightedOp, axis: int, floats: Collection[str]) -> str | None:
    weight = model.parameters[op.weight]
    if weight.dtype != np.float32:
        return f"weight '{op.weight}' is {weight.dtype}; static int8 takes float32"
    if op.activation in model.parameters:
        return f"its activation '{op.activation}' is a constant"
    if op.activation not in floats:
        return f"its activation '{op.activation}' is not declared as float32"
    if op.channel_axis != axis:
        return f"weight '{op.weight}' is quantized along axis {axis} for an earlier op"
    return None
