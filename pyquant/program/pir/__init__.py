"""Paddle 3's ``.json`` programs (PIR), read as a ``ProgramDesc``.

Start at `importer.read_program`. `reader` parses the file, `table` has one line for each op.
It imports `proto`, `op` and `op_protos` of `pyquant.program`.
"""
