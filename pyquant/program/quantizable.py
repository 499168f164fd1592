"""Which ops can be quantized, and where their activation, weight and channels are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..errors import SettingError, UnsupportedError
from ..settings import check_list
from . import proto
from .model import Model


class QuantizableOp(NamedTuple):
    """How an op type takes a weight.

    Attributes:
        activation: the input slot of the activation.
        weight: the input slot of the weight.
        channel_axis: the weight's axis of output channels (rows of an embedding).
        transpose: the attribute that swaps the weight's last two axes, if there is one.
        takes_indices: whether the activation holds indices, which are never quantized.
    """

    activation: str
    weight: str
    channel_axis: int
    transpose: str | None = None
    takes_indices: bool = False


QUANTIZABLE_OPS = {
    "conv2d": QuantizableOp("Input", "Filter", 0),
    "depthwise_conv2d": QuantizableOp("Input", "Filter", 0),
    "conv2d_transpose": QuantizableOp("Input", "Filter", 1),
    "mul": QuantizableOp("X", "Y", -1),
    "matmul": QuantizableOp("X", "Y", -1, "transpose_Y"),
    "matmul_v2": QuantizableOp("X", "Y", -1, "trans_y"),
    "lookup_table_v2": QuantizableOp("Ids", "W", 0, takes_indices=True),
}

CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
"""The op types that convolve an image by a filter [outputs, inputs / groups, height, width]."""

WEIGHT_ONLY_OP_TYPES = list(QUANTIZABLE_OPS)
ACTIVATION_OP_TYPES = [name for name, op in QUANTIZABLE_OPS.items() if not op.takes_indices]


@dataclass(frozen=True)
class WeightedOp:
    """One op of a program whose weight can be quantized.

    Attributes:
        block: index of its block.
        position: its index among the block's ops.
        op_type: as ``"conv2d"``.
        activation: name of the activation input.
        weight: name of the weight parameter.
        channel_axis: the weight's axis of output channels, not negative.
        output: name of the op's first output, by which messages call the op.
    """

    block: int
    position: int
    op_type: str
    activation: str
    weight: str
    channel_axis: int
    output: str

    def desc(self, model: Model) -> Any:
        """Return its ``OpDesc`` in the program that it is of."""
        return model.program.blocks[self.block].ops[self.position]


@dataclass(frozen=True)
class FloatOp:
    """An op that stays in float.

    Attributes:
        op_type: as ``"matmul_v2"``.
        name: name of its first output.
        reason: why it stays in float.
    """

    op_type: str
    name: str
    reason: str


def find_weighted_ops(
    model: Model, op_types: Collection[str], skip_tensors: Collection[str] = ()
) -> tuple[list[WeightedOp], list[FloatOp]]:
    """Return the ops of ``op_types`` with a float weight, and those that must stay in float.

    Args:
        model: a float model.
        op_types: names of `QUANTIZABLE_OPS`.
        skip_tensors: an op that reads or writes one of them stays in float.

    Raises:
        SettingError: no op is left.
    """
    weighted: list[WeightedOp] = []
    kept: list[FloatOp] = []
    for block_index, position, op in model.numbered_ops():
        if op.type not in op_types:
            continue
        found = _weighted_op(model, block_index, position, op, skip_tensors)
        if isinstance(found, WeightedOp):
            weighted.append(found)
        else:
            kept.append(found)
    if not weighted:
        why = f" The first of {len(kept)}: {kept[0].reason}." if kept else ""
        raise SettingError(
            f"{model.model_path}: no op of type {', '.join(op_types)} has a weight that can be "
            f"quantized.{why} Look at the model by 'pyquant inspect'."
        )
    return weighted, kept


def located(
    model: Model, ops: Iterable[WeightedOp], outputs: Mapping[str, str]
) -> list[WeightedOp]:
    """Return ``ops`` with the positions that they have now.

    Args:
        model: whose program was edited.
        ops: of it.
        outputs: what an op writes now, by what it wrote, where that changed.
    """
    positions = {
        (block, name): position
        for block, position, op in model.numbered_ops()
        for name in proto.names(op.outputs)
    }
    found = []
    for op in ops:
        output = outputs.get(op.output, op.output)
        found.append(replace(op, position=positions[op.block, output], output=output))
    return found


def check_quantizable(model: Model, skip_tensors: Collection[str]) -> None:
    """Refuse a model that is quantized already, and names that it does not have.

    Raises:
        UnsupportedError: the model is quantized already.
        SettingError: a name of ``skip_tensors`` is not in the program.
    """
    refuse_quantized(model)
    _check_names(model, skip_tensors)


def refuse_quantized(model: Model) -> None:
    """Raise UnsupportedError if a model is quantized already."""
    scaled = {name[: -len("@scale")] for name in model.parameters if name.endswith("@scale")}
    for op in model.ops():
        is_of_integers = op.type == "cast" and not scaled.isdisjoint(proto.names(op.inputs))
        if is_of_integers or op.type in _INT8_OPS or op.type.startswith("fake_"):
            raise UnsupportedError(
                f"{model.model_path}: it has '{op.type}' ops"
                f"{' of integer weights' if is_of_integers else ''}, so it is quantized already. "
                "Give the float model."
            )


_INT8_OPS = ("quantize_linear", "dequantize_linear", "quantize", "dequantize")


def _check_names(model: Model, names: Collection[str]) -> None:
    check_list("skip_tensor_list", names)
    known = {var.name for block in model.program.blocks for var in block.vars}
    for name in names:
        if name not in known:
            raise SettingError(
                f"skip_tensor_list: {model.model_path} has no tensor '{name}'. "
                "'pyquant inspect' lists the names."
            )


def _weighted_op(
    model: Model, block: int, position: int, op: Any, skip_tensors: Collection[str]
) -> WeightedOp | FloatOp:
    kind = QUANTIZABLE_OPS[op.type]
    output = next(proto.names(op.outputs), "?")
    weights = proto.arguments(op.inputs, kind.weight)
    weight = weights[0] if weights else ""
    for name in (*proto.names(op.inputs), *proto.names(op.outputs)):
        if name in skip_tensors:
            return FloatOp(op.type, output, f"'{name}' is in skip_tensor_list")
    array = model.parameters.get(weight)
    if array is None:
        return FloatOp(op.type, output, f"its input {kind.weight} is computed, it is not a weight")
    if array.dtype.kind not in "fu" or array.dtype.itemsize not in (2, 4):
        return FloatOp(op.type, output, f"weight '{weight}' is {array.dtype}, not fp32/fp16/bf16")
    if array.ndim < 2:
        return FloatOp(op.type, output, f"weight '{weight}' has {array.ndim} dimension(s)")
    transposed = kind.transpose is not None and proto.attribute(op, kind.transpose, False)
    axis = (kind.channel_axis - int(transposed)) % array.ndim
    activation = proto.arguments(op.inputs, kind.activation)[0]
    return WeightedOp(block, position, op.type, activation, weight, axis, output)
