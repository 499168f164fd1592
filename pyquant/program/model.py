"""A model in memory, one ProgramDesc and its parameters, and how it is read and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from ..errors import ModelFileError, SettingError, UnsupportedError
from . import proto
from .form import EXPORT_ATTRIBUTES, check_form
from .mapped_files import forget_pages, read_whole
from .op import Op, ops_of
from .op_protos import complete_for_lite
from .output_files import OutputFiles, end_killed_runs
from .parameters import (
    Array,
    DerivedTensor,
    Tensor,
    read_combined,
    read_separate,
    refuse_changed,
    write_combined,
)
from .pir.importer import PirProgram
from .pir.importer import read_program as read_pir_program
from .tensor_inputs import settle_tensor_inputs

RECORD = "pyquant.json"
"""The file beside a quantized model that says how it was made; no program."""

QUANTIZED = "quantized_model"
"""The directory of the model below that of a result of dynamic mode, as in PaddleSlim."""

_PROGRAM_SUFFIXES = (".pdmodel", ".json")


class Folding(NamedTuple):
    """How a model was folded.

    Attributes:
        keep: the tensors that were left as they are.
        shifts: whether additions went into biases.
        rescaled: the tensors whose values differ from those in ``original``, or that it lacks.
    """

    keep: tuple[str, ...]
    shifts: bool
    original: Model
    rescaled: frozenset[str]


class Origin(NamedTuple):
    """What a model's files hold."""

    program: bytes | None  # the serialized ``ProgramDesc``; None if the file is a ``.json``
    parameters: Mapping[str, Array]


class Pending(NamedTuple):
    """A parameter that is made each time it is needed, so that it takes no memory until then."""

    stored: Array  # what it is made from
    compute: Callable[[], Array]  # returns ``stored`` itself, or a new array

    def make(self) -> Array:
        """Return the values; free the pages of the file that they are made from."""
        values = self.compute()
        forget_pages(self.stored)
        return values

    def multiplied(self, factors: Array) -> Pending:
        """Return the parameter times ``factors``."""

        def compute() -> Array:
            values = self.compute()
            # New memory takes longer than to multiply; what is not stored has no other reader.
            return np.multiply(values, factors, out=None if values is self.stored else values)

        return Pending(self.stored, compute)


