"""Calibration: runs data through a model, and keeps statistics of its activations that merge.

Start at `run.collect_statistics`. `data` turns what a user gives into batches, `forward` shows each
activation to what observes it, `statistic` and `state` hold, merge and store what was seen.
It imports `pyquant.program` and `pyquant.kernels`.
"""
