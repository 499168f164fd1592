"""Constant folding and fusion of redundant ops of a float model, rule by rule."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..graph import Graph
from ..misfusion import keep_apart
from ..model import Folding, Model, copy_model
from .affine_folding import fold_affine
from .constants import compute_constants, use_constants
from .residual import factor_out
from .rule import Scope
from .subpixel import use_pixel_shuffle

RULES: tuple[Callable[[Graph, Scope], set[str]], ...] = (
    factor_out,
    compute_constants,
    use_constants,
    fold_affine,
    use_pixel_shuffle,
)
"""In their order. Each edits a graph where it is exact but for rounding, and returns the tensors
that are new, or have other values than before."""


def fold(
    model: Model, keep: Collection[str] = (), shifts: bool = True, settle: bool = True
) -> None:
    """Fold a float model in place.

    Its outputs are the same up to the rounding of float32. Tensors between folded ops are no longer
    computed, and the weights of linear ops change.

    Args:
        model: the model. Weights of other types than float32 stay as they are.
        keep: tensors that are left as they are, and the linear ops at them, as those of a skip
            list.
        shifts: whether additions before a linear op go into its bias. What they add often centres
            the values on zero, where integers without a zero point serve them best.
        settle: False if the model is to be changed further: it leaves the new weights for
            `Model.settle` to make, and what Paddle would fuse wrongly for `keep_apart`.
    """
    original = copy_model(model)
    graph, scope = Graph(model, keep), Scope(frozenset(keep), shifts)
    rescaled = [rule(graph, scope) for rule in RULES]
    if graph.is_edited:
        graph.write_back()
        if settle:
            model.settle()
        kept, changed = tuple(sorted(keep)), frozenset[str]().union(*rescaled)
        model.folded = Folding(kept, shifts, original, changed)
    if settle:
        keep_apart(model)
