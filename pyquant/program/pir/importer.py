"""Imports a PIR program into a ProgramDesc: by the lines of the table, and the ops beyond it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ModelFileError, UnsupportedError
from .. import proto
from ..op import Op, make_cast, make_op
from ..op_protos import attribute_kinds, complete, required_inputs
from .reader import (
    Attribute,
    Operation,
    TensorType,
    Value,
    json_operations,
    parse_json,
    parse_operations,
)
from .table import TABLE, Line, OperandSpec

# Where and how an op was made, and hints to the executor; they do not affect what it computes.
_NOT_COMPUTED = {"struct_name", "op_callstack", "place", "stop_gradient", "persistable"}
# Further attributes of legacy ops: how they run, and what follows from the others.
_NOT_IN_PIR = {
    "op_role",
    "op_role_var",
    "op_namescope",
    "op_callstack",
    "op_device",
    "with_quant_attr",
    "force_cpu",
    "in_dtype",
    "mkldnn_data_type",
    "out_dtype",
    "place_type",
    "reduce_all",
    "str_value",
    "use_cudnn",
    "use_mkldnn",
    "use_quantizer",
}
# The type of a result that nothing reads and that has no type of its own.
_NOT_COMPUTED_RESULT = TensorType("int64", (-1,))
_CONTROL_FLOW = {"pd_op.if", "pd_op.while", "pd_op.pylayer", "pd_op.select_input"}


class PirProgram(NamedTuple):
    """A program read from a ``.json``."""

    program: Any  # the ``ProgramDesc``
    document: Any  # the JSON as it was read
    positions: list[int]  # for each op of the ``ProgramDesc``, the position of its op in the JSON


def read_program(path: Path, data: bytes) -> PirProgram:
    """Read a ``.json`` program: the content ``data`` of the file ``path``.

    Raises ModelFileError if the file is not PIR or is damaged. Raises UnsupportedError if it is of
    an unknown version, or has control flow or ops that the table lacks, which are all named.
    """
    document = parse_json(path, data)
    operations = list(parse_operations(path, json_operations(path, document)))
    _refuse_unknown(path, operations)
    importer = _Importer(path, operations)
    for operation in operations:
        try:
            importer.add(operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"{path}: op {operation.position} ({operation.name}): lacks an operand, a result "
                f"or an attribute ({type(error).__name__}: {error}). Export the model again."
            ) from error
    return PirProgram(importer.program, document, importer.positions)


def _refuse_unknown(path: Path, operations: list[Operation]) -> None:
    control = [operation for operation in operations if operation.name in _CONTROL_FLOW]
    if control:
        raise UnsupportedError(
            f"{path}: op {control[0].position} is control flow ({control[0].name}), of which there "
            f"are {len(control)} in the program. Only programs of one block are read: export the "
            "model without data-dependent if and while."
        )
    unknown = [op for op in operations if op.name not in _SPECIAL and _line(op.name) is None]
    if unknown:
        counts = Counter(operation.name for operation in unknown)
        listed = ", ".join(f"{name} ({count}x)" for name, count in counts.most_common())
        raise UnsupportedError(
            f"{path}: not known: {listed}; the first is op {unknown[0].position}. Only what "
            "pyquant's table of PIR ops names can be read; replace these ops, or ask for them."
        )


def _line(name: str) -> Line | None:
    """Return the line of a PIR op; an in-place op shares the line of its plain form."""
    dialect, _, op = name.partition(".")
    if dialect != "pd_op":
        return None
    return TABLE.get(op) or TABLE.get(op.rstrip("_"))


class _Importer:
    def __init__(self, path: Path, operations: list[Operation]) -> None:
        self.program = proto.ProgramDesc()
        self.positions: list[int] = []
        self._path = path
        self._block = self.program.blocks.add(idx=0, parent_idx=-1)
        for name, kind in (("feed", proto.FEED_LIST), ("fetch", proto.FETCH_LIST)):
            proto.add_list_var(self._block, name, kind)
        self._types = {value.id: value.type for op in operations for value in op.results}
        self._names: dict[int, str] = {}
        self._lists: dict[int, tuple[int, ...]] = {}
        self._members: dict[int, list[str]] = {}
        self._constants: dict[int, Operation] = {}
        self._declared = _declared_names(operations)
        self._fetched = _fetch_names(operations, self._declared.keys())
        self._last_use = _last_uses(operations)
        self._taken = {*self._declared, *self._fetched.values(), "feed", "fetch"}
        self._outputs: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._operation = operations[0]
        self._computed: set[str] = set()  # attributes of the current op that are tensors

    def add(self, operation: Operation) -> None:
        self._operation = operation
        special = _SPECIAL.get(operation.name)
        if special is not None:
            special(self, operation)
        else:
            self._add_by_line(operation, _required(_line(operation.name)))

    def _add_by_line(self, operation: Operation, line: Line) -> None:
        self._refuse_overwritten(operation, line)
        kinds = self._attribute_kinds(line.op_type)
        self._check_counts(operation, line)
        desc = proto.OpDesc(type=line.op_type)
        self._computed = set()
        for spec, operand in zip(line.operands, operation.operands):
            self._add_operand(desc, spec, operand, kinds)
        for name, value in operation.attributes.items():
            if name not in _NOT_COMPUTED and name not in line.dropped:
                self._set(desc, kinds, line.renamed.get(name, name), value)
        for name, text in line.constants.items():
            self._set(desc, kinds, name, self._constant_attribute(operation, text))
        self._refuse_incomplete(desc, kinds.keys() - line.optional)
        self._add_results(desc, operation, line)
        self._append(Op(desc))

    def _check_counts(self, operation: Operation, line: Line) -> None:
        for what, given, known in (
            ("operands", operation.operands, line.operands),
            ("results", operation.results, line.results),
        ):
            if len(given) != len(known):
                raise self._fail(f"has {len(given)} {what}, {len(known)} are known")

    def _refuse_incomplete(self, desc: Any, attributes: Set[str]) -> None:
        """Refuse an op that lacks something, as Paddle would fill it in with a default."""
        given = {attribute.name for attribute in desc.attrs}
        given |= {slot.parameter for slot in desc.inputs}
        for name in (*required_inputs(desc.type), *sorted(attributes - _NOT_IN_PIR)):
            if name not in given and name not in self._computed:
                raise self._fail(f"lacks '{name}'")

    def _add_operand(
        self, desc: Any, spec: OperandSpec, operand: int, kinds: dict[str, int]
    ) -> None:
        if operand == 0 or spec.ignored:
            return
        if spec.attribute is not None:
            value = self._attribute_of(operand)
            if value is not None:
                self._set(desc, kinds, spec.attribute, value)
                return
            if kinds.get(spec.attribute) in proto.NUMBER_KINDS:
                self._set(desc, kinds, spec.attribute, 0)  # it needs a value; the tensor counts
            if spec.list_slot is not None and operand in self._lists:
                known = [self._attribute_of(member) for member in self._lists[operand]]
                sizes: list[Any] = [-1 if size is None else size for size in known]
                self._set(desc, kinds, spec.attribute, sizes)
            elif spec.attribute == "shape":
                rank = len(self._tensor(self._operation.results[0].id).dims)
                self._set(desc, kinds, "shape", [-1] * rank)
            self._computed.add(spec.attribute)
        slot = spec.list_slot if operand in self._lists and spec.list_slot else spec.slot
        if slot is None:
            raise self._fail(f"'{spec.attribute}' is computed by the model, not a constant")
        desc.inputs.add(parameter=slot, arguments=self._arguments(operand))

    def _add_results(self, desc: Any, operation: Operation, line: Line) -> None:
        for spec, result in zip(line.results, operation.results):
            if spec.alias is not None:
                names = Op(desc).inputs(spec.alias)
                self._names[result.id] = names[0]
            else:
                names = self._new_variables(line.op_type, result)
            if spec.slot is not None:
                desc.outputs.add(parameter=spec.slot, arguments=names)
        if line.has_xshape:
            desc.outputs.add(parameter="XShape", arguments=[self._xshape(desc)])

    def _xshape(self, desc: Any) -> str:
        """Return a new variable for the shape that legacy ops keep for their gradient."""
        tensor = self._tensor(self._operation.operands[0])
        name = self._unique(f"{desc.type}_xshape")
        proto.add_var(self._block, name, proto.data_type_of(tensor.dtype), (0, *tensor.dims))
        return name

    def _new_variables(self, stem: str, result: Value) -> list[str]:
        if isinstance(result.type, tuple):
            names = [
                self._variable(self._fetched.get((result.id, index)) or self._unique(stem), member)
                for index, member in enumerate(result.type)
            ]
            self._members[result.id] = names
            return names
        if result.type is None and result.id not in self._last_use:
            return [self._variable(self._unique(stem), _NOT_COMPUTED_RESULT)]
        name = self._fetched.get(result.id) or self._unique(stem)
        self._names[result.id] = self._variable(name, self._tensor(result.id))
        return [name]

    def _variable(self, name: str, tensor: TensorType) -> str:
        proto.add_var(self._block, name, proto.data_type_of(tensor.dtype), tensor.dims)
        return name

    def _unique(self, stem: str) -> str:
        while True:
            name = f"{stem}_{self._counts[stem]}.tmp"
            self._counts[stem] += 1
            if name not in self._taken:
                return name

    def _tensor(self, value: int) -> TensorType:
        tensor = self._types[value]
        if not isinstance(tensor, TensorType):
            raise self._fail(f"value %{value} is not a dense tensor")
        return tensor

    def _arguments(self, operand: int) -> list[str]:
        if operand in self._lists:
            return [self._name(member) for member in self._lists[operand]]
        if operand in self._members:
            return self._members[operand]
        return [self._name(operand)]

    def _name(self, value: int) -> str:
        """Return the variable of a tensor; a constant's is made when it is first needed."""
        if value not in self._names:
            if value not in self._constants:
                raise self._fail(f"value %{value} is not a tensor")
            self._names[value] = self._make_constant(self._constants[value])
        return self._names[value]

    def _make_constant(self, operation: Operation) -> str:
        value: Any = operation.attributes["value"]
        dtype, result = str(operation.attributes["dtype"]), operation.results[0]
        if operation.name == "pd_op.full_int_array":
            return self._add_values(value, dtype, [len(value)], result)
        attributes = {
            "shape": operation.attributes["shape"],
            "dtype": dtype,
            "value": value,
            "str_value": _text_of(value, dtype),
        }
        return self._add_source("fill_constant", attributes, result)

    def _add_values(self, values: Any, dtype: str, shape: Any, result: Value) -> str:
        attributes = {"shape": shape, "dtype": dtype, "values": values}
        return self._add_source("assign_value", attributes, result)

    def _add_source(self, op_type: str, attributes: dict[str, Any], result: Value) -> str:
        """Add an op without inputs, and return its output variable."""
        desc = proto.OpDesc(type=op_type)
        kinds = self._attribute_kinds(op_type)
        for name, value in attributes.items():
            self._set(desc, kinds, name, value)
        names = self._new_variables(op_type, result)
        desc.outputs.add(parameter="Out", arguments=names)
        self._append(Op(desc))
        return names[0]

    def _attribute_of(self, operand: int) -> Attribute:
        """Return the value of a constant operand, or None if the model computes it."""
        constant = self._constants.get(operand)
        if constant is not None:
            return constant.attributes["value"]
        if operand in self._lists:
            values = [self._attribute_of(member) for member in self._lists[operand]]
            return None if None in values else values
        return None

    def _constant_attribute(self, operation: Operation, text: str) -> Attribute:
        if text == "@dtype":
            return self._tensor(operation.operands[0]).dtype
        if text == "@ones":
            return [1] * len(_required(operation.attributes["axes"]))
        return {"true": True, "false": False}.get(text, text)

    def _set(self, desc: Any, kinds: dict[str, int], name: str, value: Attribute) -> None:
        if name not in kinds:
            raise self._fail(f"attribute '{name}' is not one of {desc.type}'s")
        try:
            Op(desc).set_attr(name, value, kinds[name])
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise self._fail(f"attribute '{name}' cannot be {value!r} ({error})") from error

    def _attribute_kinds(self, op_type: str) -> dict[str, int]:
        try:
            return attribute_kinds(op_type)
        except ValueError as error:
            raise UnsupportedError(
                f"{self._path}: op {self._operation.position} ({self._operation.name}): this "
                f"version of Paddle has no op {op_type}. Use Paddle 3."
            ) from error

    def _append(self, op: Op) -> None:
        complete(op)
        self._block.ops.append(op.desc)
        self.positions.append(self._operation.position)

    def _refuse_overwritten(self, operation: Operation, line: Line) -> None:
        """Refuse an in-place op whose input is read later, which would see what the op wrote."""
        in_place = operation.name.endswith("_") and not line.keeps_input
        if in_place and self._last_use[operation.operands[0]] > operation.position:
            raise self._fail("changes its input in place, which another op reads afterwards")

    def _fail(self, problem: str) -> UnsupportedError:
        operation = self._operation
        return UnsupportedError(
            f"{self._path}: op {operation.position} ({operation.name}): {problem}."
        )

    def _declared_name(self, operation: Operation) -> str:
        name = str(operation.attributes["name"])
        if self._declared[name] > 1:
            raise ModelFileError(
                f"{self._path}: op {operation.position} ({operation.name}): '{name}' is declared "
                "twice. Export the model again."
            )
        return name

    def _parameter(self, operation: Operation) -> None:
        if not operation.attributes["persistable"]:
            return  # the state that an RNN's dropout keeps in training, which has no value
        name, result = self._declared_name(operation), operation.results[0]
        self._names[result.id] = self._variable(name, self._tensor(result.id))
        self._block.vars[-1].persistable = True

    def _feed(self, operation: Operation) -> None:
        name, result = self._declared_name(operation), operation.results[0]
        self._names[result.id] = self._variable(name, self._tensor(result.id))
        column = sum(op.type == "feed" for op in self._block.ops)
        self._append(make_op("feed", {"X": ["feed"]}, {"Out": [name]}, {"col": column}))

    def _fetch(self, operation: Operation) -> None:
        name = self._name(operation.operands[0])
        wanted = str(operation.attributes["name"])
        if wanted in self._outputs:
            raise self._fail(f"two outputs are called '{wanted}'")
        self._outputs.add(wanted)
        if name != wanted and wanted not in self._declared:
            self._variable(wanted, self._tensor(operation.operands[0]))
            self._append(make_op("assign", {"X": [name]}, {"Out": [wanted]}, {}))
            name = wanted
        column = operation.attributes.get("col", 0)
        inputs, outputs = {"X": [name]}, {"Out": ["fetch"]}
        self._append(make_op("fetch", inputs, outputs, {"col": int(_required(column))}))

    def _constant(self, operation: Operation) -> None:
        self._constants[operation.results[0].id] = operation

    def _assign(self, operation: Operation) -> None:
        attributes = operation.attributes
        values, dtype = attributes["values"], str(attributes["dtype"])
        self._add_values(values, dtype, attributes["shape"], operation.results[0])

    def _combine(self, operation: Operation) -> None:
        self._lists[operation.results[0].id] = operation.operands

    def _split(self, operation: Operation) -> None:
        names = self._arguments(operation.operands[0])
        if len(names) != len(operation.results):
            raise self._fail(f"has {len(operation.results)} results of {len(names)} tensors")
        for name, result in zip(names, operation.results):
            self._names[result.id] = name

    def _element(self, operation: Operation) -> None:
        names, index = self._arguments(operation.operands[0]), operation.attributes["index"]
        if not isinstance(index, int) or not 0 <= index < len(names):
            raise self._fail(f"takes element {index!r} of {len(names)}")
        self._names[operation.results[0].id] = names[index]

    def _shape64(self, operation: Operation) -> None:
        """Emit ``shape``, which is int32 in a ProgramDesc, and a cast to int64."""
        result = operation.results[0]
        narrow = self._unique("shape")
        self._variable(narrow, TensorType("int32", self._tensor(result.id).dims))
        source = self._name(operation.operands[0])
        self._append(make_op("shape", {"Input": [source]}, {"Out": [narrow]}, {}))
        self._cast(narrow, "int32", self._new_variables("cast", result)[0], "int64")

    def _arange(self, operation: Operation) -> None:
        """Emit ``range``, which takes its operands in the dtype of its result."""
        dtype = self._tensor(operation.results[0].id).dtype
        slots = zip(("Start", "End", "Step"), operation.operands)
        inputs = {slot: [self._as(operand, dtype)] for slot, operand in slots}
        outputs = {"Out": self._new_variables("range", operation.results[0])}
        self._append(make_op("range", inputs, outputs, {}))

    def _set_value(self, operation: Operation) -> None:
        """Emit a ``set_value`` of a tensor: as an attribute, Paddle misreads float32 values."""
        attributes = dict(operation.attributes)
        values, shape = attributes.pop("values"), attributes.pop("shape")
        target, *places = operation.operands
        tensor = TensorType(self._tensor(target).dtype, tuple(_required(shape)))
        value = Value(1 + max(self._types), tensor)
        self._types[value.id] = tensor
        self._add_values(values, tensor.dtype, list(tensor.dims), value)
        operation = replace(operation, operands=(target, value.id, *places), attributes=attributes)
        self._add_by_line(operation, TABLE["set_value_with_tensor"])

    def _as(self, value: int, dtype: str) -> str:
        tensor = self._tensor(value)
        if tensor.dtype == dtype:
            return self._name(value)
        converted = self._variable(self._unique("cast"), TensorType(dtype, tensor.dims))
        self._cast(self._name(value), tensor.dtype, converted, dtype)
        return converted

    def _cast(self, source: str, from_dtype: str, target: str, to_dtype: str) -> None:
        types = proto.data_type_of(from_dtype), proto.data_type_of(to_dtype)
        self._append(make_cast(source, target, *types))


