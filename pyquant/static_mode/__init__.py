"""Static mode: the choices between the observation of a model and its int8 program.

Start at `decisions.decide` and `decisions.emit`. `options` holds a call's arguments, `plan` which
ops become int8, `observation` what the data show, `activation_ranges` the thresholds,
`equalization` the factors, `rounding` the integers of weights and the biases, `accuracy_control`
which ops go back to float.
It imports `pyquant.calibration`, `pyquant.program` and `pyquant.kernels`.
"""
