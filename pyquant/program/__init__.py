"""Reading, changing and writing Paddle programs, without running data through them.

Start at `model`: a `Model` is a ``ProgramDesc`` and its parameters. `op` is a view of one op,
`op_facts` knows op types, `graph` edits programs. `quantizable` finds the ops that have a weight,
`weights` quantizes it, `targets` says what runs as int8 where.
Of pyquant, it imports only `kernels`, `errors`, `settings` and `progress`.
"""
