"""Calibration: runs data through a model and keeps mergeable statistics of its activations.

Start at `run.collect_statistics`. `data` turns the user's data into batches, `forward` shows each
activation to its observers, `statistic`, `channel_statistics` and `samples` keep what they see,
`kept` a few batches, and `state` saves and merges all that. From these follow `thresholds`,
`channel_factors`, `moments` (integers of weights), `bias_correction` and `output_error`.
It imports `pyquant.program`, `pyquant.kernels`, and small modules beside them, as `pyquant.memory`.
"""