@dataclass
class Model:
    """A Paddle inference model.

    Attributes:
        program: the ``ProgramDesc``.
        parameters: every persistable tensor by name. As read, they are read-only views of the
            mapped file; bfloat16 is raw ``uint16``. A pending one reads as NaN: see `made`.
        model_path: the program's file.
        params_path: the combined parameter file, or None if each parameter has a file of its own
            beside the program.
        source_files: all files that it was read from.
        pir: the program that it was read from, if that was a Paddle 3 ``.json``.
        derived: tensors that replace the parameters of their names, and are made while the model is
            written.
        folded: how the model was folded; None if it was not.
        pending: parameters that are yet to be made, by `settle` for good or by `made` for a call.
        origin: what was read from its files, to tell which of them still hold it.
    """

    program: Any
    parameters: dict[str, Array]
    model_path: Path
    params_path: Path | None
    source_files: tuple[Path, ...]
    pir: PirProgram | None = None
    derived: dict[str, DerivedTensor] = field(default_factory=dict)
    folded: Folding | None = None
    pending: dict[str, Pending] = field(default_factory=dict)
    origin: Origin | None = None

    @property
    def feeds(self) -> list[Any]:
        """The ``VarDesc``s of the model's inputs, in order."""
        ops = [op for op in ops_of(self.program.blocks[0]) if op.type == "feed"]
        ops.sort(key=lambda op: op.attr("col", 0))
        variables = {var.name: var for var in self.program.blocks[0].vars}
        return [variables[op.output("Out")] for op in ops]

    @property
    def fetches(self) -> list[str]:
        """The names of the model's outputs, in order."""
        ops = [op for op in ops_of(self.program.blocks[0]) if op.type == "fetch"]
        ops.sort(key=lambda op: op.attr("col", 0))
        return [op.input("X") for op in ops]

    def ops(self) -> Iterator[Op]:
        """Every op of every block."""
        for _, _, op in self.numbered_ops():
            yield op

    def numbered_ops(self) -> Iterator[tuple[int, int, Op]]:
        """Every op with the index of its block and its position in the block."""
        for block_index, block in enumerate(self.program.blocks):
            for position, op in enumerate(ops_of(block)):
                yield block_index, position, op

    @property
    def parameters_path(self) -> Path:
        """The parameters' file, or the directory of their files."""
        return self.params_path or self.model_path.parent

    @property
    def is_stored(self) -> bool:
        """Whether its file still holds the program."""
        origin = self.origin
        return origin is not None and origin.program == self.program.SerializeToString()

    @property
    def has_stored_parameters(self) -> bool:
        """Whether their files still hold the parameters."""
        if self.origin is None or self.pending or self.derived:
            return False
        stored = self.origin.parameters
        is_same = (stored.get(name) is array for name, array in self.parameters.items())
        return len(stored) == len(self.parameters) and all(is_same)

    def refuse_changed_files(self) -> None:
        """Raise ModelFileError if a parameter file has changed since it was read."""
        if self.origin is not None:
            refuse_changed(self.origin.parameters.values())

    def settle(self) -> None:
        """Make the pending parameters that are not replaced."""
        for name, pending in self.pending.items():
            if name not in self.derived:
                self.parameters[name] = pending.make()
        self.pending.clear()

    def made(self, name: str) -> Array:
        """Return a parameter, made for this call if it is pending."""
        pending = self.pending.get(name)
        return self.parameters[name] if pending is None else pending.make()

    def postpone(self, name: str, pending: Pending) -> None:
        """Replace a parameter by one of its shape and type that is yet to be made."""
        stored = self.parameters[name]
        self.parameters[name] = np.broadcast_to(np.full((), np.nan, stored.dtype), stored.shape)
        self.pending[name] = pending

    def yet_to_be_made(self, name: str) -> Pending:
        """Return a parameter as one that is made when it is needed."""
        stored = self.parameters[name]
        return self.pending.get(name) or Pending(stored, lambda: stored)

    def multiply(self, name: str, factors: Array) -> None:
        """Multiply a parameter, once it is made."""
        self.postpone(name, self.yet_to_be_made(name).multiplied(factors))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to write: the parameters, or what replaces them."""
        self.settle()
        return {**self.parameters, **self.derived}

    def made_when_written(self, name: str) -> DerivedTensor:
        """Return a pending parameter as a tensor that is made while it is written."""
        stored, pending = self.parameters[name], self.pending[name]
        return DerivedTensor(stored.shape, stored.dtype, lambda: [pending.make()])

    def put(self, name: str, tensor: Tensor) -> None:
        """Add a parameter, or replace it."""
        if isinstance(tensor, DerivedTensor):
            self.derived[name] = tensor
        else:
            self.drop(name)
            self.parameters[name] = tensor

    def drop(self, name: str) -> None:
        """Remove a parameter, if there is one of that name."""
        for tensors in (self.parameters, self.derived, self.pending):
            tensors.pop(name, None)

    def dims(self) -> dict[str, list[int]]:
        """The declared dims of every dense tensor, by its name."""
        return {
            var.name: list(desc.dims)
            for block in self.program.blocks
            for var in block.vars
            if (desc := proto.tensor_desc(var)) is not None
        }

    def float32_tensors(self) -> set[str]:
        """The names of the dense tensors that are declared as float32."""
        return {
            var.name
            for block in self.program.blocks
            for var in block.vars
            if (desc := proto.tensor_desc(var)) is not None and desc.data_type == proto.FP32
        }

    def reads(self) -> Counter[str]:
        """How often ops read each variable."""
        return Counter(name for op in self.ops() for name in op.reads())

    def writes(self) -> Counter[str]:
        """How often ops write each variable."""
        return Counter(name for op in self.ops() for name in op.writes())

    def producers(self) -> dict[str, Op]:
        """The last op that writes each variable, by the variable's name."""
        return {name: op for op in self.ops() for name in op.writes()}


def copy_model(model: Model) -> Model:
    """Return a copy that can be rewritten while ``model`` stays; the two share the arrays."""
    program = proto.ProgramDesc()
    program.CopyFrom(model.program)
    return replace(
        model,
        program=program,
        parameters=dict(model.parameters),
        derived=dict(model.derived),
        pending=dict(model.pending),
    )


