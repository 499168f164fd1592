"""Int8 programs in which ``quantize_linear`` and ``dequantize_linear`` say what to quantize."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .model import Model
from .parameters import Array
from .products import PRODUCTS
from .quantizable import WeightedOp
from .ranges import Grid, Range, symmetric_grid
from .rewrite import Rewriter
from .weights import QuantizedWeight


class QdqWriter:
    """Puts QDQ around the inputs of ops, for the passes of an inference target to find."""

    def __init__(self, model: Model, ops: Sequence[WeightedOp]) -> None:
        """Plan the int8 program; arguments as of `OneDnnWriter`."""
        self._model = model
        self._ops = ops

    @property
    def observed(self) -> Collection[str]:
        """The tensors whose ranges have to be known."""
        return list(dict.fromkeys(op.activation for op in self._ops))

    def takes_factors(self, name: str) -> bool:
        """Return whether an activation can be divided by factors before it becomes integers."""
        return True

    def grid(self, name: str, given: Range) -> Grid:
        """Return the integers of a tensor of `observed` whose range is given."""
        return symmetric_grid(given, False)

    def bits(self, name: str, given: Range) -> int:
        """Return of how many bits the signed integers of a tensor are."""
        return 8

    def write(
        self,
        ranges: Mapping[str, Range],
        weights: Mapping[str, QuantizedWeight],
        weight_only: Sequence[WeightedOp],
        factors: Mapping[str, Array],
    ) -> None:
        """Rewrite the program; arguments as of `OneDnnWriter.write`."""
        thresholds = {name: given.threshold for name, given in ranges.items()}
        rewriter = Rewriter(self._model)
        rewriter.quantize_activations(thresholds, self._ops, factors)
        products = [op for op in self._ops if op.op_type in PRODUCTS]
        others = [op for op in self._ops if op.op_type not in PRODUCTS]
        rewriter.dequantize_weights_linear(weights, others)
        rewriter.equalize_products(weights, products)
        rewriter.dequantize_weights_by_scale(weights, weight_only)
        rewriter.apply()
