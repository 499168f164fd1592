"""Folding: a float program with fewer ops and the same outputs.

Start at `fold.fold` and its rules. `affine_folding` moves batch_norm and arithmetic into weights:
`affine` reads ops as scale * x + shift, `linear` as a weight on channels. `constant_folding`
computes what depends on parameters alone. `residual`, `pooling`, `subpixel` and `weight_order` each
rewrite one pattern. `cross_layer_equalization` divides channels by factors that neighbours take in.
It imports `pyquant.program`, but no target.
"""
