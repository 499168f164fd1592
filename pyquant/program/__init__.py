"""Paddle programs: reading, changing and writing them. No data are run through them here.

A newcomer starts at `model`: a `Model` is a ``ProgramDesc`` and its parameters. `op` is the view of
one op, `op_facts` what is true of op types, `graph` the editor. `quantizable` finds the ops that
have a weight, `weights` makes integers of it, `targets` says what runs as int8 where.
Of pyquant it imports `kernels`, `errors` and `settings` alone.
"""
