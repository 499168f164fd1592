"""Turns programs of oneDNN's int8 ops into ordinary float programs, which run anywhere.

Tensors of integers become whole numbers of float32, and ops compute with the floats that these
stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from ....errors import UnsupportedError
from ... import proto
from ...graph import Graph
from ...model import Model, copy_model
from ...op import Op, make_op
from ...op_facts import FUNCTIONS
from ...ranges import Grid
from .accumulation import BINARY_OPS
from .ops import CONVOLUTION_ATTRIBUTES
from .read_scales import CARRIERS, read_grids

# A float32 of this magnitude has no bits for a fraction: adding it rounds to nearest, ties to even.
_WITHOUT_FRACTION = 1.5 * 2**23

_INTEGERS = ".integers"


def simulate(model: Model) -> Model:
    """Return a float program that computes what the int8 ops of ``model`` do.

    It has the same parameters; a model without such ops is returned itself. A tensor keeps its
    name. But if ``fused_conv2d``, ``fc``, or a sum or product of integers writes integers, the name
    is that of the values before rounding, and the integers are called ``NAME.integers``. Raises
    UnsupportedError for an int8 op that pyquant does not write.
    """
    grids = read_grids(model)
    if not grids:
        return model
    simulated = copy_model(model)
    _Simulation(simulated, grids).write()
    return simulated


def integers_of(simulation: Model, name: str) -> str:
    """Return the name under which a simulation has the integers of a tensor, or the tensor."""
    integers = f"{name}{_INTEGERS}"
    is_new = any(var.name == integers for var in simulation.program.blocks[0].vars)
    return integers if is_new else name


class _Simulation:
    """An int8 program that becomes a float one, op by op."""

    def __init__(self, model: Model, grids: dict[str, Grid]) -> None:
        self.grids = grids
        self.integers: dict[str, str] = {}  # the integers' names, where these are new
        self.made: list[Op] = []  # what replaces the current op
        self._model = model
        self._graph = Graph(model)

    def write(self) -> None:
        for position, op in sorted(self._graph.ops.items()):
            read = [name for name in op.reads() if name in self.grids]
            if not read and op.type != "quantize":
                continue
            replace = _KINDS.get(op.type)
            is_written = op.output() in self.grids
            if replace is None or (op.type in CARRIERS and not is_written):
                raise self.unknown(op, f"reads the integers '{read[0]}'")
            self.made = []
            replace(self, op)
            self._graph.replace(position, *self.made)
        self._graph.write_back()
        for var in self._model.program.blocks[0].vars:
            if var.name in self.grids:
                proto.tensor_desc(var).data_type = proto.FP32

    def add(
        self,
        op_type: str,
        inputs: Mapping[str, str],
        like: str,
        attributes: Mapping[str, proto.AttributeValue],
        slot: str = "Out",
    ) -> str:
        """Add an op whose output has the shape of ``like``, and return the output's name."""
        output = self._graph.add_variable(f"{like}.{op_type}", like)
        sources = {name: [argument] for name, argument in inputs.items()}
        self.made.append(make_op(op_type, sources, {slot: [output]}, attributes))
        return output

    def apply(self, op_type: str, source: str, **attributes: proto.AttributeValue) -> str:
        """Add an op of one input that keeps its shape, and return its output's name."""
        return self.add(op_type, {"X": source}, source, attributes)

    def multiply(self, first: str, second: str) -> str:
        """Add a product of tensors of one shape, and return its output's name."""
        return self.add("elementwise_mul", {"X": first, "Y": second}, first, {"axis": -1})

    def call(self, name: str) -> None:
        """Let the last op write ``name``."""
        written = self.made[-1].output()
        self.made[-1].rename_outputs({written: name})

    def floats(self, name: str, factor: float) -> str:
        """Return the floats that a tensor's integers stand for, by the factor that an op gives."""
        source = self.integers.get(name, name)
        return source if factor == 1 else self.apply("scale", source, scale=_inverse(factor))

    def round(self, source: str, grid: Grid, output: str) -> None:
        """Round ``source`` to whole numbers; as in oneDNN, ties go to even after the shift."""
        shifted = self.apply("scale", source, scale=grid.factor, bias=float(grid.zero_point))
        least, greatest = map(float, grid.limits)
        cut = self.apply("clip", shifted, min=least, max=greatest)
        rounded = self.apply("scale", cut, scale=1.0, bias=_WITHOUT_FRACTION)
        self.apply("scale", rounded, scale=1.0, bias=-_WITHOUT_FRACTION)
        self.call(output)

    def write_integers(self, name: str) -> None:
        """Round what the last op wrote to whole numbers, under a name of their own."""
        self.integers[name] = self.declare(f"{name}{_INTEGERS}", name)
        self.round(name, self.grids[name], self.integers[name])

    def unknown(self, op: Op, what: str) -> UnsupportedError:
        """Return the error for an int8 op whose meaning is not known."""
        return UnsupportedError(
            f"{self._model.model_path}: op '{op.type}' {what}, which pyquant cannot simulate. "
            "Compare what it wrote itself."
        )

    def declare(self, name: str, like: str) -> str:
        """Declare a tensor of the shape of ``like`` and return its name."""
        return self._graph.add_variable(name, like)


