"""Folding: a float program with fewer ops and the same outputs.

Start at `fold.fold`. `affine` reads ops as scale * x + shift, `linear` as a weight on channels, and
these two compose. `constants` computes what depends on parameters alone. `residual`, `pooling` and
`subpixel` each rewrite one pattern. `scaling` divides channels by factors that neighbours take in.
"""
