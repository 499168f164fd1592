"""Quantized weights in a ``.json`` program: integer parameters, and ops that dequantize them.

PIR's ``dequantize_linear`` computes wrong numbers on a CPU. So ``cast`` and ``multiply`` dequantize
them, in the same order of operations as in a ``.pdmodel``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SettingError
from . import proto
from .grouped_weights import AnyWeight, GroupedWeight, Step
from .model import Model, parameter_files
from .names import QUANTIZED, SCALE
from .output_files import OutputFiles
from .parameters import Tensor
from .pir.reader import DTYPE_TAGS, json_operations
from .quantizable import WeightedOp


class JsonProgram:
    """A copy of a ``.json`` program that gets other weights, for `write_json`."""

    def __init__(self, model: Model) -> None:
        if model.pir is None:
            raise SettingError(
                f"{model.model_path}: only a model read from .json can be written as .json. "
                "Name the quantized program .pdmodel."
            )
        self.model = model
        self.parameters: dict[str, Tensor] = dict(model.parameters)
        self._positions = model.pir.positions
        self.document = copy.deepcopy(model.pir.document)
        self._operations = json_operations(model.model_path, self.document)
        self._next_id = 1 + max(_result_ids(self._operations))
        self._before: dict[int, list[Any]] = {}
        self._constants: dict[str, int] = {}
        self._lists = {
            operation["O"][0]["%"]: position
            for position, operation in enumerate(self._operations)
            if operation["#"] == "0.combine"
        }

    def store_integers(self, weights: Mapping[str, AnyWeight], ops: Sequence[WeightedOp]) -> None:
        """Store quantized weights, and let ``ops`` read the dequantized values."""
        self._replace(weights, ops, self._dequantize)

    def store_floats(self, weights: Mapping[str, AnyWeight], ops: Sequence[WeightedOp]) -> None:
        """Store the dequantized values of quantized weights, and let ``ops`` read them."""
        self._replace(weights, ops, self._store_dequantized)

    def _replace(
        self,
        weights: Mapping[str, AnyWeight],
        ops: Sequence[WeightedOp],
        make: Callable[[Any, AnyWeight, int], int],
    ) -> None:
        declared = {item["A"][3]: item for item in self._operations if item["#"] == "p"}
        readers: dict[str, list[int]] = {}
        for op in ops:
            value = declared[op.weight]["O"]["%"]
            position = self._reader(self._positions[op.read_at], value)
            readers.setdefault(op.weight, []).append(position)
        for name, positions in readers.items():
            value = declared[name]["O"]["%"]
            replacement = make(declared[name], weights[name], min(positions))
            for position in positions:
                for operand in self._operations[position]["I"]:
                    if operand["%"] == value:
                        operand["%"] = replacement
        self._insert()
        self._drop_unread(declared, readers)

    def _reader(self, position: int, value: int) -> int:
        """Return the position of the op, or of the op that makes its list with the value."""
        operands = self._operands(position)
        lists = [self._lists[operand] for operand in operands if operand in self._lists]
        return next((made for made in lists if value in self._operands(made)), position)

    def _operands(self, position: int) -> list[int]:
        return [operand["%"] for operand in self._operations[position]["I"]]

    def _dequantize(self, declared: Any, weight: AnyWeight, position: int) -> int:
        values = self._parameter(declared, f"{weight.name}{QUANTIZED}", weight.values)
        scale = self._parameter(declared, f"{weight.name}{SCALE}", weight.scale)
        if isinstance(weight, GroupedWeight):
            return self._dequantize_groups(declared, weight, position, values, scale)
        dims = list(weight.stored.shape)
        floats = self._cast(position, values, "float32", dims)
        scaled = self._op(position, "1.multiply", [floats, scale], _type("float32", dims))
        dtype = _dtype_name(weight.stored.dtype)
        return scaled if dtype == "float32" else self._cast(position, scaled, dtype, dims)

    def _dequantize_groups(
        self, declared: Any, weight: GroupedWeight, position: int, values: int, scale: int
    ) -> int:
        made = {"values": values, "scale": scale}
        for name, array in weight.constants.items():
            if name not in self._constants:
                self._constants[name] = self._parameter(declared, f"integers.{name}", array)
            made[name] = self._constants[name]
        for step in weight.dequantization():
            made[step.makes] = self._step(position, step, [made[name] for name in step.reads])
        return made[step.makes]

    def _step(self, position: int, step: Step, operands: list[int]) -> int:
        dtype, dims = _dtype_name(step.dtype), list(step.shape)
        if step.kind == "cast":
            return self._cast(position, operands[0], dtype, dims)
        attributes: dict[str, Any] = {}
        if step.kind == "reshape":
            operands = [*operands, self._integers(position, dims)]
        elif step.kind == "add":
            operands = [*operands, self._one(position)]
            attributes = {"bias": ("0.a_f32", float(step.value)), "bias_after_scale": _TRUE}
        elif step.kind == "stack":
            part = _type(dtype, dims[: step.value] + dims[step.value + 1 :])
            parts = {"#": "0.t_vec", "D": [part] * len(operands)}
            operands = [self._op(position, "0.combine", operands, parts)]
            attributes = {"axis": ("0.a_i32", step.value)}
        return self._op(position, _OPS[step.kind], operands, _type(dtype, dims), attributes)

    def _cast(self, position: int, value: int, dtype: str, dims: list[int]) -> int:
        attributes = {"dtype": ("1.a_dtype", dtype)}
        return self._op(position, "1.cast", [value], _type(dtype, dims), attributes)

    def _integers(self, position: int, values: list[int]) -> int:
        attributes = {
            "value": ("0.a_array", [{"#": "0.a_i64", "D": value} for value in values]),
            "dtype": ("1.a_dtype", "int64"),
            "place": _CPU,
        }
        return self._op(position, "1.full_int_array", [], _type("int64", [len(values)]), attributes)

    def _one(self, position: int) -> int:
        attributes = {
            "shape": ("1.a_intarray", [1]),
            "value": ("0.a_f64", 1.0),
            "dtype": ("1.a_dtype", "float32"),
            "place": _CPU,
        }
        return self._op(position, "1.full", [], _type("float32", [1]), attributes)

    def _store_dequantized(self, declared: Any, weight: AnyWeight, position: int) -> int:
        return self._parameter(declared, f"{weight.name}{QUANTIZED}", weight.dequantized)

    def _parameter(self, like: Any, name: str, tensor: Tensor) -> int:
        """Declare a parameter like another one, and return its value's id."""
        declaration = copy.deepcopy(like)
        declaration["A"][3] = name
        value = declaration["O"]["%"] = self._new_id()
        declaration["O"]["TT"] = _type(_dtype_name(tensor.dtype), list(tensor.shape))
        self._before.setdefault(0, []).append(declaration)
        self.parameters[name] = tensor
        return value

    def _op(
        self,
        position: int,
        name: str,
        operands: list[int],
        result_type: Any,
        attributes: Mapping[str, tuple[str, Any]] | None = None,
    ) -> int:
        result = self._new_id()
        stop_gradient = {"#": "0.a_array", "D": [{"#": "0.a_bool", "D": True}]}
        operation = {
            "#": name,
            "A": [
                {"AT": {"#": tag, "D": value}, "N": key}
                for key, (tag, value) in (attributes or {}).items()
            ],
            "I": [{"%": operand} for operand in operands],
            "O": [{"%": result, "TT": result_type}],
            "OA": [{"AT": stop_gradient, "N": "stop_gradient"}],
        }
        self._before.setdefault(position, []).append(operation)
        return result

    def _insert(self) -> None:
        operations = []
        for position, operation in enumerate(self._operations):
            operations += self._before.get(position, [])
            operations.append(operation)
        self._operations[:] = operations

    def _drop_unread(self, declared: Mapping[str, Any], names: Mapping[str, Any]) -> None:
        """Drop float weights that no op reads any longer."""
        read = {
            operand["%"]
            for operation in self._operations
            if operation["#"] != "p"
            for operand in operation["I"]
        }
        unread = {name for name in names if declared[name]["O"]["%"] not in read}
        self._operations[:] = [
            item for item in self._operations if item["#"] != "p" or item["A"][3] not in unread
        ]
        for name in unread:
            del self.parameters[name]

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1


