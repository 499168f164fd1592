"""Constant folding and fusion of redundant ops of a float model, rule by rule."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from ..graph import Graph
from ..misfusion import keep_apart
from ..model import Folding, Model, copy_model
from .affine_folding import fold_affine
from .constant_folding import compute_constants, use_constants
from .residual import factor_out
from .rule import Scope
from .subpixel import use_pixel_shuffle
from .weight_order import transpose_weights

RULES: tuple[Callable[[Graph, Scope], set[str]], ...] = (
    factor_out,
    compute_constants,
    use_constants,
    fold_affine,
    transpose_weights,
    use_pixel_shuffle,
)
"""The rules in order. Each edits a graph where that is exact but for rounding, and returns the
tensors that are new or have new values."""


def fold(
    model: Model, keep: Collection[str] = (), shifts: bool = True, settle: bool = True
) -> None:
    """Fold a float model in place.

    Its outputs are the same up to the rounding of float32. Tensors between folded ops are no longer
    computed, and the weights of linear ops change.

    Args:
        model: the model. Weights of other types than float32 stay as they are.
        keep: tensors that stay as they are, with the linear ops that read or write them, such as
            those of a skip list.
        shifts: whether additions before a linear op go into its bias. They often centre the values
            on zero, which suits integers without a zero point.
        settle: False if the model is changed further: then `Model.settle` has to make the new
            weights, and `keep_apart` to keep Paddle from fusing ops wrongly.

    Example:
        >>> model = pyquant.load_model("float")
        >>> pyquant.fold(model)
        >>> files = pyquant.save_model(model, "folded", "model.pdmodel", "model.pdiparams")
    """
    original = copy_model(model)
    graph, scope = Graph(model, keep), Scope(frozenset(keep), shifts)
    with np.errstate(all="ignore"):  # weights that are not finite stay so, and are reported
        rescaled = [rule(graph, scope) for rule in RULES]
    if graph.is_edited:
        graph.write_back()
        if settle:
            model.settle()
        kept, changed = tuple(sorted(keep)), frozenset[str]().union(*rescaled)
        model.folded = Folding(kept, shifts, original, changed)
    if settle:
        keep_apart(model)
