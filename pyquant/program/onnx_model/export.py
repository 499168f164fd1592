"""Writes a model as ONNX, by the package ``onnx``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ...errors import SettingError, UnsupportedError
from ..grouped_weights import AnyWeight
from ..model import Model, copy_model, refuse_overwriting_source
from ..op import Op
from ..op_protos import complete
from ..output_files import OutputFiles
from ..parameters import Array, DerivedTensor, Tensor
from .builder import Builder, Node, Step
from .dtypes import onnx_dtype, tensor_bytes, tensor_type
from .table import TABLE
from .weights import dequantized

SUFFIX = ".onnx"
OPSETS = range(17, 25)
"""The versions of ONNX's operators that can be written."""

OPSET = 17
"""The default, which ONNX Runtime knows since 1.12, OpenVINO since 2023.0, TensorRT since 8.6."""

_NO_WEIGHTS: Mapping[str, AnyWeight] = MappingProxyType({})

# What a protobuf message may hold, with room for all but the tensors.
LARGEST_FILE = 2**31 - 2**24

_SMALL = 1024  # bytes of a tensor that stays in the program's file
_PAGE = 4096  # so that a runtime can map a tensor


def is_onnx(path: str | Path) -> bool:
    """Return whether a path names an ONNX file."""
    return Path(path).suffix.lower() == SUFFIX


def check_opset(opset: int) -> None:
    """Raise SettingError for an opset that cannot be written."""
    if opset not in OPSETS:
        raise SettingError(f"opset={opset}: expected {OPSETS[0]} to {OPSETS[-1]}.")


@dataclass(frozen=True)
class OnnxModel:
    """A model in ONNX, but for the values of its tensors.

    Attributes:
        proto: the ``ModelProto``; its graph lacks the initializers.
        tensors: the initializers by name, in their order.
        source: the model that it was made of.
    """

    proto: Any
    tensors: Mapping[str, Tensor]
    source: Model

    def serialized(self) -> bytes:
        """Return the model as one message, for models that fit into one."""
        whole = _onnx().ModelProto()
        whole.CopyFrom(self.proto)
        for name, tensor in self.tensors.items():
            _add_initializer(whole, name, tensor).raw_data = b"".join(_bytes(tensor))
        found: bytes = whole.SerializeToString()
        return found


def check_rows(model: Model) -> None:
    """Raise UnsupportedError, which names the ops, if the model has ops without a row."""
    missing: dict[str, Op] = {}
    for op in model.ops():
        if op.type not in (*TABLE, "feed", "fetch"):
            missing.setdefault(op.type, op)
    if missing:
        named = ", ".join(
            f"{kind} -> '{next(iter(op.writes()), '?')}'" for kind, op in missing.items()
        )
        raise UnsupportedError(
            f"{model.model_path}: pyquant has no form in ONNX for {named}. "
            "Write a .pdmodel instead, by another deploy_backend in static mode, or export the "
            "model without these ops."
        )


def check_writable(model: Model) -> None:
    """Raise UnsupportedError, as `to_onnx` does, if a model cannot be written; change nothing."""
    _onnx()
    check_rows(model)
    _built(copy_model(model), OPSET, _NO_WEIGHTS)


def to_onnx(
    model: Model, opset: int = OPSET, weights: Mapping[str, AnyWeight] = _NO_WEIGHTS
) -> OnnxModel:
    """Write a program as ONNX; its parameters are made where they are pending.

    Inputs and outputs keep their names, and lengths that are not fixed get names. ``weights`` are
    variables that ops read and none writes, in place of which integers are stored.

    Raises:
        UnsupportedError: an op cannot be written, which the message names, or the package ``onnx``
            is not installed.
        SettingError: the opset is out of range.
    """
    check_opset(opset)
    onnx = _onnx()
    check_rows(model)
    model.settle()
    builder = _built(model, opset, weights)
    outputs = _named_outputs(builder)
    nodes = _used(builder.nodes, outputs)
    read = {name for node in nodes for name in node.inputs} | set(outputs)
    tensors = {**model.tensors(), **builder.constants, **builder.stored}
    tensors = {name: tensor for name, tensor in tensors.items() if name in read}
    graph = onnx.helper.make_graph(
        [_node(onnx, node) for node in nodes],
        model.model_path.stem or "model",
        [_value_info(onnx, builder, var.name) for var in model.feeds],
        [_value_info(onnx, builder, name) for name in outputs],
    )
    versions = [onnx.helper.make_opsetid("", opset)]
    made = onnx.helper.make_model(
        graph,
        producer_name="pyquant",
        opset_imports=versions,
        ir_version=onnx.helper.find_min_ir_version_for(versions),
    )
    return OnnxModel(made, tensors, model)


