"""Static mode: the choices between what was seen of a model and its int8 program.

Start at `stages.Stages`, whose methods run in their order. `options` holds a call's arguments,
`plan` which ops become int8, `observation` what the data show, `activation_ranges` the thresholds,
`equalization` the factors, `accuracy_control` which ops go back to float.
It imports `pyquant.calibration`, `pyquant.program` and `pyquant.kernels`.
"""
