"""The result of a quantization."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .plain import plain
from .program.grouped_weights import AnyWeight, GroupedWeight
from .program.quantizable import FloatOp, WeightedOp
from .progress import logger
from .shown import as_html, shown
from .verification.outcome import Verification

FLOAT, PADDLE_LITE, ONNX = "Paddle", "Paddle-Lite", "ONNX"
"""Targets of dynamic mode: Paddle's Predictor, which computes in float, and other runtimes."""

SLOWER_NOTE = "int8 took longer than float: plan_for='here' measures which ops are faster in float"

_BY_PADDLE = """\
pyquant run {quoted} --data DATA
predictor = pyquant.make_predictor("{program}")  # in Python"""
_BY_LITE = """\
paddle_lite_opt --model_file={quoted} --param_file={quoted_parameters} --valid_targets=arm \
--optimize_out=model"""
_TO_RUN = {
    "TensorRT": """\
config = paddle.inference.Config("{program}", "{parameters}")
config.enable_use_gpu(1000, 0)
config.enable_tensorrt_engine(1 << 30, 1, 3, paddle.inference.PrecisionType.Int8, False, False)
predictor = paddle.inference.create_predictor(config)""",
    ONNX: """\
session = onnxruntime.InferenceSession("{program}")
session.run(None, feed)  # a dict of arrays by the inputs' names""",
    "OpenVINO": """\
compiled = openvino.Core().compile_model("{program}", "CPU")
compiled(feed)  # a dict of arrays by the inputs' names""",
    "ARM": _BY_LITE,
    PADDLE_LITE: _BY_LITE,
}


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor that the new model holds or computes as integers.

    Attributes:
        name: its name in the program.
        kind: ``"weight"`` or ``"activation"``.
        op_types: the types of the ops that read it quantized.
        bits: of its integers.
        axis: the axis of the channels; None for one threshold per tensor.
        threshold: the magnitude beyond which values are clipped: a float, or float32[channels].
        step: between neighbouring integers, if they do not map the threshold to 2^(bits-1)-1.
        group_size: how many inputs of a channel share a step; None for whole channels. The
            threshold is then the greatest of all groups.
    """

    name: str
    kind: str
    op_types: tuple[str, ...]
    bits: int
    axis: int | None
    threshold: float | NDArray[Any]
    step: float | None = None
    group_size: int | None = None

    @property
    def scale(self) -> float | NDArray[Any]:
        """The step between neighbouring integers."""
        if self.step is not None:
            return self.step
        step: float | NDArray[Any] = self.threshold / (2 ** (self.bits - 1) - 1)
        return step


@dataclass(frozen=True, repr=False)
class QuantizationResult:
    """The outcome of `quant_post_dynamic` or `quant_post_static`.

    ``print`` shows a summary; ``to_dict`` has all of it for a file.

    Attributes:
        model_path: the quantized program.
        params_path: its combined parameters; None if each has a file of its own.
        quantized: every tensor that was quantized.
        kept_float: every op of the requested types that stays in float, and why; also ops of any
            type that read a float parameter of 64 KiB or more. Biases and normalizations take
            less.
        bytes_before: size of the source's program and parameters.
        bytes_after: size of the quantized program and parameters.
        seconds: wall time by stage, in the order of the stages.
        notes: remarks on the arguments and the data.
        test_model_path: the float twin's program, if one was asked for.
        verification: what running the quantized model showed, if it was run.
        target: what runs the result: a ``deploy_backend``, "Paddle-Lite", or "Paddle", in float.

    Example:
        >>> result = pyquant.quant_post_static(None, "float", "int8", data_loader=batches)
        >>> sorted(result.thresholds())
        ['b', 'f', 'x']
        >>> [tensor.name for tensor in result.quantized if tensor.kind == "weight"]
        ['first.w', 'second.w', 'dense.w']
        >>> result.kept_float
        []
    """

    model_path: Path
    params_path: Path | None
    quantized: list[QuantizedTensor]
    kept_float: list[FloatOp]
    bytes_before: int
    bytes_after: int
    seconds: dict[str, float]
    notes: list[str] = field(default_factory=list)
    test_model_path: Path | None = None
    verification: Verification | None = None
    target: str = FLOAT

    @property
    def how_to_run(self) -> str:
        """Lines to paste that run the result."""
        program, parameters = str(self.model_path), str(self.params_path or self.model_path.parent)
        return _TO_RUN.get(self.target, _BY_PADDLE).format(
            program=program,
            parameters=parameters,
            quoted=quote(program),
            quoted_parameters=quote(parameters),
        )

    def __str__(self) -> str:
        """Return a summary of a few lines."""
        kept = len({(op.op_type, op.name) for op in self.kept_float})
        lines = [
            f"quantized {self._counted}; {kept} ops kept in float",
            f"size {self.bytes_before:,} -> {self.bytes_after:,} bytes "
            f"({self.bytes_after / self.bytes_before:.2f})",
            "time " + ", ".join(f"{stage} {value:.2f} s" for stage, value in self.seconds.items()),
            f"model {self.model_path}",
        ]
        for (op_type, reason), ops in self._kept_by_reason().items():
            more = f" and {len(ops) - 1} more" if len(ops) > 1 else ""
            size = sum({op.parameter: op.bytes for op in ops}.values())
            of = f" ({size:,} bytes)" if size else ""
            lines.append(f"float {op_type} '{ops[0].name}'{more}{of}: {reason}{_errors(ops)}")
        if self.verification is not None:
            lines += str(self.verification).split("\n")
            if self.verification.kernels:
                lines.append(f"note  {SLOWER_NOTE}")
        lines += [f"note  {note}" for note in self.notes]
        lines += ["To run:", *(f"  {line}" for line in self.how_to_run.splitlines())]
        return "\n".join(map(shown, lines))

    def __repr__(self) -> str:
        """Say in one line what it is; ``print`` says it all."""
        return f"<QuantizationResult: {self._counted}, {self.model_path}>"

    def _repr_html_(self) -> str:
        """Show the summary in a notebook."""
        return as_html(str(self))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON has it: paths as strings, arrays as lists, NaN as None."""
        found: dict[str, Any] = plain(self)
        if self.verification is not None:
            found["verification"] = self.verification.to_dict()
        return found

    @property
    def _counted(self) -> str:
        kinds = Counter(tensor.kind for tensor in self.quantized)
        return ", ".join(f"{count} {kind}s" for kind, count in kinds.items()) or "nothing"

    def _kept_by_reason(self) -> dict[tuple[str, str], list[FloatOp]]:
        kept: dict[tuple[str, str], list[FloatOp]] = {}
        for op in self.kept_float:
            kept.setdefault((op.op_type, op.reason), []).append(op)
        return kept

    def thresholds(self) -> dict[str, float]:
        """The activation thresholds by tensor name."""
        return {
            tensor.name: float(np.max(tensor.threshold))
            for tensor in self.quantized
            if tensor.kind == "activation"
        }


