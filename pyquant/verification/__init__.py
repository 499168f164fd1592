"""Runs an int8 model as it is deployed, against its simulation and against its float model.

It imports `pyquant.comparison`, and whatever is below that. Start with `check`; `outcome` has what
it finds.
"""