def write_json(
    files: OutputFiles,
    program: JsonProgram,
    directory: Path,
    model_filename: str,
    params_filename: str,
) -> tuple[Path, ...]:
    """Write ``program`` and its parameters, as `write_model` writes a model."""
    targets = parameter_files(
        files, program.model, program.parameters, directory, model_filename, params_filename
    )
    text = json.dumps(program.document, separators=(",", ":"))
    with files.open(targets[0]) as stream:
        stream.write(text.encode())
    return targets


_OPS = {
    "divide": "1.floor_divide",
    "and": "1.bitwise_and",
    "add": "1.scale",
    "stack": "1.stack",
    "multiply": "1.multiply",
    "reshape": "1.reshape",
}
_TRUE = ("0.a_bool", True)
_CPU = ("1.a_place", [1, 0, ""])


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return proto.api_name(proto.paddle_dtype(dtype))


def _type(dtype: str, dims: list[int]) -> Any:
    return {"#": "0.t_dtensor", "D": [{"#": f"0.{DTYPE_TAGS[dtype]}"}, dims, "NCHW", [], 0]}


def _result_ids(operations: list[Any]) -> list[int]:
    ids = []
    for operation in operations:
        results = [operation["O"]] if operation["#"] == "p" else operation["O"]
        ids += [int(result["%"]) for result in results]
    return ids
