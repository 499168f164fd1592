"""The check of a written model: runs it beside its float one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .calibration.data import Feed
from .calibration.iteration import Source
from .calibration.source import CalibrationData
from .comparison.compared import given_parts
from .errors import CalibrationDataError, ModelFileError, UnsupportedError
from .program.half_precision import compute_in_float32
from .program.model import Model, copy_model, load_model
from .program.onnx_model.export import SUFFIX, is_onnx
from .verification.check import Check
from .verification.onnx_runtime import ONNX_RUNTIME, of_file
from .verification.outcome import Verification
from .verification.outputs_check import OutputsCheck
from .verification.runtime_check import RuntimeCheck, is_installed

_BATCHES = 8


def verify(
    float_model: str | Path | Model,
    quantized_model: str | Path | Model,
    batch_generator: Source | None = None,
    sample_generator: Source | None = None,
    data_loader: Source | None = None,
    batch_size: int = 1,
    batch_nums: int | None = _BATCHES,
) -> Verification:
    """Run a quantized model as it is deployed on a CPU, beside its float model.

    An ``.onnx`` file runs in ONNX Runtime, and so does the float model then.

    It finds how far each output is from the float model's, how far the run is from what the
    quantized program says, and how long a sample takes by each.

    Args:
        float_model: its directory or program, or what `pyquant.load_model` returned for it.
        quantized_model: likewise, what `quant_post_static` or `quant_post_dynamic` wrote for it;
            also an ``.onnx`` file, or the directory of one.
        batch_generator: as in `quant_post_static`.
        sample_generator: likewise.
        data_loader: likewise.
        batch_size: likewise.
        batch_nums: use at most this many batches, which are held in memory; None uses all.

    Raises:
        ModelFileError: a model cannot be read, or Paddle cannot load it.
        SettingError: an argument is wrong.
        UnsupportedError: a model has unknown ops, an input holds sequences (LoD), or ONNX Runtime
            is not installed or cannot run an ``.onnx``.
        CalibrationDataError: there is no data, or a batch does not fit the models.

    Example:
        >>> pyquant.verify("float", "int8", data_loader=batches).error_percent < 10
        True
    """
    sources = {
        "batch_generator": batch_generator,
        "sample_generator": sample_generator,
        "data_loader": data_loader,
    }
    data = CalibrationData(sources, batch_size, batch_nums)
    before, path = copy_model(_loaded(float_model)), _onnx_path(quantized_model)
    compute_in_float32(before)
    feeds = list(data.feeds(before))
    if not feeds:
        raise CalibrationDataError("data to verify on: it yields nothing. Give a batch at least.")
    check: OutputsCheck
    if path is None:
        after = _loaded(quantized_model)
        check = Check(before, feeds, len(feeds), runs_all=True)
    else:
        after = before  # `of_file` runs the file
        check = _onnx_check(path, before, feeds)
    found, times = check.judge(after), check.times(after)
    return Verification(
        found.errors,
        found.departures,
        found.departs,
        found.batches,
        *times,
        repairs=(),
        kernels=check.kernels(after, times),
    )


def _onnx_path(model: str | Path | Model) -> Path | None:
    """Return the ``.onnx`` file that is named, or that is the only program of a directory."""
    if isinstance(model, Model):
        return None
    path = Path(model)
    if is_onnx(path):
        return path
    found = list(path.glob(f"*{SUFFIX}"))
    others = [*path.glob("*.pdmodel"), *path.glob("__model__")]
    return found[0] if len(found) == 1 and not others else None


def _onnx_check(path: Path, model: Model, feeds: Sequence[Feed]) -> RuntimeCheck:
    if not is_installed(ONNX_RUNTIME):
        raise UnsupportedError(
            f"{path}: ONNX Runtime, which runs it, is not installed. Install pyquant with its "
            f"extra '{ONNX_RUNTIME.extra}'."
        )
    if not path.is_file():
        raise ModelFileError(f"{path}: there is no such file. Check quantized_model.")
    return RuntimeCheck(of_file(path), model, feeds, len(feeds), True, given_parts(model))


def _loaded(model: str | Path | Model) -> Model:
    return model if isinstance(model, Model) else load_model(model)
