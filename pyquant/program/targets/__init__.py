"""Int8 programs: which ops a target runs as int8, and the program in the target's form.

Start at `profiles.Target` and `int8_plan.plan_int8`. `qdq` plans and emits quantize_linear and
dequantize_linear for the tensors in `reads`, `onednn` the int8 ops of oneDNN. `choices` holds what
data decide in between. `saturation` fits weights to 16-bit sums; `paddle_lite` is a form of dynamic
mode.
It imports the rest of `pyquant.program`, which does not import it.
"""
