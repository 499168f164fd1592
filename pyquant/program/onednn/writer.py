"""Int8 programs of oneDNN's own ops: ``quantize``, ``fused_conv2d``, ``fc`` and ``dequantize``.

These are what Paddle's int8 passes make of a QDQ program when a Predictor loads it. Written at
once, they need no passes, run wherever oneDNN is enabled (2.6 and 3.x), and say what the passes
cannot: activations of any zero point, the right scales of fc, residuals that are signed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import proto
from ..folding.linear import pads
from ..folding.scaling import EQUALIZED
from ..graph import Graph
from ..model import Model
from ..parameters import Array
from ..products import PRODUCTS
from ..quantizable import CONVOLUTIONS, WeightedOp
from ..ranges import Grid, Range, fitted_grid, symmetric_grid
from ..rewrite import Rewriter, make_multiplication, reciprocals_of
from ..weights import QuantizedWeight
from .fusion import FusedOp, fuse


class OneDnnWriter:
    """Puts int8 ops of oneDNN into a program."""

    def __init__(self, model: Model, ops: Sequence[WeightedOp]) -> None:
        """Plan the int8 program.

        Args:
            model: the float model.
            ops: what becomes int8, all in the main block.
        """
        self._model = model
        self._ops = ops
        self._graph = Graph(model)
        fused = [self._fuse(op) for op in ops]
        self._fused = sorted(fused, key=lambda one: one.position)
        self._reads = {one.op.position: one.op.activation for one in self._fused}
        self._adds = {position: one for one in self._fused for position in one.replaced}
        self._unpadded = {one.op.position: not _pads(self._graph, one.op) for one in self._fused}
        self._direct: dict[str, FusedOp] = {}
        self._roots: dict[str, str] = {}  # of what is written as integers: where it comes from
        for one in self._fused:
            if self._is_direct(one):
                self._direct[one.output] = one
                self._roots.update(dict.fromkeys(self._carried_from(one.output), one.output))
        self._scales: dict[str, Grid] = {}
        self._quantized: dict[str, str] = {}
        self._floats: dict[str, str] = {}
        self._factors: Mapping[str, Array] = {}

    @property
    def observed(self) -> Collection[str]:
        """The tensors whose ranges have to be known."""
        names = dict.fromkeys(one.op.activation for one in self._fused)
        for name in self._direct:
            if names.keys().isdisjoint(self._carried_from(name)):
                names[name] = None
        return list(names)

    def bits(self, name: str, given: Range) -> int:
        """Return of how many bits a signed integer would be with as fine a step for a tensor.

        Args:
            name: the tensor.
            given: its range, nothing cut.
        """
        one = self._direct.get(self._roots.get(name, name))
        if one is not None:
            return 9 if self._is_unsigned(one) else 8
        smaller, larger = sorted((-given.minimum, given.maximum))
        is_fine = smaller <= 0 or (self._takes_zero_point(name) and smaller < larger / 3)
        return 9 if is_fine else 8

    def takes_factors(self, name: str) -> bool:
        """Return whether an activation can be divided by factors before it becomes integers."""
        return name not in self._roots

    def write(
        self,
        ranges: Mapping[str, Range],
        weights: Mapping[str, QuantizedWeight],
        weight_only: Sequence[WeightedOp],
        factors: Mapping[str, Array],
    ) -> None:
        """Replace the ops.

        Args:
            ranges: of the tensors of `observed`.
            weights: of the ops, by the weights' names.
            weight_only: ops that stay in float but for their weight.
            factors: by which activations are divided before they become integers, float32 of
                one value per channel; the ranges and the weights are those behind that.
        """
        self._factors = factors
        for one in self._fused:
            self._emit(one, ranges, weights[one.op.weight])
        self._graph.write_back()
        rewriter = Rewriter(self._model)
        outputs = {one.op.output: one.output for one in self._fused}
        ops = [one.op for one in self._fused]
        located = _located(self._model, [*ops, *weight_only], outputs)
        rewriter.dequantize_weights_by_scale(weights, located)
        rewriter.apply()

    def _fuse(self, op: WeightedOp) -> FusedOp:
        channels = self._model.parameters[op.weight].shape[op.channel_axis]
        return fuse(self._graph, op, 1 if op.op_type in CONVOLUTIONS else -1, channels)

    def _is_direct(self, one: FusedOp) -> bool:
        """Return whether the op writes integers, which all that need them read as they are."""
        if self._graph.is_kept(one.output):
            return False
        if one.residual is not None:
            # A sum of signed numbers stays in float: nothing cuts its range, and it goes far.
            return one.activation.is_relu and one.residual in self._roots
        if one.activation.is_lopsided and self._takes_zero_point(one.output):
            return False
        return self._is_read_as_int8(one.output)

    def _is_read_as_int8(self, name: str) -> bool:
        readers = self._graph.readers(name)
        return bool(readers) and all(self._reads_int8(position, name) for position in readers)

    def _reads_int8(self, position: int, name: str) -> bool:
        if self._reads.get(position) == name:
            return True
        adds = self._adds.get(position)
        if adds is not None:
            return adds.residual == name and adds.activation.is_relu
        carried = self._carried_by(position)
        return (
            carried is not None
            and not self._graph.is_kept(carried)
            and self._is_read_as_int8(carried)
        )

    def _carried_by(self, position: int) -> str | None:
        """Return what an op writes that moves integers without a look at their scale."""
        op = self._graph.ops[position]
        if op.type != "pool2d" or proto.attribute(op, "pooling_type", "max") != "max":
            return None
        return proto.arguments(op.outputs, "Out")[0]

    def _carried_from(self, name: str) -> list[str]:
        """Return ``name`` and what it becomes without a change of scale."""
        found = [name]
        for position in self._graph.readers(name):
            carried = None if position in self._adds else self._carried_by(position)
            if carried is not None and self._is_read_as_int8(carried):
                found += self._carried_from(carried)
        return found

    def _takes_zero_point(self, name: str) -> bool:
        """Return whether a zero point of ``name`` can go into the biases of its readers."""
        return all(
            self._unpadded[position]
            for position in self._graph.readers(name)
            if self._reads.get(position) == name
        )

    def _is_unsigned(self, one: FusedOp) -> bool:
        """As GetDstType in conv_function.h and fc_kernel.cc say; a sum is as its residual."""
        if one.residual is not None:
            return self._is_unsigned(self._direct[self._roots[one.residual]])
        if one.op.op_type in CONVOLUTIONS:
            return one.activation.is_relu
        return one.activation.name == "relu"

    def grid(self, name: str, given: Range) -> Grid:
        """Return the integers of a tensor of `observed` whose range is given."""
        root = self._roots.get(name, name)
        one = self._direct.get(root)
        if one is not None:
            return symmetric_grid(given, self._is_unsigned(one))
        if self._takes_zero_point(root):
            return fitted_grid(given)
        return symmetric_grid(given, given.minimum >= 0)

    def _scale(self, name: str, ranges: Mapping[str, Range]) -> Grid:
        root = self._roots.get(name, name)
        if root not in self._scales:
            known = next(n for n in (*self._known(root), name) if n in ranges)
            self._scales[root] = self.grid(root, ranges[known])
        return self._scales[root]

    def _known(self, root: str) -> list[str]:
        return self._carried_from(root) if root in self._direct else [root]

    def _emit(self, one: FusedOp, ranges: Mapping[str, Range], weight: QuantizedWeight) -> None:
        scale = self._scale(one.op.activation, ranges)
        before, source = self._integers(one.op.activation, scale)
        is_direct = one.output in self._direct
        bias = one.bias
        if scale.zero_point:
            bias = bias - scale.zero_point / scale.factor * _sums(weight, one.op.channel_axis)
        attributes: dict[str, Any] = {
            **_ONEDNN,
            "Scale_in": scale.factor,
            "Scale_weights": (1 / weight.step.astype(np.float64)).tolist(),
            "Scale_out": self._scale(one.output, ranges).factor if is_direct else 1.0,
            "force_fp32_output": not is_direct and one.residual is None,
            "fuse_activation": one.activation.name,
            "fuse_alpha": one.activation.alpha,
            "fuse_beta": one.activation.beta,
        }
        inputs = {"Input": [source]}
        if bias.any() or one.op.op_type in PRODUCTS:  # an int8 pass asks for that of every fc
            vector = np.broadcast_to(bias, weight.stored.shape[one.op.channel_axis])
            name = self._graph.add_parameter(f"{one.output}.bias", vector.astype(np.float32))
            inputs["Bias"] = [name]
        if one.residual is not None:
            attributes["fuse_residual_connection"] = True
            residual = one.residual if is_direct else self._floats.get(one.residual, one.residual)
            inputs["ResidualData"] = [residual]
            factor = self._scale(one.residual, ranges).factor if is_direct else 1.0
            attributes["Scale_in_eltwise"] = factor
        rank = len(self._graph.dims(one.output) or ())
        desc = self._graph.ops[one.op.position]
        made = _MAKERS[one.op.op_type](desc, one, inputs, attributes, rank)
        after = self._dequantize(one.output, ranges) if is_direct else []
        for position in one.replaced:
            self._graph.remove(position)
        self._graph.replace(one.position, *before, made, *after)

    def _integers(self, name: str, scale: Grid) -> tuple[list[Any], str]:
        """Return ops that quantize ``name``, if they are needed, and the integers' name."""
        if name in self._roots:
            return [], name
        if name in self._quantized:
            return [], self._quantized[name]
        made, source = self._divided(name)
        data_type = proto.UINT8 if scale.unsigned else proto.INT8
        output = self._graph.add_variable(f"{name}.quantized", name, data_type)
        self._quantized[name] = output
        attributes: dict[str, Any] = {
            **_ENABLED,
            "Scale": scale.factor,
            "Shift": float(scale.zero_point),
            "is_negative_input": not scale.unsigned,
            "output_format": "NHWC",
            "bfloat16": False,
        }
        inputs, outputs = {"Input": [source]}, {"Output": [output]}
        return [*made, proto.make_op("quantize", inputs, outputs, attributes)], output

    def _divided(self, name: str) -> tuple[list[Any], str]:
        """Return the op that divides ``name`` by its factors, if it has any, and its output."""
        if name not in self._factors:
            return [], name
        reader = next(op for op in self._ops if op.activation == name)
        values = reciprocals_of(reader, self._factors[name])
        reciprocals = self._graph.add_parameter(f"{name}.reciprocals", values)
        output = self._graph.add_variable(f"{name}{EQUALIZED}", name)
        return [make_multiplication(name, reciprocals, output)], output

    def _dequantize(self, name: str, ranges: Mapping[str, Range]) -> list[Any]:
        """Return ops that make ``name`` float again, for what reads it in float."""
        readers = [p for p in self._graph.readers(name) if not self._reads_directly(p, name)]
        if not readers:
            return []
        output = self._graph.add_variable(f"{name}.dequantized", name)
        self._floats[name] = output
        for position in readers:
            self._graph.rename_input(position, name, output)
        attributes = {**_ENABLED, "Scale": self._scale(name, ranges).factor, "Shift": 0.0}
        return [proto.make_op("dequantize", {"Input": [name]}, {"Output": [output]}, attributes)]

    def _reads_directly(self, position: int, name: str) -> bool:
        adds = self._adds.get(position)
        if adds is not None and adds.residual == name:
            return adds.output in self._direct
        return self._reads_int8(position, name)


