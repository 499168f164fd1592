"""Pairs of ops of which Paddle's passes for oneDNN make one that computes something else.

The passes go through the activations, one type after another, and fuse each into the kernel in
front of it, whether that has an activation already or not: the earlier one is lost
(``conv_activation_onednn_fuse_pass.cc``, ``fc_act_onednn_fuse_pass.cc``). So an activation is fused
wrongly behind one of a type that came before. Behind one that stands in the program as part of a
kernel any is, and so is an addition to each channel (``conv_bias_onednn_fuse_pass.cc``). And
convolutions take the activation behind their concatenation, whoever else reads them
(``FuseConvConcatAct``).

The passes leave alone what is between two ops if a third one reads it (``ValidateByNodeRole`` in
``graph_pattern_detector.cc``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from . import proto
from .model import Model, copy_model
from .op import Op, make_op, ops_of, replace_ops


class _Kernel(NamedTuple):
    """What the passes fuse into a kernel.

    Attributes:
        activations: op types, in the order in which the passes go through them.
        takes: op types that become part of it in front of an activation, and the kernel that it is
            then.
    """

    activations: tuple[str, ...]
    takes: Mapping[str, str]


class _Fused(NamedTuple):
    """A kernel, with all that the passes fuse into it up to a tensor that it writes.

    Attributes:
        kernel: a key of `_KERNELS`.
        first_lost: the first of the kernel's activations that is fused wrongly; None if none is.
        is_read_once: whether one op reads the tensor, and reads it once.
    """

    kernel: str
    first_lost: int | None = None
    is_read_once: bool = False


def misfused(model: Model) -> list[str]:
    """Return the tensors between ops that Paddle fuses wrongly under oneDNN."""
    return [name for found in _misfusions(model) for name in found.values()]


def keep_apart(model: Model) -> None:
    """Let Paddle run those ops as they are that it would fuse wrongly under oneDNN.

    What is between them is read once more, by an op that takes its shape: that costs a microsecond,
    and runs everywhere.

    Args:
        model: its program is changed.
    """
    dims = model.dims()
    for block, found in zip(model.program.blocks, _misfusions(model)):
        if found:
            _read_shapes(block, found, dims)


def kept_apart(model: Model) -> Model:
    """Return ``model`` as `keep_apart` changes it, the same one if it does not."""
    if not misfused(model):
        return model
    made = copy_model(model)
    keep_apart(made)
    return made


def _misfusions(model: Model) -> list[dict[int, str]]:
    """Return what is in front of each op that is fused wrongly, by its position, by block."""
    passes = _Passes(model)
    return [dict(passes.misfusions(block)) for block in model.program.blocks]


def _read_shapes(block: Any, found: Mapping[int, str], dims: Mapping[str, Sequence[int]]) -> None:
    """Put an op that reads the shape of a tensor in front of the ops at some positions."""
    ops = []
    for position, op in enumerate(ops_of(block)):
        if position in found:
            name = found[position]
            output = f"{name}.kept_apart"
            proto.add_var(block, output, proto.INT32, [len(dims[name])])
            ops.append(make_op("shape", {"Input": [name]}, {"Out": [output]}, {}))
        ops.append(op.copy())
    replace_ops(block, ops)


class _Passes:
    """Paddle's passes for oneDNN, as far as they fuse what changes values in place."""

    def __init__(self, model: Model) -> None:
        self._constants = {
            var.name for block in model.program.blocks for var in block.vars if var.persistable
        }

    def misfusions(self, block: Any) -> Iterator[tuple[int, str]]:
        """Yield the position of each op that is fused wrongly, and what is in front of it."""
        reads = _reads(block)
        fused: dict[str, _Fused] = {}
        for position, op in enumerate(ops_of(block)):
            made = self._started(op, fused)
            for name in op.reads():
                before = fused.get(name)
                if before is None or not before.is_read_once:
                    continue
                if self._is_misfused(op, before):
                    yield position, name
                else:
                    made = self._taken(op, before) or made
            for name in op.writes():
                fused.pop(name, None)
                if made is not None:
                    fused[name] = made._replace(is_read_once=reads[name, position] == 1)

    def _started(self, op: Op, fused: Mapping[str, _Fused]) -> _Fused | None:
        """Return the kernel that an op is by itself."""
        if op.type == "concat":
            return _joined([fused.get(name) for name in op.reads()])
        if op.type not in _STARTS:
            return None
        # The relu of an fc is an attribute of its own, and comes in front of the activation.
        return _Fused(_STARTS[op.type], 0 if op.attr("fuse_activation", "") else None)

    def _taken(self, op: Op, before: _Fused) -> _Fused | None:
        """Return the kernel that takes an op in, None if it does not."""
        kernel = _KERNELS[before.kernel]
        if before.first_lost is not None:
            return None
        if op.type in kernel.takes:
            return _Fused(kernel.takes[op.type])
        if op.type in kernel.activations:
            return before._replace(first_lost=kernel.activations.index(op.type) + 1)
        return None

    def _is_misfused(self, op: Op, before: _Fused) -> bool:
        """Return whether an op is fused as if the kernel had no activation, and it has one."""
        kernel = _KERNELS[before.kernel]
        if before.first_lost is None:
            return False
        if op.type in kernel.activations:
            return kernel.activations.index(op.type) >= before.first_lost
        is_bias = op.type in kernel.takes and self._adds_constant(op)
        return before.first_lost == 0 and is_bias

    def _adds_constant(self, op: Op) -> bool:
        is_constant = not self._constants.isdisjoint(op.reads())
        return op.type == "elementwise_add" and is_constant