def save_onnx(model: Model, path: str | Path, opset: int = OPSET) -> tuple[Path, ...]:
    """Write a model as an ``.onnx`` file, whole or not at all.

    Tensors of more than 2 GB together go into a second file, of the same name with ``.data``.

    Returns:
        The paths of the files: the program first.

    Raises:
        UnsupportedError: as `to_onnx`.
        SettingError: the opset is out of range, or a file would overwrite one of the model's.
        OutputError: it cannot be written; nothing has changed on the disk.

    Example:
        >>> files = pyquant.save_onnx(pyquant.load_model("float"), "model.onnx")
    """
    path = Path(path)
    written = to_onnx(model, opset)
    with OutputFiles(path.parent) as files:
        return write_onnx(files, written, path)


def write_onnx(files: OutputFiles, written: OnnxModel, path: Path) -> tuple[Path, ...]:
    """Write an ONNX model together with other files."""
    beside = path.with_name(path.name + ".data")
    refuse_overwriting_source(written.source, (path, beside))
    size = sum(tensor_bytes(tensor) for tensor in written.tensors.values())
    if size <= LARGEST_FILE:
        with files.open(path) as stream:
            stream.write(written.serialized())
        return (path,)
    program = _onnx().ModelProto()
    program.CopyFrom(written.proto)
    with files.open(beside) as stream:
        end = 0
        for name, tensor in written.tensors.items():
            held = _add_initializer(program, name, tensor)
            if tensor_bytes(tensor) <= _SMALL:
                held.raw_data = b"".join(_bytes(tensor))
                continue
            start = -(-end // _PAGE) * _PAGE
            stream.write(bytes(start - end))
            for chunk in _bytes(tensor):
                stream.write(chunk)
            end = start + tensor_bytes(tensor)
            _point_to(held, beside.name, start, tensor_bytes(tensor))
    with files.open(path) as stream:
        stream.write(program.SerializeToString())
    return path, beside


def _point_to(held: Any, file: str, start: int, length: int) -> None:
    held.data_location = _onnx().TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", start), ("length", length)):
        held.external_data.add(key=key, value=str(value))


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise UnsupportedError(
            "ONNX files are written by the package onnx, which is not installed. "
            "Install pyquant with its extra 'onnx'."
        ) from error
    return onnx


def _built(model: Model, opset: int, weights: Mapping[str, AnyWeight]) -> Builder:
    if len(model.program.blocks) > 1:
        raise UnsupportedError(
            f"{model.model_path}: the program has branches or loops, which pyquant does not write "
            "as ONNX. Write a .pdmodel instead, or export the model without them."
        )
    builder = Builder(model, opset)
    given = (*(var.name for var in model.feeds), *model.parameters, *model.derived)
    for name in dict.fromkeys(given):  # a derived tensor replaces a parameter
        builder.values[name] = builder.unused(name)
    for op in model.ops():
        if op.type not in ("feed", "fetch"):
            whole = op.copy()
            complete(whole)
            step = Step(builder, whole)
            step.check_dtypes()
            for name in whole.reads():
                if name in weights and name not in builder.values:
                    step.hold(name, dequantized(step, weights[name]))
            TABLE[op.type](step)
    return builder


def _named_outputs(builder: Builder) -> list[str]:
    """Let each output be computed under its name in the program; return the names."""
    names = list(dict.fromkeys(builder.model.fetches))
    feeds = {var.name for var in builder.model.feeds}
    for name in names:
        value = builder.values[name]
        if (
            value == name
            and name not in feeds
            and any(name in node.outputs for node in builder.nodes)
        ):
            continue
        taken = {output: node for node in builder.nodes for output in node.outputs}
        if name in taken:  # an earlier value of a variable that is written again
            renamed = builder.unused(name)
            for node in builder.nodes:
                node.inputs = [renamed if one == name else one for one in node.inputs]
                node.outputs = [renamed if one == name else one for one in node.outputs]
        builder.nodes.append(Node("Identity", [value], [name], {}))
        builder.values[name] = name
    return names


def _used(nodes: list[Node], outputs: list[str]) -> list[Node]:
    """Return the nodes that outputs depend on."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    return kept[::-1]


def _node(onnx: Any, node: Node) -> Any:
    name = next(output for output in node.outputs if output)
    return onnx.helper.make_node(
        node.op_type, node.inputs, node.outputs, name=name, **node.attributes
    )


def _value_info(onnx: Any, builder: Builder, name: str) -> Any:
    dims: list[Any] = list(builder.desc(name).dims)
    dims = [f"{name}.{axis}" if size < 0 else size for axis, size in enumerate(dims)]
    data_type = onnx_dtype(builder.data_type(name))
    return onnx.helper.make_tensor_value_info(name, data_type, dims)


def _add_initializer(model: Any, name: str, tensor: Tensor) -> Any:
    return model.graph.initializer.add(name=name, data_type=tensor_type(tensor), dims=tensor.shape)


def _bytes(tensor: Tensor) -> Iterator[Any]:
    """Yield the values of a tensor, as its file holds them."""
    chunks = tensor.chunks() if isinstance(tensor, DerivedTensor) else [tensor]
    for chunk in chunks:
        array: Array = np.ascontiguousarray(chunk, tensor.dtype)
        yield array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
