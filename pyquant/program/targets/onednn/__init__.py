"""The int8 ops of oneDNN, as Paddle's Predictor runs them on a CPU.

Start at `plan.OneDnnPlan`. `fusion` finds what one kernel computes, `flow` which tensors become
integers, `accumulation` where images are added as integers. `emit` writes the program: `grids` says
what the integers stand for, `widening` gives images more channels, `ops` makes the ops. `integers`
reads a written program back, and `simulation` computes the same in float.
"""
