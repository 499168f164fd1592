"""The check of a written model: runs it beside its float one."""

from __future__ import annotations

from pathlib import Path

from .calibration.iteration import Source
from .calibration.source import CalibrationData
from .errors import CalibrationDataError
from .program.half_precision import compute_in_float32
from .program.model import Model, copy_model, load_model
from .verification.check import Check
from .verification.outcome import Verification

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

    It finds how far each output is from the float model's, how far the run is from what the
    quantized program says, and how long a sample takes by each.

    Args:
        float_model: its directory or program, or what `pyquant.load_model` returned for it.
        quantized_model: likewise, what `quant_post_static` or `quant_post_dynamic` wrote for it.
        batch_generator: as in `quant_post_static`.
        sample_generator: likewise.
        data_loader: likewise.
        batch_size: likewise.
        batch_nums: use at most this many batches, which are held in memory; None uses all.

    Raises:
        ModelFileError: a model cannot be read, or Paddle cannot load it.
        SettingError: an argument is wrong.
        UnsupportedError: a model has unknown ops, or an input holds sequences (LoD).
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
    before, after = copy_model(_loaded(float_model)), _loaded(quantized_model)
    compute_in_float32(before)
    feeds = list(data.feeds(before))
    if not feeds:
        raise CalibrationDataError("data to verify on: it yields nothing. Give a batch at least.")
    check = Check(before, feeds, len(feeds), runs_all=True)
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


def _loaded(model: str | Path | Model) -> Model:
    return model if isinstance(model, Model) else load_model(model)
