"""Int8 programs in which ``quantize_linear`` and ``dequantize_linear`` say what to quantize."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .graph import Graph
from .misfusion import keep_apart
from .model import Model
from .parameters import Array
from .products import PRODUCTS
from .quantizable import WeightedOp
from .ranges import Grid, Range, symmetric_grid
from .reads import Read, reads_behind, reads_of_ops, reads_of_types
from .rewrite import Rewriter, reciprocals_of
from .saturation import without_saturation
from .targets import Target
from .weights import QuantizedWeight


class QdqWriter:
    """Puts QDQ around the inputs of ops, for the passes of an inference target to find."""

    def __init__(
        self,
        model: Model,
        ops: Sequence[WeightedOp],
        target: Target,
        skip_tensors: Collection[str],
    ) -> None:
        """Plan the int8 program.

        Args:
            model: the float model.
            ops: what becomes int8.
            target: whose passes are to find it.
            skip_tensors: ops that read or write one of them stay in float.
        """
        self._model = model
        self._ops = ops
        self._target = target
        self._other_reads = _other_reads(model, ops, target, skip_tensors)
        self._reads = [*reads_of_ops(ops), *self._other_reads]

    @property
    def observed(self) -> Collection[str]:
        """The tensors whose ranges have to be known."""
        return list(dict.fromkeys(read.tensor for read in self._reads))

    def takes_factors(self, name: str) -> bool:
        """Return whether an activation can be divided by factors before it becomes integers."""
        readers = [op for op in self._ops if op.activation == name]
        # Behind a convolution with the channels last, oneDNN's elementwise_mul takes another axis
        # for that of the channels, and in 2.6 another one than in 3.3.
        is_last = any(op.desc(self._model).is_channels_last for op in readers)
        return not is_last and all(read.tensor != name for read in self._other_reads)

    def grid(self, name: str, given: Range) -> Grid:
        """Return the integers of a tensor of `observed` whose range is given."""
        return symmetric_grid(given, False)

    def steps(self, ranges: Mapping[str, Range]) -> dict[str, float]:
        """Return the steps of the integers of `observed`, of these ranges."""
        return {name: 1 / self.grid(name, given).factor for name, given in ranges.items()}

    def bits(self, name: str, given: Range) -> int:
        """Return of how many bits the signed integers of a tensor are."""
        return 8

    def without_saturation(
        self, weights: Mapping[str, QuantizedWeight], ranges: Mapping[str, Range]
    ) -> dict[str, QuantizedWeight]:
        """As `OneDnnWriter.without_saturation`, of matrix products run by Paddle's int8 passes.

        These choose the scale of a filter by its largest weight, so nothing else can be the
        threshold of a channel (ComputeVarScales in ``compute_propagate_scales_onednn_pass.cc``).
        """
        suited = dict(weights)
        for op in self._ops if self._target.equalizes_products else ():
            if op.op_type in PRODUCTS:
                weight = suited[op.weight]
                suited[op.weight] = without_saturation(weight, op, op.desc(self._model), False)
        return suited

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
        # What was zero in all of the data has no scale.
        reads = [read for read in self._reads if thresholds[read.tensor] > 0]
        reciprocals = {
            op.activation: reciprocals_of(op, factors[op.activation])
            for op in self._ops
            if op.activation in factors
        }
        rewriter.quantize_activations(thresholds, reads, reciprocals)
        rewriter.mark_quantized(self._ops)
        stretched = PRODUCTS if self._target.equalizes_products else ()
        products = [op for op in self._ops if op.op_type in stretched]
        others = [op for op in self._ops if op.op_type not in stretched]
        rewriter.dequantize_weights_linear(weights, others)
        rewriter.equalize_products(weights, products)
        rewriter.dequantize_weights_by_scale(weights, weight_only)
        rewriter.apply()
        if self._target.runs_here:
            keep_apart(self._model)


def _other_reads(
    model: Model, ops: Sequence[WeightedOp], target: Target, skip_tensors: Collection[str]
) -> list[Read]:
    """Return what ops without a weight read as integers."""
    if not (target.fused or target.weightless):
        return []
    graph = Graph(model)
    reads = reads_of_types(graph, target.weightless, skip_tensors)
    if target.fused:
        reads += reads_behind(graph, ops, target.fused, skip_tensors)
    return reads