def load_model(
    model_dir: str | Path, model_filename: str | None = None, params_filename: str | None = None
) -> Model:
    """Read a Paddle inference model, in ``.pdmodel``/``__model__`` form or Paddle 3's ``.json``.

    Either becomes one ``ProgramDesc`` in memory; outputs keep their names. Constant tensors become
    attributes where ops have attributes for them.

    Args:
        model_dir: the directory of the files, or the program's path with or without its suffix.
        model_filename: the program's file. None takes the only one: ``__model__``, a ``.pdmodel``,
            or a ``.json`` with parameters, in the directory or in ``quantized_model`` below it.
        params_filename: the combined parameter file. None takes the ``.pdiparams`` beside the
            program, of the same name, and otherwise one file per parameter.

    Raises:
        ModelFileError: a file is missing, truncated, or does not belong to the other, or the
            directory holds two models.
        UnsupportedError: it is ONNX, or a ``.json`` with control flow or ops that are not known.

    Example:
        >>> model = pyquant.load_model("float")
        >>> sorted(model.parameters)
        ['dense.w', 'first.w', 'second.w']
    """
    _refuse_onnx(Path(model_dir), model_filename)
    try:
        model_path, params_path = _locate(Path(model_dir), model_filename, params_filename)
    except OSError as error:
        raise ModelFileError(
            f"{model_dir}: the directory cannot be read ({error.strerror}). Check model_dir."
        ) from error
    data = read_program(model_path)
    pir = read_pir_program(model_path, data) if model_path.suffix == ".json" else None
    program = pir.program if pir is not None else _parse_program(model_path, data)
    check_form(model_path, program)
    names = _parameter_names(program)
    if pir is not None and names and params_path is None:
        params_path = model_path.with_suffix(".pdiparams")
    if params_path is not None:
        parameters = read_combined(params_path, names)
        files = [params_path]
    else:
        parameters = read_separate(model_path.parent, names)
        files = [model_path.parent / name for name in names]
    stored = program.SerializeToString() if pir is None else None
    origin = Origin(stored, dict(parameters))
    paths = model_path, params_path, (model_path, *files)
    model = Model(program, parameters, *paths, pir, origin=origin)
    _check_parameters(model)
    positions = settle_tensor_inputs(program, parameters)
    model.refuse_changed_files()
    if positions is not None and pir is not None:
        model.pir = pir._replace(positions=[pir.positions[at] for at in positions])
    return model


def save_model(
    model: Model, directory: str | Path, model_filename: str, params_filename: str | None
) -> tuple[Path, ...]:
    """Write ``model``; every file appears whole or not at all.

    Attributes that only tell how the model was exported, such as call stacks, are left out.

    Args:
        model: what to write.
        directory: created if absent.
        model_filename: the program's file, as ``"model.pdmodel"``.
        params_filename: the combined parameter file; None writes one file per parameter.

    Returns:
        The paths of the files: the program first, then its parameters.

    Raises:
        SettingError: a file would overwrite one that the model was read from, or another new one.
        OutputError: it cannot be written; nothing has changed on the disk.

    Example:
        >>> model = pyquant.load_model("float")
        >>> files = pyquant.save_model(model, "copy", "model.pdmodel", "model.pdiparams")
        >>> [file.name for file in files]
        ['model.pdmodel', 'model.pdiparams']
    """
    with OutputFiles(Path(directory)) as files:
        return write_model(files, model, Path(directory), model_filename, params_filename)


def write_model(
    files: OutputFiles,
    model: Model,
    directory: Path,
    model_filename: str,
    params_filename: str | None,
) -> tuple[Path, ...]:
    """Write ``model`` as `save_model` does, together with the other files in ``files``."""
    _refuse_json(model_filename)
    targets = parameter_files(
        files, model, _as_written(model), directory, model_filename, params_filename
    )
    with files.open(targets[0]) as stream:
        stream.write(program_bytes(model.program))
    return targets


def _as_written(model: Model) -> dict[str, Tensor]:
    """Return the tensors to write, of which pending ones do not take memory together."""
    made = {name: model.made_when_written(name) for name in model.pending}
    return {**model.parameters, **made, **model.derived}


