"""What static mode does with each op of a model: int8, the weight alone, or float."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np

from ..program.folding.fold import fold
from ..program.folding.pooling import move_poolings
from ..program.graph import Graph
from ..program.model import Folding, Model, copy_model
from ..program.onednn.writer import OneDnnWriter
from ..program.products import why_misread
from ..program.qdq import QdqWriter
from ..program.quantizable import (
    ACTIVATION_OP_TYPES,
    FloatOp,
    WeightedOp,
    check_quantizable,
    find_weighted_ops,
)
from ..program.reads import reads_of_types
from ..program.targets import Target, why_float
from ..program.weights import quantize_weights
from .options import CalibrationOptions

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
        skip_tensors: ops that read or write one of them stay in float.
    """

    ops: list[WeightedOp]
    weight_only: list[WeightedOp]
    kept: list[FloatOp]
    target: Target
    skip_tensors: Collection[str]

    def writer(self, model: Model, ops: Sequence[WeightedOp]) -> Writer:
        """Return what writes ``ops`` as int8."""
        if self.target.form == "onednn":
            return OneDnnWriter(model, ops)
        return QdqWriter(model, ops, self.target, self.skip_tensors)

    def observed(self, model: Model) -> Collection[str]:
        """The activations whose ranges have to be known."""
        return self.writer(model, self.ops).observed


def plan_static(model: Model, options: CalibrationOptions) -> Plan:
    """Part the ops of a float model, which is folded first, as the options say.

    Raises:
        UnsupportedError: the model is quantized already.
        SettingError: a name of ``skip_tensor_list`` is not in the program, or no op is left.
    """
    target, skip_tensors = options.target, options.skip_tensor_list or ()
    is_full, optimizes = options.is_full_quantize, options.optimize_model
    check_quantizable(model, skip_tensors)
    if optimizes:
        fold(model, skip_tensors, target.takes_zero_points, settle=False)
    types = ACTIVATION_OP_TYPES if is_full else options.quantizable_op_type
    # If all is to be int8, the convolution of the mean would be so as well.
    if optimizes and target.form == "onednn" and not is_full:
        _pool_first(model, lambda other: _parted(other, types, skip_tensors, target), skip_tensors)
    return _parted(model, types, skip_tensors, target)


def _pool_first(model: Model, part: Callable[[Model], Plan], skip_tensors: Collection[str]) -> None:
    """Move poolings in front of convolutions whose outputs need not be float then.

    Args:
        model: its program is changed.
        part: parts the ops of a model.
        skip_tensors: tensors at which every op stays as it is.
    """
    trial = copy_model(model)
    if not move_poolings(trial, skip_tensors):
        return
    gaining = OneDnnWriter(trial, part(trial).ops).accumulated
    keep = tuple(sorted(skip_tensors))
    before = model.folded or Folding(keep, True, copy_model(model), frozenset())
    made = move_poolings(model, skip_tensors, gaining)
    if not made:
        return
    # The convolution of the mean may become one with what reads it.
    fold(model, skip_tensors, before.shifts, settle=False)
    again = model.folded.rescaled if model.folded is not None else frozenset()
    model.folded = before._replace(rescaled=before.rescaled | made | again)


def _parted(
    model: Model, types: Collection[str], skip_tensors: Collection[str], target: Target
) -> Plan:
    """Part the ops of a model as it is."""
    found, kept = find_weighted_ops(model, types, skip_tensors)
    int8_names = _names_of_weightless(model, target, skip_tensors)
    kept = [op for op in kept if op.name not in int8_names]
    plan = Plan([], [], kept, target, skip_tensors)
    axes = {op.weight: op.channel_axis for op in reversed(found)}
    reasons, misread = why_float(model, found, target), why_misread(model, found)
    weights = quantize_weights(model, found, 8, per_channel=True)
    int8_weights = {op.weight for op in found if reasons[op] is None}
    for op in found:
        reason = _why_float(model, op, axes[op.weight]) or weights[op.weight].why_float
        if reason is None and target.stores_integers:
            reason = misread.get(op)
        if reason is None and reasons[op] is None:
            plan.ops.append(op)
            continue
        if reason is None and op.weight not in int8_weights and target.stores_integers:
            plan.weight_only.append(op)
        kept.append(FloatOp(op.op_type, op.output, reason or str(reasons[op])))
    return plan


def _names_of_weightless(model: Model, target: Target, skip_tensors: Collection[str]) -> set[str]:
    """Return the names of the ops without a weight whose inputs ``target`` takes as integers."""
    if not target.weightless:
        return set()
    graph = Graph(model)
    reads = reads_of_types(graph, target.weightless, skip_tensors)
    return {graph.ops[read.position].output() for read in reads}


def _why_float(model: Model, op: WeightedOp, axis: int) -> str | None:
    weight = model.parameters[op.weight]
    if weight.dtype != np.float32:
        return f"weight '{op.weight}' is {weight.dtype}; static int8 takes float32"
    if op.activation in model.parameters:
        return f"its activation '{op.activation}' is a constant"
    if op.channel_axis != axis:
        return f"weight '{op.weight}' is quantized along axis {axis} for an earlier op"
    return None
