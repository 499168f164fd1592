"""The int8 program of a model, planned once: what becomes integers, and what has to be observed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Union

from ..model import Model
from ..quantizable import WeightedOp
from .onednn.plan import OneDnnPlan, plan_onednn
from .onnx_qdq import OnnxPlan, plan_onnx
from .profiles import Target
from .qdq import QdqPlan, plan_qdq

Int8Plan = Union[QdqPlan, OneDnnPlan, OnnxPlan]
"""What observers, choices and `emit` follow; it does not change."""


def plan_int8(
    model: Model, ops: Sequence[WeightedOp], target: Target, skip_tensors: Collection[str]
) -> Int8Plan:
    """Plan the program in which ``ops`` of a float model are int8, in the form of a target.

    Ops that read or write one of ``skip_tensors`` stay in float. Once planned, the model's
    parameters may change, but not its program.
    """
    if target.form == "onednn":
        return plan_onednn(model, ops)
    if target.form == "onnx":
        return plan_onnx(model, ops)
    return plan_qdq(model, ops, target, skip_tensors)
