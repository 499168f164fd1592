"""Calibration: runs data through a model and keeps mergeable statistics of its activations.

Start at `run.collect_statistics`. `data` turns the user's data into batches, `forward` shows each
activation to its observers, `statistic` and `state` hold, merge and store the statistics.
It imports `pyquant.program` and `pyquant.kernels`.
"""
