"""The int8 ops of oneDNN, as Paddle's Predictor runs them on a CPU.

Start at `plan.OneDnnPlan`. `fusion` finds what one kernel computes, `flow` which tensors become
integers, `scale_preserving` the ops that move these, `accumulation` where feature maps are added as
integers. `emit` writes the program: `grids` chooses integers, `widening` gives feature maps more
channels, `ops` makes the ops, `in_place` lets them share memory. `read_scales` reads a written
program back, and `simulation` says in float what it computes.
It imports `pyquant.program`, and of the targets what all of them share.
"""
