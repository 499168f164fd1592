"""Pairs of ops that Paddle's passes for oneDNN fuse wrongly: the fused op computes something else.

The passes take one type of activation after another. They fuse each activation into the kernel in
front of it, even if that has one already, which is then lost
(``conv_activation_onednn_fuse_pass.cc``, ``fc_act_onednn_fuse_pass.cc``). So an activation is fused
wrongly if it follows one of an earlier type. If a kernel of the program has an activation already,
any that follows is fused wrongly, as is a bias (``conv_bias_onednn_fuse_pass.cc``).
Convolutions take the activation behind their concatenation, whatever else reads their outputs
(``FuseConvConcatAct``).

The passes do not fuse two ops if a third one reads the tensor between them (``ValidateByNodeRole``
in ``graph_pattern_detector.cc``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from . import proto
from .model import Model, copy_model
from .op import Op, make_op, ops_of, replace_ops


class _Kernel(NamedTuple):
    """What the passes fuse into a kernel."""

    activations: tuple[str, ...]  # op types, in the order of the passes
    takes: Mapping[str, str]  # op types fused before an activation, and the resulting kernel


class _Fused(NamedTuple):
    """A kernel of `_KERNELS`, with all that the passes fuse into it up to a tensor."""

    kernel: str
    first_lost: int | None = None  # the first of its activations that is fused wrongly
    is_read_once: bool = False  # whether one op reads the tensor, and reads it once


def misfused(model: Model) -> list[str]:
    """Return the tensors between ops that Paddle fuses wrongly under oneDNN."""
    return [name for found in _misfusions(model) for name in found.values()]


def keep_apart(model: Model) -> None:
    """Change the program of ``model`` so that Paddle fuses no ops wrongly under oneDNN.

    An op that takes its shape reads the tensor between them as well. It costs a microsecond and
    runs everywhere.
    """
    dims = model.dims()
    for block, found in zip(model.program.blocks, _misfusions(model)):
        if found:
            _read_shapes(block, found, dims)


def kept_apart(model: Model) -> Model:
    """Return a copy that `keep_apart` has changed, or ``model`` if there is nothing to change."""
    if not misfused(model):
        return model
    made = copy_model(model)
    keep_apart(made)
    return made


def _misfusions(model: Model) -> list[dict[int, str]]:
    """Return the tensor in front of each wrongly fused op, by the op's position, per block."""
    passes = _Passes(model)
    return [dict(passes.misfusions(block)) for block in model.program.blocks]


def _read_shapes(block: Any, found: Mapping[int, str], dims: Mapping[str, Sequence[int]]) -> None:
    """Put an op that reads the shape of a tensor before each op at a position of ``found``."""
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
    """Paddle's passes for oneDNN, as far as they fuse activations and biases."""

    def __init__(self, model: Model) -> None:
        self._constants = {
            var.name for block in model.program.blocks for var in block.vars if var.persistable
        }

    def misfusions(self, block: Any) -> Iterator[tuple[int, str]]:
        """Yield the position of each wrongly fused op, and the tensor in front of it."""
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
        """Return the kernel that an op starts."""
        if op.type == "concat":
            return _joined([fused.get(name) for name in op.reads()])
        if op.type not in _STARTS:
            return None
        # The relu of an fc is an attribute of its own, and comes in front of the activation.
        return _Fused(_STARTS[op.type], 0 if op.attr("fuse_activation", "") else None)

    def _taken(self, op: Op, before: _Fused) -> _Fused | None:
        """Return the kernel with an op fused into it, None if the op is not fused."""
        kernel = _KERNELS[before.kernel]
        if before.first_lost is not None:
            return None
        if op.type in kernel.takes:
            return _Fused(kernel.takes[op.type])
        if op.type in kernel.activations:
            return before._replace(first_lost=kernel.activations.index(op.type) + 1)
        return None

    def _is_misfused(self, op: Op, before: _Fused) -> bool:
        """Return whether an op is fused as if the kernel had no activation, though it has one."""
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
    """Return the kernel of a concatenation whose parts all take the activation behind it."""
    known = [part for part in parts if part is not None and part.kernel == "convolution"]
    if not known or len(known) < len(parts):
        return None
    lost = [0 if part.first_lost is None else part.first_lost for part in known]
    is_right = all(part.first_lost is None and part.is_read_once for part in known)
    return _Fused("concatenation", None if is_right else max(lost))


# GetSupportedActivations in activation_onednn_fuse_pass.h. The pass for convolutions leaves out
# sqrt, and refuses mish, since it does not know one of its attributes.
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
