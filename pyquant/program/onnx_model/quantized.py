"""QDQ: ``quantize_linear`` and ``dequantize_linear``, whose Scale is a threshold in Paddle."""

from __future__ import annotations

import numpy as np

from .builder import Attribute, Rows, Step, rows_of

ROWS: Rows = {}
_rows = rows_of(ROWS)


def _scale_and_zero_point(step: Step, integers: str) -> tuple[str, str, dict[str, Attribute]]:
    """Return the step between integers, the integer of zero, and the axis of channels."""
    scale = step.known(step.op.input("Scale"))
    zero = step.known(step.op.input("ZeroPoint"))
    if scale is None or zero is None:
        raise step.refused("its scale is computed")
    levels = np.float32(2 ** (step.op.attr("bit_length", 8) - 1) - 1)
    axis = step.op.attr("quant_axis", -1)
    steps = (scale.astype(np.float32) / levels).astype(np.float32)
    dtype = step.dtype(integers)
    whole = np.broadcast_to(zero, steps.shape).astype(dtype if dtype.kind in "iu" else np.int8)
    if axis < 0 or steps.size == 1:
        return step.constant(steps.reshape(())), step.constant(whole.reshape(())), {}
    return step.constant(steps.reshape(-1)), step.constant(whole.reshape(-1)), {"axis": axis}


@_rows("quantize_linear")
def _quantize(step: Step) -> None:
    scale, zero, axis = _scale_and_zero_point(step, step.op.output("Y"))
    found = step("QuantizeLinear", step.input("X"), scale, zero, **axis)
    step.give("Y", found)


@_rows("dequantize_linear")
def _dequantize(step: Step) -> None:
    scale, zero, axis = _scale_and_zero_point(step, step.op.input("X"))
    step.give("Y", step("DequantizeLinear", step.input("X"), scale, zero, **axis))
