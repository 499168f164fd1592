"""Making and running Paddle's Predictor."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import kernels
from ..errors import CalibrationDataError, ModelFileError
from . import proto
from .misfusion import kept_apart
from .model import Model
from .op import Op, ops_of
from .parameters import Array, write_combined
from .running import loading, running, watch
from .silence import silenced
from .temporary import temporary_directory

_PLACEMENT_PASSES = ("onednn_placement_pass", "mkldnn_placement_pass")  # 3.x, 2.6
# Its time grows with the square of the number of ops: 5 s for a decoder of 30 layers. Without it,
# models take as long to run. In 3.x, and in 2.6.
_SLOW_PASSES = (
    "matmul_transpose_reshape_onednn_fuse_pass",
    "matmul_transpose_reshape_mkldnn_fuse_pass",
)
# They make an op of a product that has no kernel in oneDNN, which takes twice as long. Where a bias
# follows, they make an fc of both, which takes 10 % less.
_PRODUCT_PASSES = ("gpu_cpu_map_matmul_v2_to_mul_pass", "gpu_cpu_map_matmul_v2_to_matmul_pass")

See = Callable[[str, str, Any], None]
"""Takes an op's type, and the name and tensor of its output, whose memory must be read at once."""


class Optimization(Enum):
    """How far Paddle may change the program before it runs it, from most to least."""

    FUSED = "fused"
    """Ops are fused: the fastest, but tensors inside a fused op are not seen."""
    UNFUSED = "unfused"
    """Every op runs by itself, by oneDNN if it can: all is seen, 1.2 to 1.4 times slower."""
    NONE = "none"
    """Paddle's own kernels, which run anything: 3 to 7 times slower than fused."""


def all_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def make_predictor(model: Model, optimization: Optimization, threads: int) -> Any:
    """Make a Predictor for observing ``model``, which may have changed since it was read.

    ``threads`` are those of Paddle's kernels. Raises ModelFileError if Paddle cannot load it.
    """
    if optimization is Optimization.FUSED:
        model = kept_apart(model)
    return _make(model, partial(_configure, model=model, optimization=optimization), threads)


def make_int8_predictor(model: Model, threads: int) -> Any:
    """Make a Predictor that runs a quantized model by oneDNN's int8 kernels.

    As in deployment, Paddle applies every pass for the model's form. Otherwise as `make_predictor`.
    """
    with silenced():
        return _make(model, partial(_configure_int8, model=model), threads)


def cpu_config(model_path: Path, params_path: Path) -> Any:
    """Return an ``inference.Config`` for a model's files, without logging."""
    from paddle import inference

    config = inference.Config(str(model_path), str(params_path))
    config.disable_gpu()
    config.disable_glog_info()
    return config


def set_inputs(predictor: Any, feed: Mapping[str, Array]) -> None:
    """Give a Predictor the inputs of the next run."""
    for name, array in feed.items():
        predictor.get_input_handle(name).copy_from_cpu(array)


def share_inputs(predictor: Any, arrays: Mapping[str, Array]) -> None:
    """Let a Predictor read inputs of all later runs where they lie: they must stay there."""
    from paddle import CPUPlace
    from paddle.base import core

    kind = getattr(core, "DenseTensor", None) or core.LoDTensor  # 3.x, 2.6
    for name, array in arrays.items():
        tensor = kind()
        tensor.set(array, CPUPlace(), True)  # without a copy
        predictor.get_input_handle(name).share_external_data(tensor)


def run_outputs(predictor: Any, feed: Mapping[str, Array]) -> list[Array]:
    """Run one batch and return copies of the outputs."""
    set_inputs(predictor, feed)
    running()
    predictor.run()
    names = predictor.get_output_names()
    return [np.asarray(predictor.get_output_handle(name).copy_to_cpu()) for name in names]


def run_batch(
    predictor: Any, feed: Mapping[str, Array], batch: int, model: str = "the model"
) -> list[Array]:
    """As `run_outputs`; raise CalibrationDataError if Paddle fails to run the batch."""
    try:
        return run_outputs(predictor, feed)
    except Exception as error:  # Paddle raises many types
        raise run_failure(feed, batch, error, model) from error


def run_failure(
    feed: Mapping[str, Array], batch: int, error: Exception, model: str = "the model"
) -> CalibrationDataError:
    """Return the error for a batch that Paddle failed to run."""
    shapes = {name: list(array.shape) for name, array in feed.items()}
    said = _summary(error).rstrip(".")
    if "ResourceExhausted" in str(error) or "bad_alloc" in str(error):
        said += ". There is not enough memory: give smaller batches, by batch_size"
    lengths = {name: len(array) for name, array in feed.items() if array.ndim}
    if len({*lengths.values()}) > 1:
        said += f". Its inputs hold different numbers of samples: {lengths}"
    return CalibrationDataError(
        f"batch {batch}: Paddle cannot run {model} on inputs of shapes {shapes}: {said}."
    )


