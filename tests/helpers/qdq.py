"""QDQ programs with some ops back in float, and with the levels of the int8 run."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pyquant import Model
from pyquant.program import proto
from pyquant.program.model import copy_model
from pyquant.program.op import Op, make_op, ops_of, replace_ops

_LINEAR = {"conv2d": "Input", "depthwise_conv2d": "Input"}


def quantized_ops(model: Model) -> dict[str, Any]:
    """Return the ops that are marked for int8, by their outputs."""
    return {
        op.output(): op
        for op in model.ops()
        if op.attr("quantization_type", "") == "qat_with_weight"
    }


def quantized_input(model: Model, op: Op) -> str:
    """Return the tensor that ``op`` reads quantized."""
    producers = model.producers()
    name = op.inputs(_LINEAR.get(op.type, "X"))[0]
    for _ in range(2):
        name = producers[name].input("X")
    return name


def is_behind_relu(model: Model, op: Op) -> bool:
    """Return whether ``op`` reads the output of a relu."""
    producer = model.producers().get(quantized_input(model, op))
    return producer is not None and producer.type in ("relu", "relu6")


def with_only(model: Model, outputs: Collection[str]) -> Model:
    """Return ``model`` with only those quantized ops that write ``outputs``."""
    made = copy_model(model)
    for output, op in quantized_ops(made).items():
        if output not in outputs:
            name = op.inputs(_LINEAR.get(op.type, "X"))[0]
            op.rename_inputs({name: quantized_input(model, op)})
            op.remove_attrs(("quantization_type",))
    for op_type in ("dequantize_linear", "quantize_linear"):
        read = {name for op in made.ops() for name in op.reads()}
        block = made.program.blocks[0]
        ops = ops_of(block)
        kept = [op for op in ops if op.type != op_type or not read.isdisjoint(op.writes())]
        replace_ops(block, kept)
    _drop_unused(made)
    return made


def with_levels_of_the_run(model: Model) -> Model:
    """Return ``model`` with 255 levels, from zero on, for each quantized relu.

    Paddle's passes make a tensor uint8 if it is never negative (UpdateReluOutputScales in
    ``compute_propagate_scales_onednn_pass.cc``, QuantizeInput in ``cpu_quantize_pass.cc``).
    """
    made = copy_model(model)
    producers = model.producers()
    ops: list[Any] = []
    widened: set[str] = set()
    for op in [op.copy() for op in made.ops()]:
        source, output = next(iter(op.reads()), ""), next(iter(op.writes()), "")
        behind = producers.get(source)
        if op.type == "quantize_linear" and behind is not None and "relu" in behind.type:
            widened.add(output)
            steps = {"scale": {"scale": 255 / _threshold(model, op)}}
            steps = {**steps, "clip": {"min": 0.0, "max": 255.0}, "round": {}}
            ops += _chain(made, source, output, steps)
        elif op.type == "dequantize_linear" and source in widened:
            ops += _chain(made, source, output, {"scale": {"scale": _threshold(model, op) / 255}})
        else:
            ops.append(op)
    replace_ops(made.program.blocks[0], ops)
    _drop_unused(made)
    return made


def _chain(model: Model, source: str, output: str, steps: dict[str, dict[str, Any]]) -> list[Any]:
    """Return ops that make ``output`` of ``source``, one after another."""
    made = []
    for op_type, attributes in steps.items():
        target = f"{output}.{op_type}"
        proto.add_var(model.program.blocks[0], target, proto.FP32, model.dims()[output])
        made.append(make_op(op_type, {"X": [source]}, {"Out": [target]}, attributes))
        source = target
    made[-1].rename_outputs({source: output})
    return made


def _threshold(model: Model, op: Op) -> float:
    return float(model.parameters[op.input("Scale")][0])


def _drop_unused(model: Model) -> None:
    block = model.program.blocks[0]
    used = {n for op in model.ops() for n in (*op.reads(), *op.writes())}
    for position in reversed(range(len(block.vars))):
        if block.vars[position].name not in used:
            model.parameters.pop(block.vars[position].name, None)
            del block.vars[position]