def _reads(block: Any) -> Counter[tuple[str, int]]:
    """Count how often each tensor is read, by its name and the position of the op that wrote it."""
    writers: dict[str, int] = {}
    reads: Counter[tuple[str, int]] = Counter()
    for position, op in enumerate(ops_of(block)):
        reads.update((name, writers.get(name, -1)) for name in op.reads())
        writers.update(dict.fromkeys(op.writes(), position))
    return reads


def _joined(parts: Sequence[_Fused | None]) -> _Fused | None:
    """Return what a concatenation is, all parts of which take the activation behind it."""
    known = [part for part in parts if part is not None and part.kernel == "convolution"]
    if not known or len(known) < len(parts):
        return None
    lost = [0 if part.first_lost is None else part.first_lost for part in known]
    is_right = all(part.first_lost is None and part.is_read_once for part in known)
    return _Fused("concatenation", None if is_right else max(lost))


# GetSupportedActivations in activation_onednn_fuse_pass.h. The pass for convolutions leaves out
# sqrt, and refuses mish, of which it does not know an attribute.
_ACTIVATIONS = (
    *("abs", "clip", "gelu", "hard_sigmoid", "hard_swish", "leaky_relu", "mish", "relu", "relu6"),
    *("sigmoid", "sqrt", "swish", "tanh"),
)
_OF_CONVOLUTIONS = tuple(name for name in _ACTIVATIONS if name not in ("mish", "sqrt"))
_KERNELS = {
    "convolution": _Kernel(
        _OF_CONVOLUTIONS, dict.fromkeys(("elementwise_add", "batch_norm"), "convolution")
    ),
    "concatenation": _Kernel(_OF_CONVOLUTIONS, {}),
    "product": _Kernel((), {"elementwise_add": "biased product"}),
    "biased product": _Kernel(_ACTIVATIONS, {"relu": "fc"}),  # fc_fuse_pass.cc
    "fc": _Kernel(_ACTIVATIONS, {}),
}
_STARTS = {
    **dict.fromkeys(("conv2d", "depthwise_conv2d", "fused_conv2d"), "convolution"),
    **dict.fromkeys(("mul", "matmul", "matmul_v2"), "product"),
    "fc": "fc",
}