class Hook:
    """Shows tensors to an observer while a Predictor computes them.

    It refers to the observer only during that: Python's garbage collector does not see the hooks of
    a Predictor, so an observer that holds the Predictor would keep it forever.
    """

    def __init__(self, predictor: Any, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._see: See | None = None
        self._error: Exception | None = None
        watch(predictor)
        predictor.register_output_hook(self._show)

    @contextmanager
    def running(
        self, see: See, feed: Mapping[str, Array], batch: int, model: str = "the model"
    ) -> Iterator[None]:
        """Show the tensors of a batch, which the ``with`` block runs.

        Errors of ``see`` are raised unchanged; CalibrationDataError if Paddle fails to run a batch.
        """
        self._see = see
        try:
            yield
        except Exception as error:
            if self._error is not None:
                # Not from ``error``: if both are the same, it would hold itself, and the tensor.
                raise self._error from None
            raise run_failure(feed, batch, error, model) from error
        finally:
            self._see = self._error = None

    def _show(self, op_type: str, name: str, tensor: Any) -> None:
        if self._see is None or name not in self._names:
            return
        try:
            if tensor._is_initialized() or 0 in tensor.shape:
                self._see(op_type, name, tensor)
        except Exception as error:
            # Paddle may not pass on a hook's exception unchanged: keep it.
            self._error = error
            raise


def _make(model: Model, configure: Callable[[Any], None], threads: int) -> Any:
    if model.params_path is not None and model.is_stored and model.has_stored_parameters:
        return _create(model, model.model_path, model.params_path, configure, threads)
    with temporary_directory() as directory:
        program_path = directory / "model.pdmodel"
        program_path.write_bytes(model.program.SerializeToString())
        # The Predictor finds separate files only beside a program called __model__.
        params_path = program_path.with_suffix(".pdiparams")
        if model.params_path is not None and model.has_stored_parameters:
            params_path = model.params_path
        else:
            with params_path.open("wb") as stream:
                write_combined(stream, model.tensors())
        return _create(model, program_path, params_path, configure, threads)


def _create(
    model: Model,
    model_path: Path,
    params_path: Path,
    configure: Callable[[Any], None],
    threads: int,
) -> Any:
    import paddle

    config = cpu_config(model_path, params_path)
    config.set_cpu_math_library_num_threads(threads)
    config.enable_memory_optim()
    configure(config)
    loading()
    try:
        predictor = paddle.inference.create_predictor(config)
    except Exception as error:
        raise ModelFileError(
            f"{model.model_path}: Paddle's Predictor cannot load the model: {_summary(error)}. "
            "Does it run in this version of Paddle?"
        ) from error
    # Where Paddle brings no runtime of its own, it uses the system's, as the kernels do.
    kernels.join_openmp(Path(paddle.__file__).parent / "libs" / "libiomp5.so")
    return predictor


def _configure(config: Any, model: Model, optimization: Optimization) -> None:
    config.switch_ir_optim(optimization is not Optimization.NONE)
    if optimization is Optimization.NONE:
        if hasattr(config, "disable_onednn"):  # 3.3 may use its kernels if not told not to
            config.disable_onednn()
    else:
        _either(config, "enable_onednn", "enable_mkldnn")()
        _keep_from_onednn(config, model.program)
        _leave_out(config, _passes_that_harm(model))
    if optimization is Optimization.UNFUSED:
        passes = config.pass_builder()
        for name in passes.all_passes():
            if name not in _PLACEMENT_PASSES:
                passes.delete_pass(name)


def _configure_int8(config: Any, model: Model) -> None:
    _either(config, "enable_onednn", "enable_mkldnn")()
    _keep_from_onednn(config, model.program)
    # Some int8 passes fuse oneDNN's int8 ops into others that do not run.
    if any(op.type == "dequantize_linear" for op in model.ops()):
        _either(config, "enable_onednn_int8", "enable_mkldnn_int8")()
    else:  # the int8 passes cannot be chosen once one was left out
        _leave_out(config, _passes_that_harm(model))


def _passes_that_harm(model: Model) -> tuple[str, ...]:
    return (*_SLOW_PASSES, *(_PRODUCT_PASSES if _has_few_biases(model) else ()))


def _leave_out(config: Any, passes: Collection[str]) -> None:
    for name in passes:
        config.delete_pass(name)


def _has_few_biases(model: Model) -> bool:
    """Return whether no constant is added to most of what products with weights compute."""
    reads: dict[str, list[Op]] = {}
    for op in model.ops():
        for name in op.reads():
            reads.setdefault(name, []).append(op)
    sizes = {True: 0, False: 0}
    for op in model.ops():
        weight = model.parameters.get(next(iter(op.inputs("Y")), ""))
        if op.type == "matmul_v2" and weight is not None:
            after = reads.get(op.output(), [])
            added = [name for one in after if one.type == "elementwise_add" for name in one.reads()]
            sizes[any(name in model.parameters for name in added)] += weight.size
    return sizes[False] > sizes[True]


def _either(config: Any, name: str, older: str) -> Any:
    """Return a method by its name in Paddle 3, or by its older one in 2.6."""
    return getattr(config, name if hasattr(config, name) else older)


def _keep_from_onednn(config: Any, program: Any) -> None:
    ops = [op for block in program.blocks for op in ops_of(block)]
    # oneDNN's mul reads a 4-D input that lies in blocks of channels as if in order (2.6 and 3.3).
    tensors = ((var.name, proto.tensor_desc(var)) for block in program.blocks for var in block.vars)
    ranks = {name: len(desc.dims) for name, desc in tensors if desc is not None}
    multiplied = [name for op in ops if op.type == "mul" for name in op.inputs("X")]
    wrong = {"mul"} if any(ranks.get(name, 0) > 2 for name in multiplied) else set()
    wrong.add("pad")  # it writes outside of its memory, which may kill the process (2.6 and 3.3)
    types = {op.type for op in ops}
    if not types.isdisjoint(wrong):
        _either(config, "set_onednn_op", "set_mkldnn_op")(types - wrong)


def _summary(error: Exception) -> str:
    """Return the most telling line of one of Paddle's long messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "rror" in line or line.startswith("(")]
    return (telling or lines or [type(error).__name__])[-1]