_SPECIAL: dict[str, Callable[[_Importer, Operation], None]] = {
    "builtin.parameter": _Importer._parameter,
    "builtin.combine": _Importer._combine,
    "builtin.split": _Importer._split,
    "builtin.slice": _Importer._element,
    "pd_op.data": _Importer._feed,
    "pd_op.feed": _Importer._feed,
    "pd_op.fetch": _Importer._fetch,
    "pd_op.full": _Importer._constant,
    "pd_op.full_int_array": _Importer._constant,
    "pd_op.assign_value": _Importer._assign,
    "pd_op.assign_value_": _Importer._assign,
    "pd_op.shape64": _Importer._shape64,
    "pd_op.arange": _Importer._arange,
    "pd_op.set_value": _Importer._set_value,
    "pd_op.set_value_": _Importer._set_value,
}


def _required(value: Any) -> Any:
    if value is None:
        raise ValueError("nothing where something must be")
    return value


def _fetch_names(operations: list[Operation], declared: Set[str]) -> dict[Any, str]:
    """Return the names of fetched values, so that the model's outputs keep their names.

    The key is a value's id, or for a member of a list, the list's id and the index. The names of
    inputs and parameters, ``declared``, are not given again.
    """
    operands: dict[str, int] = {}
    for fetch in (op for op in operations if op.name == "pd_op.fetch" and op.operands):
        operands.setdefault(str(fetch.attributes.get("name")), fetch.operands[0])
    names: dict[Any, str] = {
        operand: name for name, operand in operands.items() if name not in declared
    }
    for split in (op for op in operations if op.name == "builtin.split" and op.operands):
        for index, result in enumerate(split.results):
            if result.id in names:
                names[split.operands[0], index] = names[result.id]
    return names


def _declared_names(operations: list[Operation]) -> Counter[str]:
    """Count the names of parameters and inputs."""
    named = {"builtin.parameter", "pd_op.data", "pd_op.feed"}
    return Counter(str(op.attributes.get("name")) for op in operations if op.name in named)


def _last_uses(operations: list[Operation]) -> dict[int, int]:
    return {operand: op.position for op in operations for operand in op.operands}


def _text_of(value: Any, dtype: str) -> str:
    """Return a number in full, as ``fill_constant`` parses it."""
    if dtype in ("float16", "bfloat16", "float32", "float64"):
        return repr(float(value))
    return str(int(value))
