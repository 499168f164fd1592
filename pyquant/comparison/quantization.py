"""Reads from the ops of a quantized program what it holds and computes as integers.

Tensors are found by the ops around them, not by their names. So it also reads the programs of
Paddle's own PTQ.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import ModelFileError, UnsupportedError
from ..program import proto
from ..program.folding.cross_layer_equalization import stored_factors
from ..program.grouped_weights import PACKED_BITS, unpack
from ..program.model import Model
from ..program.op import Op
from ..program.parameters import Array
from ..program.ranges import Grid
from ..program.targets.onednn.read_scales import CARRIERS, read_grids


class Written(NamedTuple):
    """A value of a variable, identified among the program's writes to that variable.

    Writes are counted from the end because an int8 program may write a name more often than its
    float model, but the last values correspond.
    """

    name: str
    before_last: int  # how many writes follow


@dataclass(frozen=True)
class Activation:
    """A tensor that the program quantizes while it runs."""

    value: Written
    threshold: float  # the magnitude that maps to 2^(bits-1)-1; the greatest value of a grid
    bits: int
    grid: Grid | None = None  # the integers of oneDNN's ops, which need not be symmetric

    @property
    def least(self) -> float | None:
        """The least value, or None if it is minus the threshold."""
        return self.grid.least if self.grid is not None and self.grid.unsigned else None

    def rounded(self, values: Array) -> Array:
        """Return ``values`` quantized and dequantized as the program does it."""
        if self.grid is not None:
            return self.grid.rounded(values)
        integers = kernels.quantize(values, self.threshold, bits=self.bits)
        return kernels.dequantize(integers, self.threshold, bits=self.bits)

    def beyond(self, values: Array) -> int:
        """Count the values that saturate."""
        # The ends of a grid are rounded: values within half a step of them err no more than others.
        margin = 0.5 / self.grid.factor if self.grid is not None else 0.0
        least = -self.threshold if self.grid is None else self.grid.least
        above = np.count_nonzero(values > np.float32(self.threshold + margin))
        return int(above + np.count_nonzero(values < np.float32(least - margin)))


@dataclass(frozen=True)
class Weight:
    """A parameter that is stored as integers."""

    name: str  # under which it is stored
    integers: Array
    step: NDArray[np.float32]  # between integers, in a shape that broadcasts to them
    axis: int | None  # of the channels; None for a single step
    bits: int
    data_type: int  # Paddle's code of the type that the program dequantizes it to
    dims: tuple[int, ...] = ()  # of the dequantized values, if the program reshapes them

    @property
    def levels(self) -> int:
        """The greatest integer."""
        return int(2 ** (self.bits - 1) - 1)


class Output(NamedTuple):
    """The output of an op that reads quantized tensors."""

    value: Written
    op_type: str


@dataclass
class Quantization:
    """What a program quantizes, in the order of its ops.

    Attributes:
        activations: by the variable that holds their dequantized values, as are ``weights``.
        outputs: the outputs of the ops that read these, after the bias and any overwriting op.
        op_types: the types of the ops that read each, by the same variable.
        weights_beside: the weights that ops read together with an activation, by its name.
        factors: the per-channel factors that divide activations, by their names before that.
    """

    activations: dict[str, Activation] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    op_types: dict[str, tuple[str, ...]] = field(default_factory=dict)
    weights_beside: dict[str, set[str]] = field(default_factory=dict)
    factors: dict[str, Array] = field(default_factory=dict)


def read_quantization(model: Model) -> Quantization:
    """Find what ``model`` quantizes, which is nothing if it is a float model.

    Raises:
        UnsupportedError: it is in Paddle-Lite's form, which Paddle cannot run, or has scales that
            are computed, or several scales for one activation.
        ModelFileError: a scale is negative or not finite.
    """
    reader = _Reader(model)
    for op in model.ops():
        reader.read(op)
    return reader.found


class _Reader:
    """Follows quantized values through the program, op by op."""

    def __init__(self, model: Model) -> None:
        self.found = Quantization(factors=stored_factors(model))
        self._model = model
        self._grids = read_grids(model)
        self._writes = model.writes()
        self._written: Counter[str] = Counter()
        self._quantized: dict[str, Activation] = {}
        self._integers: dict[str, str] = {}
        self._packed: dict[str, str] = {}  # one half of the integers that share bytes
        self._unpacked: dict[str, Array] = {}
        self._restated: dict[
            str, str
        ] = {}  # weights that are quantized again, as `QdqPlan` writes them
        self._products: dict[str, tuple[str, int]] = {}  # of such weights, with the output's index
        self._unbiased: dict[str, int] = {}  # outputs of ops, and their indices in `outputs`
        self._last: dict[str, int] = {}  # likewise, after a bias if there is one
        self._carried: dict[str, str] = {}  # integers that an op moved, and their origin
        self._kinds: dict[str, Callable[[Any, str, str], bool]] = {
            "quantize_linear": self._quantize,
            "dequantize_linear": self._dequantize,
            "cast": self._cast_integers,
            "elementwise_mul": self._scale,
            "elementwise_add": self._add_bias,
            "quantize": self._quantize_by_scale,
            "dequantize": lambda op, source, output: True,
            **dict.fromkeys((*CARRIERS, "requantize"), self._carry),
            "reshape2": self._reshape,
            **dict.fromkeys(("bitwise_and", "elementwise_floordiv", "scale"), self._take_half),
            "stack": self._stack,
        }

    def read(self, op: Op) -> None:
        _refuse_lite(self._model, op)
        sources = op.inputs("X") or op.inputs("Input")
        outputs = op.writes()
        kind = self._kinds.get(op.type)
        if kind is None or not sources or not kind(op, sources[0], outputs[0]):
            self._reads(op, outputs)
        self._written.update(outputs)

    def _quantize(self, op: Op, source: str, output: str) -> bool:
        if source in self.found.weights:
            self._restated[output] = source
        elif source not in self._model.parameters:
            threshold = self._threshold(op)
            if threshold.size > 1:
                raise UnsupportedError(
                    f"{self._model.model_path}: activation '{source}' has {threshold.size} "
                    "thresholds. Quantize it per tensor."
                )
            value = self._last_written(source)
            bits = op.attr("bit_length", 8)
            self._quantized[output] = Activation(value, float(threshold[0]), bits)
        return True

    def _dequantize(self, op: Op, source: str, output: str) -> bool:
        if source in self._restated:
            self.found.weights[output] = self.found.weights.pop(self._restated[source])
            self._restated[output] = source
        elif source in self._quantized:
            self.found.activations[output] = self._quantized[source]
        elif source in self._model.parameters:
            integers = self._model.parameters[source]
            threshold, axis = self._threshold(op), op.attr("quant_axis", -1)
            shape = [1] * integers.ndim
            shape[axis] = threshold.size
            bits = op.attr("bit_length", 8)
            step = (threshold / np.float32(2 ** (bits - 1) - 1)).reshape(shape)
            self._add_weight(source, integers, step, bits, output)
        return True

    def _quantize_by_scale(self, op: Op, source: str, output: str) -> bool:
        self._add_scaled(self._last_written(source), output)
        return True

    def _carry(self, op: Op, source: str, output: str) -> bool:
        if output in self._grids:
            self._carried[output] = self._carried.get(source, source)
        return output in self._grids

    def _cast_integers(self, op: Op, source: str, output: str) -> bool:
        if self._take_integers(source, output):
            return True
        if source in self.found.weights:  # a weight in half precision
            weight = self.found.weights.pop(source)
            data_type = op.attr("out_dtype", weight.data_type)
            self.found.weights[output] = Weight(
                weight.name, weight.integers, weight.step, weight.axis, weight.bits, data_type
            )
            return True
        return False

    def _reshape(self, op: Op, source: str, output: str) -> bool:
        if source in self.found.weights:
            weight = self.found.weights.pop(source)
            dims = op.ints("shape")
            self.found.weights[output] = replace(weight, dims=dims)
            return True
        return self._take_integers(source, output) or self._carry(op, source, output)

    def _take_integers(self, source: str, output: str) -> bool:
        """Note that an op reshapes or casts a weight's integers; return whether it does."""
        name = self._integers.get(source, source)
        array = self._model.parameters.get(name)
        if array is None or array.dtype not in (np.int8, np.int16):
            return False
        self._integers[output] = name
        return True

    def _take_half(self, op: Op, source: str, output: str) -> bool:
        """Note that an op takes one of two integers out of each byte; return whether it does."""
        if op.type == "scale":
            name = self._packed.get(source)
        else:
            array = self._model.parameters.get(source)
            name = source if array is not None and array.dtype == np.int8 else None
        if name is not None:
            self._packed[output] = name
        return name is not None

    def _stack(self, op: Op, source: str, output: str) -> bool:
        if source not in self._packed:
            return False
        name = self._integers[output] = self._packed[source]
        halves = unpack(self._model.parameters[name])
        self._unpacked[name] = np.stack(halves, axis=op.attr("axis", 0))
        return True

    def _scale(self, op: Op, source: str, output: str) -> bool:
        step = self._model.parameters.get(next(iter(op.inputs("Y")), ""))
        if source in self._products and step is not None:
            self._scale_product(source, step, output)
            return True
        if source not in self._integers or step is None:
            return False
        name = self._integers[source]
        integers = self._unpacked.get(name, self._model.parameters[name])
        bits = PACKED_BITS if name in self._unpacked else 8 * integers.dtype.itemsize
        if step.ndim != integers.ndim:  # it was reshaped to have its channels along axis 1
            step = step.reshape([-1, *[1] * (integers.ndim - 1)])
        self._add_weight(name, integers, step, bits, output)
        return True

    def _add_bias(self, op: Op, source: str, output: str) -> bool:
        """Take the sum as the op's output: the bias may compensate the quantization error."""
        addend = next(iter(op.inputs("Y")), "")
        if source in self._unbiased and addend in self._model.parameters:
            self._move_output(self._unbiased.pop(source), output)
        if source in self._products:
            self._products[output] = self._products.pop(source)
        return False

    def _scale_product(self, source: str, threshold: NDArray[np.float32], output: str) -> None:
        """Multiply a weight's step by the factor of its product, which a bias may precede."""
        name, index = self._products.pop(source)
        weight = self.found.weights[name]
        step = weight.step.reshape(-1)[:1] * threshold.reshape(1, -1)
        axis = 1 if threshold.size > 1 else None
        self.found.weights[name] = replace(weight, step=step, axis=axis)
        self._move_output(index, output)

    def _move_output(self, index: int, output: str) -> None:
        """Replace an earlier output by the output of the current op."""
        value = self._next_written(output)
        self.found.outputs[index] = self.found.outputs[index]._replace(value=value)
        self._last[output] = index

    def _add_weight(
        self, name: str, integers: Array, step: NDArray[np.float32], bits: int, output: str
    ) -> None:
        axis = int(np.argmax(step.shape)) if step.size > 1 else None
        data_type = proto.paddle_dtype(np.dtype(np.float32))
        self.found.weights[output] = Weight(name, integers, step, axis, bits, data_type)

    def _add_scaled(self, value: Written, output: str) -> None:
        scale = self._grids[output]
        if not 0 < scale.factor < math.inf:
            raise ModelFileError(
                f"{self._model.model_path}: the scale of '{output}' is {scale.factor}, not finite "
                "and positive. Quantize the model again."
            )
        self.found.activations[output] = Activation(value, scale.greatest, 8, scale)

    def _last_written(self, name: str) -> Written:
        """Return the value that a variable has before the current op."""
        return Written(name, max(0, self._writes[name] - max(1, self._written[name])))

    def _next_written(self, name: str) -> Written:
        """Return the value that the current op gives a variable."""
        return Written(name, self._writes[name] - 1 - self._written[name])

    def _threshold(self, op: Op) -> NDArray[np.float32]:
        name = op.input("Scale")
        threshold = self._model.parameters.get(name)
        if threshold is None:
            raise UnsupportedError(
                f"{self._model.model_path}: the scale '{name}' of a {op.type} is computed. "
                "Export the model with its scales as parameters."
            )
        if not (np.isfinite(threshold) & (threshold >= 0)).all():
            raise ModelFileError(
                f"{self._model.parameters_path}: the scale '{name}' "
                "is negative or not finite. Quantize the model again."
            )
        return threshold.astype(np.float32).reshape(-1)

    def _reads(self, op: Op, outputs: list[str]) -> None:
        sources = [self._carried.get(name, name) for name in op.reads()]
        read = [
            name for name in sources if name in self.found.activations or name in self.found.weights
        ]
        for name in read:
            known = self.found.op_types.get(name, ())
            self.found.op_types[name] = tuple(dict.fromkeys((*known, op.type)))
        weights = {self.found.weights[name].name for name in read if name in self.found.weights}
        for name in read:
            if name in self.found.activations:
                value = self.found.activations[name].value
                self.found.weights_beside.setdefault(value.name, set()).update(weights)
        if outputs[:1] == sources[:1] and outputs[0] in self._last:
            # An overwritten value has no name of its own; the float model has the final value.
            self._move_output(self._last[outputs[0]], outputs[0])
        if read and op.type != "fetch":
            value = self._next_written(outputs[0])
            self._unbiased[value.name] = self._last[value.name] = len(self.found.outputs)
            self.found.outputs.append(Output(value, op.type))
            for name in read:
                if name in self._restated:
                    self._products[outputs[0]] = name, len(self.found.outputs) - 1
            if value.name in self._grids:
                self._add_scaled(value, value.name)


def _refuse_lite(model: Model, op: Op) -> None:
    if op.value("quantize_weight_bits") is None:
        return
    parameters = (model.parameters.get(name) for name in op.reads())
    if any(array is not None and array.dtype in (np.int8, np.int16) for array in parameters):
        raise UnsupportedError(
            f"{model.model_path}: it is in Paddle-Lite's form, which Paddle cannot run. Compare "
            "what quant_post_dynamic writes without lite_format: its weights are the same."
        )
