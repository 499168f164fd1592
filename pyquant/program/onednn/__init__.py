"""The int8 ops of oneDNN, as Paddle's Predictor runs them on a CPU.

Start at `writer.OneDnnWriter`. `fusion` finds what one kernel computes, `flow` which tensors become
integers, `widening` and `accumulation` where images get room or are added as integers, `ops` makes
the ops. `integers` reads a written program back, and `simulation` says in float what it computes.
"""