def check_targets(
    model: Model, directory: Path, model_filename: str, params_filename: str | None
) -> None:
    """Raise SettingError for names of another format, or of files that ``model`` was read from."""
    _refuse_json(model_filename)
    filenames = [model_filename] if params_filename is None else [model_filename, params_filename]
    _refuse_source(model, [directory / name for name in filenames])


def parameter_files(
    files: OutputFiles,
    model: Model,
    tensors: Mapping[str, Tensor],
    directory: Path,
    model_filename: str,
    params_filename: str | None,
) -> tuple[Path, ...]:
    """Write ``tensors`` as the parameters of a model made from ``model``.

    Returns the path for the program, which is not written, and those of the parameters.
    """
    model_path = directory / model_filename
    if params_filename is not None:
        contents = {directory / params_filename: tensors}
    else:
        contents = {directory / name: {name: tensor} for name, tensor in tensors.items()}
    if model_path in contents:
        raise SettingError(
            f"{model_path}: the program and a parameter would be the same file. "
            "Give them different names."
        )
    targets = (model_path, *contents)
    _refuse_source(model, targets)
    _refuse_strange_places(directory, targets)
    try:
        for path, together in contents.items():
            with files.open(path) as stream:
                write_combined(stream, together)
    finally:
        model.refuse_changed_files()  # also in place of an error of writing what is gone
    return targets


def program_bytes(program: Any) -> bytes:
    """Serialize a ``ProgramDesc`` without attributes that only tell how it was exported.

    Ops get the attributes that Paddle-Lite cannot do without.
    """
    stripped = proto.ProgramDesc()
    stripped.CopyFrom(program)
    for block in stripped.blocks:
        for op in ops_of(block):
            op.remove_attrs(EXPORT_ATTRIBUTES)
            complete_for_lite(op)
    return bytes(stripped.SerializeToString())


def _refuse_json(model_filename: str) -> None:
    if model_filename.endswith(".json"):
        raise SettingError(
            f"{model_filename}: programs are written as .pdmodel; only quant_post_dynamic writes a "
            "model that was read from .json as .json. Name it .pdmodel."
        )


def refuse_overwriting_source(model: Model, targets: Iterable[Path]) -> None:
    """Raise SettingError if a file that is to be written is one that the model was read from."""
    sources = {path.resolve() for path in model.source_files}
    for target in targets:
        if target.resolve() in sources:
            raise SettingError(
                f"{target}: the result would overwrite the model that it is made from. Choose "
                "another directory or file name."
            )


def _refuse_source(model: Model, targets: Sequence[Path]) -> None:
    """Refuse to write a model, whose program is the first target, over or beside its source."""
    refuse_overwriting_source(model, targets)
    if targets[0].parent.resolve() == model.model_path.parent.resolve():
        raise SettingError(
            f"{targets[0].parent}: it holds {model.model_path.name}, which the quantized model is "
            "made from, and a directory of two models cannot be read. Choose another directory."
        )


def _refuse_strange_places(directory: Path, targets: Sequence[Path]) -> None:
    """Refuse parameter names that put files outside of ``directory`` or inside one another."""
    root, places = directory.resolve(), {target.resolve() for target in targets}
    for place in places:
        if root not in place.parents or not places.isdisjoint(place.parents):
            raise SettingError(
                f"{place}: a file of the model cannot be there: it is outside of {directory}, or "
                "in another of its files. Write the parameters into one file, by "
                "save_params_filename."
            )


def _locate(
    model_dir: Path, model_filename: str | None, params_filename: str | None
) -> tuple[Path, Path | None]:
    for directory in (model_dir, model_dir.parent):  # where its files are written to
        end_killed_runs(directory)
    if model_filename is not None:
        model_path = model_dir / model_filename
    else:
        model_path = _find_program(model_dir)
    if params_filename is not None:
        return model_path, model_path.parent / params_filename
    beside = model_path.with_suffix(".pdiparams")
    if model_path.suffix in (".pdmodel", ".json") and beside.exists():
        return model_path, beside
    return model_path, None