def _errors(ops: Iterable[FloatOp]) -> str:
    """Return the least and the greatest error of ops, or nothing if they have none."""
    errors = [op.error for op in ops if op.error is not None]
    ends = dict.fromkeys(f"{end(errors):.2%}" for end in (min, max) if errors)
    return f" by {' to '.join(ends)}" if ends else ""


class Stopwatch:
    """Wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        logger.info("%s: %.2f s", stage, now - self._last)
        self._last = now


def weight_tensors(
    weights: Mapping[str, AnyWeight], ops: Iterable[WeightedOp]
) -> list[QuantizedTensor]:
    """Describe ``weights`` and the ``ops`` that read them."""
    readers = readers_by_tensor((op.weight, op.op_type) for op in ops)
    return [_weight_tensor(weight, readers[name]) for name, weight in weights.items()]


def _weight_tensor(weight: AnyWeight, op_types: tuple[str, ...]) -> QuantizedTensor:
    described = weight.name, "weight", op_types, weight.bits
    if isinstance(weight, GroupedWeight):
        return QuantizedTensor(*described, None, weight.threshold, group_size=weight.groups.size)
    if weight.axis < 0:
        return QuantizedTensor(*described, None, float(weight.threshold[0]))
    return QuantizedTensor(*described, weight.axis, weight.threshold)


def readers_by_tensor(reads: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Collect the op types that read each tensor from pairs of tensor and op type."""
    readers: dict[str, dict[str, None]] = {}
    for name, op_type in reads:
        readers.setdefault(name, {})[op_type] = None
    return {name: tuple(op_types) for name, op_types in readers.items()}


def file_bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
