"""Calibration alone: collects statistics to save, to merge, and to quantize from."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from .calibration.iteration import Source
from .calibration.run import CHECKPOINT_EVERY
from .calibration.state import Calibration
from .isolation import run_isolated
from .memory import Size
from .program.half_precision import compute_in_float32
from .program.model import load_model
from .program.quantizable import ACTIVATION_OP_TYPES
from .program.targets.saturation import ANY
from .static_mode.observation import calibrate_model
from .static_mode.options import CalibrationOptions
from .static_mode.plan import plan_static


def calibrate(
    model_dir: str | Path,
    batch_generator: Source | None = None,
    sample_generator: Source | None = None,
    data_loader: Source | None = None,
    model_filename: str | None = None,
    params_filename: str | None = None,
    batch_size: int = 1,
    batch_nums: int | None = None,
    quantizable_op_type: Collection[str] = tuple(ACTIVATION_OP_TYPES),
    skip_tensor_list: Collection[str] | None = None,
    deploy_backend: str | None = None,
    optimize_model: bool = True,
    is_full_quantize: bool = False,
    processors: str = ANY,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = CHECKPOINT_EVERY,
    engine: Any = None,
    shard: tuple[int, int] | None = None,
    memory_limit: Size | None = None,
    isolate: bool = False,
) -> Calibration:
    """Run data through a model and return histograms of the activations that would be quantized.

    The result can be saved, merged with others of the same model, and given to `quant_post_static`
    instead of data, with any ``algo``. ``adaround`` needs the data themselves.

    Args:
        model_dir: directory of the model (see `pyquant.load_model`).
        batch_generator: as in `quant_post_static`.
        sample_generator: likewise.
        data_loader: likewise.
        model_filename: likewise.
        params_filename: likewise.
        batch_size: likewise.
        batch_nums: likewise.
        quantizable_op_type: likewise.
        skip_tensor_list: likewise.
        deploy_backend: likewise.
        optimize_model: likewise.
        is_full_quantize: likewise.
        processors: likewise.
        checkpoint: a file that keeps the calibration while it runs. If it exists, the calibration
            resumes from it; give the same data again, from the beginning.
        checkpoint_every: how many batches lie between two saves.
        engine: None runs the data here; the module ``ray`` runs it on the workers of a Ray cluster.
        shard: (i, n) takes only every n-th batch, from the i-th on: n processes share the data.
        memory_limit: as in `quant_post_static`.
        isolate: as in `quant_post_static`.

    Raises:
        ModelFileError: the model cannot be read.
        SettingError: an argument is wrong.
        UnsupportedError: an input holds variable-length sequences (LoD).
        CalibrationDataError: there is no data, or a batch does not fit the model.
        CalibrationFileError: the checkpoint is damaged, or of another model or other data.
        CalibrationInterrupted: Ctrl-C or SIGTERM; the checkpoint holds what was seen.
        ActivationError: an activation holds NaN or infinity, or is empty.
        ClusterError: Ray failed to run a batch.
        ModelCrashError: the model ended the process that ran it (``isolate``).
        OutputError: the checkpoint, or a file that a segment needs, cannot be written.

    Example:
        >>> calibration = pyquant.calibrate("float", data_loader=batches)
        >>> calibration.save("calibration.npz")
        >>> pyquant.quant_post_static(None, "float", "int8", calibration="calibration.npz")
        <QuantizationResult: 3 activations, 3 weights, int8/model.pdmodel>
    """
    if isolate:
        there: Calibration = run_isolated(calibrate, {**locals(), "isolate": False}, [model_dir])
        return there
    options = CalibrationOptions(
        batch_generator=batch_generator,
        sample_generator=sample_generator,
        data_loader=data_loader,
        batch_size=batch_size,
        batch_nums=batch_nums,
        quantizable_op_type=quantizable_op_type,
        skip_tensor_list=skip_tensor_list,
        deploy_backend=deploy_backend,
        optimize_model=optimize_model,
        is_full_quantize=is_full_quantize,
        processors=processors,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        engine=engine,
        shard=shard,
        memory_limit=memory_limit,
    )
    model = load_model(model_dir, model_filename, params_filename)
    compute_in_float32(model)
    options = options.where_tight(model)
    return calibrate_model(model, plan_static(model, options), options)