def _refuse_onnx(model_dir: Path, model_filename: str | None) -> None:
    path = model_dir if model_filename is None else model_dir / model_filename
    if path.suffix.lower() == ".onnx":
        raise UnsupportedError(
            f"{path}: pyquant reads Paddle's formats, .pdmodel and .json, and only writes ONNX. "
            "Give the Paddle model that it was exported from."
        )


def _find_program(model_dir: Path) -> Path:
    if model_dir.is_file():
        _refuse_parameters(model_dir)
        return model_dir
    # A directory of a program is what is named, even beside a program, or a .json, of its name.
    found = _programs(model_dir) if model_dir.is_dir() else []
    if not found:
        named = [model_dir.with_name(model_dir.name + suffix) for suffix in _PROGRAM_SUFFIXES]
        found = [path for path in named if path.is_file()]
    if not found and not model_dir.is_dir():
        raise ModelFileError(f"{model_dir}: there is no such directory. Check model_dir.")
    if len(found) == 1:
        return found[0]
    have = " and ".join(path.name for path in found) or "none"
    raise ModelFileError(
        f"{model_dir}: one .pdmodel or .json file (or __model__) is expected, there is {have}. "
        "Name it by model_filename."
    )


def _programs(directory: Path) -> list[Path]:
    """Return the programs in a directory, or in the one below it that dynamic mode writes."""
    found = sorted(path for path in directory.glob("*.pdmodel"))
    found += [path for path in (directory / "__model__",) if path.is_file()]
    jsons = sorted(path for path in directory.glob("*.json") if path.name != RECORD)
    with_parameters = [path for path in jsons if path.with_suffix(".pdiparams").exists()]
    found += with_parameters or (jsons if not found else [])
    below = directory / QUANTIZED
    return _programs(below) if not found and below.is_dir() else found


def _refuse_parameters(path: Path) -> None:
    if path.suffix != ".pdiparams":
        return
    beside = [path.with_suffix(suffix) for suffix in _PROGRAM_SUFFIXES]
    programs = [str(program) for program in beside if program.is_file()] or ["the program"]
    raise ModelFileError(
        f"{path}: holds parameters, and no program. Give {' or '.join(programs)}, or the directory."
    )


_MOST_PROGRAM_BYTES = 2**31 - 1  # protobuf reads no more


def read_program(path: Path) -> bytes:
    """Return what a program's file holds; raise ModelFileError if it cannot be read."""
    try:
        return read_whole(path, _MOST_PROGRAM_BYTES)
    except OSError as error:
        raise ModelFileError(
            f"{path}: the model file cannot be read ({error.strerror}). "
            "Check model_dir and model_filename."
        ) from error


def _parse_program(path: Path, data: bytes) -> Any:
    program = proto.ProgramDesc()
    try:
        program.ParseFromString(data)
    except DecodeError as error:
        raise ModelFileError(
            f"{path}: is not a Paddle program, or is truncated ({error}). Export the model again."
        ) from error
    return program


def _parameter_names(program: Any) -> list[str]:
    """Return the names that Paddle's predictor loads: persistable tensors of every block."""
    names: dict[str, None] = {}
    for block in program.blocks:
        for var in block.vars:
            if var.persistable and proto.tensor_desc(var) is not None:
                names[var.name] = None
    return list(names)


def _check_parameters(model: Model) -> None:
    # Paddle's own PTQ leaves the declarations of what it quantizes as they were in float.
    undeclared = {
        name
        for op in model.ops()
        if op.type in ("quantize_linear", "dequantize_linear")
        for name in op.reads()
    }
    # Paddle-Lite wants its integers declared as floats, which it makes of them.
    undeclared.update(
        name for op in model.ops() for name in op.reads() if op.value(f"{name}_quant_scale")
    )
    for block in model.program.blocks:
        for var in block.vars:
            array = model.parameters.get(var.name)
            desc = proto.tensor_desc(var)
            if array is None or desc is None or var.name in undeclared:
                continue
            dims = tuple(desc.dims)
            if dims != array.shape or proto.numpy_dtype(desc.data_type) != array.dtype:
                raise ModelFileError(
                    f"{model.parameters_path}: parameter '{var.name}' is {array.dtype}"
                    f"{list(array.shape)}, "
                    f"but {model.model_path} declares {proto.dtype_name(desc.data_type)}"
                    f"{list(dims)}. Use the two files that were exported together."
                )