def _quantize(here: _Simulation, op: Op) -> None:
    (source,), (output,) = op.inputs("Input"), op.writes()
    here.round(source, here.grids[output], output)


def _dequantize(here: _Simulation, op: Op) -> None:
    (name,), (output,) = op.inputs("Input"), op.writes()
    inverse = _inverse(op.attr("Scale", 1.0))
    shift = -op.attr("Shift", 0.0)
    source = here.integers.get(name, name)
    here.apply("scale", source, scale=inverse, bias=shift, bias_after_scale=False)
    here.call(output)


def _requantize(here: _Simulation, op: Op) -> None:
    (name,), (output,) = op.inputs("Input"), op.writes()
    ratio = op.attr("Scale_out", 1.0) / op.attr("Scale_in", 1.0)
    grid = here.grids[output]._replace(factor=ratio)
    here.round(here.integers.get(name, name), grid, output)


def _combine(here: _Simulation, op: Op) -> None:
    (output,) = op.writes()
    operands = {
        slot: here.floats(
            op.input(slot),
            op.attr(f"scale_{slot.lower()}", 1.0),
        )
        for slot in ("X", "Y")
    }
    here.add(BINARY_OPS[op.type], operands, output, {"axis": op.attr("axis", -1)})
    here.call(output)
    here.write_integers(output)


def _carry(here: _Simulation, op: Op) -> None:
    carried = op.copy()
    carried.remove_attrs(_ONEDNN_ATTRIBUTES)
    carried.rename_inputs(here.integers)
    here.made.append(carried)


def _linear(
    here: _Simulation, op: Op, multiply: Callable[[_Simulation, Op, str], str], channel_axis: int
) -> None:
    (source,), (output,) = op.inputs("Input"), op.writes()
    value = multiply(here, op, here.floats(source, op.attr("Scale_in", 1.0)))
    for bias in op.inputs("Bias"):
        operands = {"X": value, "Y": bias}
        value = here.add("elementwise_add", operands, output, {"axis": channel_axis})
    for name in op.inputs("ResidualData"):
        residual = here.floats(name, op.attr("Scale_in_eltwise", 1.0))
        operands = {"X": value, "Y": residual}
        value = here.add("elementwise_add", operands, output, {"axis": -1})
    _activate(here, op, value)
    here.call(output)
    if output in here.grids:
        here.write_integers(output)


def _convolve(here: _Simulation, op: Op, source: str) -> str:
    inputs = {"Input": source, "Filter": op.input("Filter")}
    output = here.add("conv2d", inputs, op.output(), {}, "Output")
    here.made[-1].take_attrs(op, CONVOLUTION_ATTRIBUTES)
    return output


def _multiply(here: _Simulation, op: Op, source: str) -> str:
    inputs = {"X": source, "Y": op.input("W")}
    columns = op.attr("in_num_col_dims", 1)
    attributes = {"x_num_col_dims": columns, "y_num_col_dims": 1}
    return here.add("mul", inputs, op.output(), attributes)


def _activate(here: _Simulation, op: Op, value: str) -> None:
    name = op.attr("fuse_activation", "") or op.attr("activation_type", "")
    alpha, beta = (op.attr(f"fuse_{which}", 0.0) for which in ("alpha", "beta"))
    if name not in FUNCTIONS:
        raise here.unknown(op, f"applies '{name}'")
    FUNCTIONS[name].formula(here, value, alpha, beta)


def _inverse(factor: float) -> float:
    return float(np.float32(1) / np.float32(factor))


_KINDS: Mapping[str, Callable[[_Simulation, Op], None]] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "requantize": _requantize,
    **dict.fromkeys(BINARY_OPS, _combine),
    "fused_conv2d": partial(_linear, multiply=_convolve, channel_axis=1),
    "fc": partial(_linear, multiply=_multiply, channel_axis=-1),
    **dict.fromkeys(CARRIERS, _carry),
}

_ONEDNN_ATTRIBUTES = ("use_mkldnn", "use_onednn", "mkldnn_data_type", "onednn_data_type")
