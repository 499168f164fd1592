"""Pairs of ops that Paddle's passes for oneDNN should not fuse.

Some fused ops compute something else.

The passes take one type of activation after another. They fuse each activation into the kernel in
front of it, even if that has one already, which is then lost
(``conv_activation_onednn_fuse_pass.cc``, ``fc_act_onednn_fuse_pass.cc``). So an activation is fused
wrongly if it follows one of an earlier type. If a kernel of the program has an activation already,
any that follows is fused wrongly, as is a bias (``conv_bias_onednn_fuse_pass.cc``).
Convolutions take the activation behind their concatenation, whatever else reads their outputs
(``FuseConvConcatAct``).

Others are slow. Where a mask is added to a product of four dimensions, and is broadcast, the fused
kernel is a reference kernel of oneDNN: it takes ten times as long as all else in a decoder
(``matmul_elementwise_add_onednn_fuse_pass.cc``).

The passes do not fuse two ops if a third one reads the tensor between them (``ValidateByNodeRole``
in ``graph_pattern_detector.cc``). But a relu goes into the batch_norm in front of it even so, and
the third one finds no tensor (``batch_norm_act_fuse_pass.cc``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from . import proto
from .model import Model, copy_model
from .op import Op, make_op, ops_of, replace_ops


class _Unfit(NamedTuple):
    """An op that should not be fused into the kernel in front of it."""

    position: int
    source: str  # the tensor between them
    is_wrong: bool  # otherwise it is slow
    is_read_elsewhere: bool = False  # the tensor


class _Kernel(NamedTuple):
    """What the passes fuse into a kernel."""

    activations: tuple[str, ...]  # op types, in the order of the passes
    takes: Mapping[str, str]  # op types fused before an activation, and the resulting kernel


class _Fused(NamedTuple):
    """A kernel of `_KERNELS`, with all that the passes fuse into it up to a tensor."""

    kernel: str
    first_lost: int | None = None  # the first of its activations that is fused wrongly
    is_of_heads: bool = False  # whether all that the kernel reads has four dimensions
    is_read_once: bool = False  # whether one op reads the tensor, and reads it once


def misfused(model: Model) -> list[str]:
    """Return the tensors between ops that Paddle fuses wrongly under oneDNN."""
    return [one.source for found in _unfit(model) for one in found if one.is_wrong]


def keep_apart(model: Model) -> None:
    """Change the program of ``model`` so that Paddle's passes for oneDNN fuse well.

    An op that takes its shape reads the tensor between them as well. It costs a microsecond and
    runs everywhere. A tensor that others read is copied.
    """
    _keep_apart(model, _unfit(model))


def kept_apart(model: Model) -> Model:
    """Return a copy that `keep_apart` has changed, or ``model`` if there is nothing to change."""
    unfit = _unfit(model)
    if not any(unfit):
        return model
    made = copy_model(model)
    _keep_apart(made, unfit)
    return made


def _keep_apart(model: Model, unfit: Sequence[Sequence[_Unfit]]) -> None:
    dims = model.dims()
    for block, found in zip(model.program.blocks, unfit):
        if found:
            _put_between(block, found, dims)


def _unfit(model: Model) -> list[list[_Unfit]]:
    """Return the ops that should not be fused, per block."""
    passes = _Passes(model)
    return [list(passes.unfit(block)) for block in model.program.blocks]


def _put_between(block: Any, found: Sequence[_Unfit], dims: Mapping[str, Sequence[int]]) -> None:
    """Put an op in front of each of ``found`` that reads the shape of the tensor, or copies it."""
    ops, unfit = [], {one.position: one for one in found}
    for position, op in enumerate(ops_of(block)):
        made = op.copy()
        one = unfit.get(position)
        if one is not None and one.is_read_elsewhere:
            output = f"{one.source}.{position}.kept_apart"
            (var,) = (var for var in block.vars if var.name == one.source)
            proto.add_var(block, output, proto.tensor_desc(var).data_type, dims[one.source])
            ops.append(make_op("scale", {"X": [one.source]}, {"Out": [output]}, _UNCHANGED))
            made.rename_inputs({one.source: output})
        elif one is not None:
            output = f"{one.source}.kept_apart"
            proto.add_var(block, output, proto.INT32, [len(dims[one.source])])
            ops.append(make_op("shape", {"Input": [one.source]}, {"Out": [output]}, {}))
        ops.append(made)
    replace_ops(block, ops)


_UNCHANGED = {"scale": 1.0, "bias": 0.0, "bias_after_scale": True}


class _Passes:
    """Paddle's passes for oneDNN, as far as they fuse activations and biases."""

    def __init__(self, model: Model) -> None:
        self._constants = {
            var.name for block in model.program.blocks for var in block.vars if var.persistable
        }
        self._dims = model.dims()

    def unfit(self, block: Any) -> Iterator[_Unfit]:
        """Yield the ops that should not be fused into the kernels in front of them."""
        reads = _reads(block)
        fused: dict[str, _Fused] = {}
        for position, op in enumerate(ops_of(block)):
            made = self._started(op, fused)
            for name in op.reads():
                before = fused.get(name)
                if before is None:
                    continue
                if not before.is_read_once:
                    if before.kernel == "normalization" and op.type == "relu":
                        yield _Unfit(position, name, is_wrong=True, is_read_elsewhere=True)
                elif self._is_misfused(op, before):
                    yield _Unfit(position, name, is_wrong=True)
                elif self._is_slow(op, name, before):
                    yield _Unfit(position, name, is_wrong=False)
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
        first_lost = 0 if op.attr("fuse_activation", "") else None
        ranks = {len(self._dims.get(name, ())) for name in op.reads()}
        return _Fused(_STARTS[op.type], first_lost, ranks == {_WITH_HEADS})

    def _taken(self, op: Op, before: _Fused) -> _Fused | None:
        """Return the kernel with an op fused into it, None if the op is not fused."""
        kernel = _KERNELS[before.kernel]
        if before.first_lost is not None:
            return None
        if op.type in kernel.takes:
            return before._replace(kernel=kernel.takes[op.type])
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

    def _is_slow(self, op: Op, source: str, before: _Fused) -> bool:
        """Return whether a fused product would be one of oneDNN's reference kernels."""
        is_product = before.kernel in ("product", "scaled product") and before.is_of_heads
        if op.type != "elementwise_add" or not is_product:
            return False
        others = [self._dims.get(name) for name in op.reads() if name != source]
        return others != [self._dims.get(source)]

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


_WITH_HEADS = 4
"""The dimensions of attention's products: samples, heads, rows, columns."""

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
    # matmul_v2_scale_fuse_pass.cc: a bias or an activation is not fused behind a scale.
    "product": _Kernel((), {"elementwise_add": "biased product", "scale": "scaled product"}),
    "scaled product": _Kernel((), {"elementwise_add": "sum"}),
    "sum": _Kernel((), {}),
    "biased product": _Kernel(_ACTIVATIONS, {"relu": "fc"}),  # fc_fuse_pass.cc
    "fc": _Kernel(_ACTIVATIONS, {}),
    "normalization": _Kernel((), {}),
}
_STARTS = {
    **dict.fromkeys(("conv2d", "depthwise_conv2d", "fused_conv2d"), "convolution"),
    **dict.fromkeys(("mul", "matmul", "matmul_v2"), "product"),
    "fc": "fc",
    "batch_norm": "normalization",
}