def _sums(weight: QuantizedWeight, channel_axis: int) -> Any:
    """Return the sums of the dequantized weight, one per channel."""
    others = tuple(axis for axis in range(weight.stored.ndim) if axis != channel_axis)
    totals = [part.sum(axis=others, dtype=np.int64) for part in weight.values.chunks()]
    summed = np.concatenate(totals) if channel_axis == 0 else np.sum(totals, axis=0)
    return summed * weight.step.astype(np.float64)


def _pads(graph: Graph, op: WeightedOp) -> bool:
    return op.op_type in CONVOLUTIONS and pads(graph.ops[op.position])


def _located(
    model: Model, ops: Iterable[WeightedOp], outputs: Mapping[str, str]
) -> list[WeightedOp]:
    """Return ``ops`` with the positions that they have now, by what they write now."""
    positions = {
        (block, name): position
        for block, position, op in model.numbered_ops()
        for name in proto.names(op.outputs)
    }
    return [
        replace(op, position=positions[op.block, outputs.get(op.output, op.output)]) for op in ops
    ]


_Inputs = dict[str, list[str]]


def _make_convolution(
    desc: Any, one: FusedOp, inputs: _Inputs, attributes: dict[str, Any], rank: int
) -> Any:
    inputs["Filter"] = [one.op.weight]
    made = proto.make_op("fused_conv2d", inputs, {"Output": [one.output]}, attributes)
    proto.copy_attributes(desc, made, CONVOLUTION_ATTRIBUTES)
    return made


def _make_fc(
    desc: Any, one: FusedOp, inputs: _Inputs, attributes: dict[str, Any], rank: int
) -> Any:
    inputs["W"] = [one.op.weight]
    attributes["in_num_col_dims"] = rank - 1
    # Of fc, relu is an attribute of its own, and the one that makes the result unsigned.
    is_relu = one.activation.name == "relu"
    attributes["activation_type"] = "relu" if is_relu else ""
    attributes["fuse_activation"] = "" if is_relu else one.activation.name
    return proto.make_op("fc", inputs, {"Out": [one.output]}, attributes)


_MAKERS = {
    **dict.fromkeys(CONVOLUTIONS, _make_convolution),
    **dict.fromkeys(PRODUCTS, _make_fc),
}
CONVOLUTION_ATTRIBUTES = (
    *("strides", "paddings", "padding_algorithm", "dilations", "groups", "data_format"),
)
"""Those that a fused convolution has of the convolution that it stands for."""
# Paddle 3.x is about to call them onednn; what a version does not know, it does not read.
_ENABLED = {"use_mkldnn": True, "use_onednn": True}
_ONEDNN = {**_ENABLED, "mkldnn_data_type": "int8", "onednn_data_type": "int8", "is_test": True}
