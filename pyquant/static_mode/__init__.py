"""Static mode: the choices between the observation of a model and its int8 program.

`pyquant.static` shows their order: `plan` sorts the ops, `observation` runs the data, `decisions`
decides and emits, `repair` runs the result and keeps ops in float that err too much, in the order
of `ranking`. `activation_ranges` chooses thresholds, `equalization` factors and scales per token,
`weight_rounding` integers and bias corrections; `accuracy_control` serves a metric of the user,
`input_check` warns of unusual data, `options` holds a call's arguments.
It imports `pyquant.verification`, and whatever is below that.
"""
