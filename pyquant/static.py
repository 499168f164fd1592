"""Static mode: calibrates activations, quantizes weights per channel, writes an int8 model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .calibration.data import Feed
from .calibration.iteration import Source
from .calibration.run import CHECKPOINT_EVERY
from .calibration.state import Calibration
from .errors import SettingError, UnsupportedError
from .isolation import run_isolated
from .memory import Size, as_text
from .program.half_precision import compute_in_float32
from .program.misfusion import misfused
from .program.model import Model, check_targets, copy_model, load_model, write_model
from .program.onnx_model.export import SUFFIX, to_onnx, write_onnx
from .program.output_files import OutputFiles
from .program.quantizable import ACTIVATION_OP_TYPES, WeightedOp, with_large_parameters
from .program.targets.profiles import canonical_backend
from .program.targets.saturation import ANY
from .record import copy_preprocessing, count_tensors, write_record
from .result import (
    SLOWER_NOTE,
    QuantizationResult,
    QuantizedTensor,
    Stopwatch,
    file_bytes,
    readers_by_tensor,
    weight_tensors,
)
from .settings import check_choice
from .static_mode.accuracy_control import control
from .static_mode.activation_ranges import check_given
from .static_mode.decisions import Decisions, Emitted, decide, emit
from .static_mode.input_check import notes_on_data
from .static_mode.observation import Observations, observe, without_always_zero
from .static_mode.options import (
    ACTIVATION_QUANTIZE_TYPES,
    Metric,
    Options,
    check_supported,
    notes_without_effect,
)
from .static_mode.placement import HERE, PLACES, fastest
from .static_mode.plan import Plan, plan_static
from .static_mode.ranking import ranked_ops
from .static_mode.repair import (
    LEAST_GAIN,
    Checked,
    Decide,
    check_and_repair,
    keep_settings_that_help,
)
from .verification.check import Check
from .verification.outcome import Verification
from .verification.outputs_check import OutputsCheck
from .verification.runtime_check import (
    Runtime,
    RuntimeCheck,
    is_installed,
    refuse_unreadable,
)
from .verification.runtimes import RUNTIMES


def quant_post_static(
    executor: Any,
    model_dir: str | Path,
    quantize_model_path: str | Path,
    batch_generator: Source | None = None,
    sample_generator: Source | None = None,
    data_loader: Source | None = None,
    model_filename: str | None = None,
    params_filename: str | None = None,
    save_model_filename: str = "model.pdmodel",
    save_params_filename: str | None = "model.pdiparams",
    batch_size: int = 1,
    batch_nums: int | None = None,
    scope: Any = None,
    algo: str = "mse",
    round_type: str = "round",
    hist_percent: float = 0.9999,
    bias_correction: bool = True,
    quantizable_op_type: Collection[str] = tuple(ACTIVATION_OP_TYPES),
    is_full_quantize: bool = False,
    weight_bits: int = 8,
    activation_bits: int = 8,
    activation_quantize_type: str = "range_abs_max",
    weight_quantize_type: str = "channel_wise_abs_max",
    optimize_model: bool = True,
    onnx_format: bool = True,
    skip_tensor_list: Collection[str] | None = None,
    deploy_backend: str | None = None,
    same_scale_tensor_list: Sequence[Sequence[str]] | None = None,
    scale_dict: Mapping[str, float] | None = None,
    is_use_cache_file: bool = False,
    cache_dir: str | None = None,
    calibration: Calibration | str | Path | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = CHECKPOINT_EVERY,
    engine: Any = None,
    eval_function: Metric | None = None,
    max_drop: float = 0.01,
    equalize: bool | None = None,
    processors: str = ANY,
    verify: bool = True,
    max_error: float = 5.0,
    plan_for: str | None = None,
    memory_limit: Size | None = None,
    isolate: bool = False,
) -> QuantizationResult:
    """Quantize weights and activations to int8; calibration data gives the activations' ranges.

    By default, the result holds int8 ops that the Predictor runs wherever oneDNN is enabled. A QDQ
    result has ``quantize_linear`` and ``dequantize_linear`` around the inputs of quantized ops. On
    a CPU it runs in int8 after ``enable_onednn_int8()`` (3.x) or ``enable_mkldnn_int8()`` (2.6) on
    the Predictor's config, and otherwise as slow fake quantization.

    Args:
        executor: not needed; may be None.
        model_dir: directory of the model (see `pyquant.load_model`).
        quantize_model_path: directory of the quantized model.
        batch_generator: batches; an iterable, a generator, or a function that returns one. A batch
            is an array, a tuple of arrays in the order of the inputs, or a dict by name. Shapes
            may vary from batch to batch. Or the path of samples: an ``.npz`` or ``.npy`` file, or
            a directory of such files (see `pyquant static --help`).
        sample_generator: the same for single samples without a batch axis.
        data_loader: the same as ``batch_generator``; a ``paddle.io.DataLoader`` too.
        model_filename: the program's file; None finds it.
        params_filename: the combined parameter file; None finds it, or takes separate files.
        save_model_filename: the quantized program's file.
        save_params_filename: its combined parameter file; None writes one file per parameter.
        batch_size: how many samples of ``sample_generator``, or of files, make a batch. If the
            model fixes a batch size, that is used instead.
        batch_nums: use at most this many batches; None uses all.
        scope: not needed.
        algo: how a threshold is found: ``KL``, ``hist``, ``mse``, ``emd``, ``avg`` or ``abs_max``;
            ``auto`` tries several for each activation and takes the one with the least error in
            the outputs of its ops. PaddleSlim's default is ``hist``; ``mse`` lost less on PP-OCRv4
            recognition.
        round_type: ``"round"`` takes the nearest integer for each weight; ``"adaround"`` those that
            together change the outputs of an op least on the calibration data (arXiv 2004.10568).
        hist_percent: the share of an activation's values that ``hist`` keeps in range.
        bias_correction: adjust the biases to compensate the mean error that rounding the weights
            causes on the data (arXiv 1810.05723). PaddleSlim's default is False.
        quantizable_op_type: op types to quantize.
        is_full_quantize: quantize every op that ``deploy_backend`` can run as int8, of any type,
            even if that loses accuracy or time. For TensorRT this includes ops without a weight.
        weight_bits: 2 to 8. Fewer than 8 are stored in 8: they save neither time nor space, but
            show what such weights would do to accuracy.
        activation_bits: 8.
        activation_quantize_type: names PaddleSlim's fake ops; the result is the same for each.
        weight_quantize_type: ``"channel_wise_abs_max"`` or ``"abs_max"`` (one per tensor).
        optimize_model: fold multiplications, additions and batch_norm into the weights and biases
            of neighbouring ops first (see `pyquant.fold`). PaddleSlim's default is False.
        onnx_format: True; the older fake-op form is not supported.
        skip_tensor_list: weights, or inputs or outputs of ops; these ops stay in float.
        deploy_backend: None, ``"OneDNN"`` and ``"MKLDNN"`` write oneDNN's own int8 ops, which the
            Predictor runs on a CPU as they are; ``"QDQ"`` writes quantize_linear and
            dequantize_linear for its int8 passes; ``"TensorRT"`` and ``"ARM"`` (Paddle-Lite) write
            QDQ as their passes expect it, ``"OpenVINO"`` as its frontend reads it; ``"ONNX"``
            writes one ``.onnx`` file, with QDQ as ONNX Runtime's kernels expect it. Case is
            ignored. In PaddleSlim, None writes QDQ.
        same_scale_tensor_list: lists of activations; each list shares its largest threshold.
        scale_dict: thresholds of activations, by name, to use as they are.
        is_use_cache_file: not needed; nothing is cached on disk.
        cache_dir: not needed.
        calibration: what `pyquant.calibrate` returned or saved, instead of data.
        checkpoint: as in `pyquant.calibrate`. With ``adaround``, a directory of its name and
            ``.moments`` keeps what the weights are rounded by.
        checkpoint_every: as in `pyquant.calibrate`.
        engine: as in `pyquant.calibrate`.
        eval_function: accuracy control: takes a ``paddle.inference.Predictor``, returns a metric,
            the greater the better. As few ops as necessary stay in float, starting with those
            whose integers change the outputs most for the time that they save; ``notes`` reports
            the cost.
        max_drop: how far the metric may fall below the float model's.
        equalize: divide the channels of an activation by factors, and multiply the weights that
            read them (SmoothQuant, arXiv 2211.10438). If no neighbouring op can take the division
            in, an op is added. None equalizes only where int8 would cost the outputs more than
            0.5 % of their power (0.2 % for matrix products), as with channels far larger than the
            others, and never with ``avg``. True equalizes wherever that halves the cost. For
            ``"OneDNN"``, what products read is also quantized per token: each position is divided
            by its largest magnitude as the model runs (arXiv 2206.01861). None does so where int8
            would cost 0.04 % of an output's power, and True everywhere, if that divides the cost
            by 1.5 or more. False does neither.
        processors: ``"any"`` chooses weight integers that do not saturate on x86-64 processors
            without VNNI, which add the products of two neighbouring inputs in 16 bits. In QDQ,
            Paddle chooses the integers of convolutions, so these stay in float. ``"vnni"`` gives
            right results only on processors with VNNI.
        verify: check the result at the end, on a few batches of the data, as it runs on a CPU. The
            check compares it with its simulation and with the float model, and times both. If the
            error of an output exceeds ``max_error``, ``algo="auto"`` and ``equalize=True`` are
            tried, unless others were given. Then ops stay in float whose integers change the
            outputs most for the time that they save. ``algo="auto"``,
            ``equalize=True`` and ``round_type="adaround"`` are left out if the outputs err more
            with them. The result's ``verification`` reports what was found. Results for
            ``"TensorRT"`` and ``"ARM"`` do not run on a CPU, and are not checked. Those for
            ``"ONNX"`` and ``"OpenVINO"`` are run in these runtimes, where they are installed.
        max_error: what the check bears: the rms error of an output, in percent of its variation.
            Less keeps more ops in float, and more keeps fewer. With infinity, ops stay in float
            only where the run departs from the program, or an output is NaN.
        plan_for: None plans by rules, the same ones on every machine. ``"here"`` measures, too: of
            all int8, int8 for the ops that do nine tenths or half of the multiplications, and
            float, it writes what is fastest on this machine, in the runtime that the result is
            for. It needs the check.
        memory_limit: how much memory this process may take, in bytes or as ``"2GB"``. A model that
            does not fit is calibrated in segments, one after the other, with the same result as
            with ``verify=False``: it is not checked. None takes what there is.
        isolate: do it all in a process of its own, for models that may not be trusted: one that
            makes Paddle crash then ends that process. Batches are copied to it, activations are
            not. It starts within seconds.

    Returns:
        What was quantized and with which threshold, and what stays in float and why.

    Raises:
        ModelFileError: the model cannot be read.
        SettingError: an argument is wrong.
        UnsupportedError: an argument or the model asks for what pyquant cannot do.
        CalibrationDataError: there is no data, a batch does not fit the model, or every activation
            that could become int8 is always zero.
        CalibrationFileError: a saved calibration is damaged, or of another model or other data.
        CalibrationInterrupted: Ctrl-C or SIGTERM in a run with a checkpoint, which holds what was
            seen.
        ActivationError: an activation holds NaN or infinity, or is empty.
        ClusterError: Ray failed to run a batch.
        ModelCrashError: the model ended the process that ran it (``isolate``).
        OutputError: the result, or a file that a segment needs, cannot be written; nothing has
            changed on the disk.

    Example:
        >>> result = pyquant.quant_post_static(None, "float", "int8", data_loader=batches)
        >>> result
        <QuantizationResult: 3 activations, 3 weights, int8/model.pdmodel>
        >>> result.verification.error_percent < 10
        True
    """
    if isolate:
        there: QuantizationResult = run_isolated(
            quant_post_static, {**locals(), "isolate": False}, [model_dir]
        )
        return there
    check_supported(
        weight_bits=weight_bits, activation_bits=activation_bits, onnx_format=onnx_format
    )
    check_choice("activation_quantize_type", activation_quantize_type, ACTIVATION_QUANTIZE_TYPES)
    check_choice("plan_for", plan_for, PLACES)
    notes = notes_without_effect(
        executor=executor,
        scope=scope,
        activation_quantize_type=activation_quantize_type,
        is_use_cache_file=is_use_cache_file,
        cache_dir=cache_dir,
    )
    options = Options(
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
        shard=None,
        memory_limit=memory_limit,
        algo=algo,
        round_type=round_type,
        hist_percent=hist_percent,
        bias_correction=bias_correction,
        weight_bits=weight_bits,
        weight_quantize_type=weight_quantize_type,
        same_scale_tensor_list=same_scale_tensor_list,
        scale_dict=scale_dict,
        calibration=calibration,
        eval_function=eval_function,
        max_drop=max_drop,
        equalize=equalize,
        max_error=max_error,
    )
    if plan_for == HERE:
        _check_measurable(options, verify)
    output = _Output(Path(quantize_model_path), save_model_filename, save_params_filename)
    read = partial(load_model, model_dir, model_filename, params_filename)
    return _Call(options, read, output, verify, plan_for, notes).result()


quant_post = quant_post_static
"""PaddleSlim's old name for `quant_post_static`."""


@dataclass(frozen=True)
class _Output:
    """Where the result is written."""

    directory: Path
    program: str
    parameters: str | None  # None writes one file per parameter

    def write(
        self,
        model: Model,
        plan: Plan,
        decisions: Decisions,
        emitted: Emitted,
        verification: Verification | None,
        notes: list[str],
        watch: Stopwatch,
    ) -> QuantizationResult:
        """Write the int8 program that ``model`` became, with its record; describe it."""
        written = [*plan.ops, *plan.weight_only]
        notes = [*notes, *_per_token_notes(plan, decisions)]
        quantized = [
            *_activation_tensors(emitted, plan.ops),
            *weight_tensors({op.weight: decisions.weights[op.weight] for op in written}, written),
        ]
        target, is_onnx = canonical_backend(decisions.options.deploy_backend), _is_onnx(plan)
        found = {
            "quantized": count_tensors(quantized),
            "verification": verification and verification.to_dict(),
            "notes": notes,
        }
        with OutputFiles(self.directory) as files:
            paths = self._write_program(files, emitted.model, is_onnx)
            write_record(files, paths[0], model, target, decisions.options.settings, found)
            copy_preprocessing(files, model, self.directory)
        watch.lap("save")
        return QuantizationResult(
            model_path=paths[0],
            params_path=None if self.parameters is None or is_onnx else paths[1],
            quantized=quantized,
            kept_float=with_large_parameters(model, written, plan.kept),
            bytes_before=file_bytes(model.source_files),
            bytes_after=file_bytes(paths),
            seconds=watch.seconds,
            notes=notes,
            verification=verification,
            target=target,
        )

    def _write_program(self, files: OutputFiles, int8: Model, is_onnx: bool) -> tuple[Path, ...]:
        if not is_onnx:
            return write_model(files, int8, self.directory, self.program, self.parameters)
        path = self.directory / Path(self.program).with_suffix(SUFFIX)
        return write_onnx(files, to_onnx(int8), path)


@dataclass
class _Call:
    """A call of `quant_post_static`, with its stages in their order."""

    options: Options
    read: Callable[[], Model]
    output: _Output
    verify: bool
    plan_for: str | None
    notes: list[str]
    watch: Stopwatch = field(default_factory=Stopwatch)

    def result(self) -> QuantizationResult:
        model = self._loaded()
        plan = self._planned(model)
        observations = observe(model, plan, self.options)
        self.watch.lap("calibrate")
        plan = self._observed(model, plan, observations)
        check = self._check_of(model, plan, observations)
        decide_anew = self._deciding_anew(plan, observations, check)
        plan, decisions = self._decided(plan, observations, check)
        checked = self._checked(plan, decisions, check, decide_anew)
        if check is None or checked is None:
            emitted = emit(plan, decisions)
            self.watch.lap("quantize")
            return self.output.write(model, plan, decisions, emitted, None, self.notes, self.watch)
        verification = checked.verification(check)
        self.watch.lap("check")
        self._note_speed(check, checked, verification)
        found = checked.plan, checked.decisions, checked.emitted, verification
        return self.output.write(model, *found, self.notes, self.watch)

    def _loaded(self) -> Model:
        model = self.read()
        if compute_in_float32(model):
            self.notes.append(_HALF_NOTE)
        self.options = self.options.where_tight(model)
        if self.options.most_bytes is not None:
            needing = {"plan_for": self.plan_for, "eval_function": self.options.eval_function}
            _refuse_runs(self.options.most_bytes, needing)
        lost = misfused(model)
        if lost and self.options.target.runs_here:
            self.notes.append(_fusion_note(lost))
        return model

    def _planned(self, model: Model) -> Plan:
        """Return the plan; raise an error if the result could not be written as asked for."""
        plan, output = plan_static(model, self.options), self.output
        check_targets(model, output.directory, output.program, output.parameters)
        check_given(self.options, plan.int8.observed)
        runtime = _runtime(self.options)
        if runtime is not None and self.options.most_bytes is None:
            refuse_unreadable(runtime, plan.int8.model)
        self.watch.lap("load")
        return plan

    def _observed(self, model: Model, plan: Plan, observations: Observations) -> Plan:
        """Return the plan without what is always zero."""
        plan = without_always_zero(plan, observations.statistics)
        check_given(self.options, plan.int8.observed)
        self.notes += observations.notes
        self.notes += _format_notes(model, plan)
        self.notes += notes_on_data(model, observations.statistics)
        return plan

    def _check_of(
        self, model: Model, plan: Plan, observations: Observations
    ) -> OutputsCheck | None:
        """Return the check where the result is to run; None if it cannot be made."""
        feeds, batches = observations.feeds, observations.batches
        if not self.verify or not feeds:
            return None
        if self.options.most_bytes is not None:
            self.notes.append(_unchecked_note(self.options.most_bytes))
            return None
        check: OutputsCheck | None = None
        if plan.target.runs_here:
            check = Check(model, feeds, batches)
        elif (runtime := _runtime(self.options)) is not None:
            check = self._runtime_check(runtime, model, feeds, batches)
        self.watch.lap("check")
        return check

    def _runtime_check(
        self, runtime: Runtime, model: Model, feeds: Sequence[Feed], batches: int
    ) -> RuntimeCheck | None:
        if not is_installed(runtime):
            self.notes.append(
                f"the result was not run, as {runtime.name} is not installed: "
                f"pyquant's extra '{runtime.extra}'"
            )
            return None
        try:
            return RuntimeCheck(runtime, model, feeds, batches)
        except UnsupportedError as error:
            self.notes.append(_why_unchecked(error))
            return None

    def _deciding_anew(
        self, plan: Plan, observations: Observations, check: OutputsCheck | None
    ) -> Decide | None:
        """Return what decides by more accurate settings, for a repair; None if some were given."""
        accurate = self.options.with_accuracy_settings
        if accurate is None or check is None:
            return None
        # The parameters of a plan's model may take factors in.
        as_planned = plan.on(copy_model(plan.int8.model))
        return partial(
            keep_settings_that_help,
            as_planned,
            observations,
            accurate,
            self.watch,
            check,
            least_gain=LEAST_GAIN,
        )

    def _decided(
        self, plan: Plan, observations: Observations, check: OutputsCheck | None
    ) -> tuple[Plan, Decisions]:
        """Decide; keep settings for accuracy that help, and what a metric needs in float."""
        if check is None or not self.options.accuracy_settings:
            decisions = decide(plan, observations, self.options, self.watch)
        else:
            best = keep_settings_that_help(plan, observations, self.options, self.watch, check)
            plan, decisions = best.plan, best.decisions
            self.notes += _settings_left_out(self.options, decisions.options)
        if self.options.eval_function is not None:
            plan = self._controlled(plan, decisions, observations, self.options.eval_function)
        return plan, decisions

    def _controlled(
        self, plan: Plan, decisions: Decisions, observations: Observations, metric: Metric
    ) -> Plan:
        """Return the plan without the ops that cost the metric too much."""
        source = self.read()
        compute_in_float32(source)
        ranked = ranked_ops(plan, decisions, observations.feeds[0])
        found = control(
            source,
            lambda ops: emit(plan.of(ops), decisions).model,
            ranked,
            metric,
            self.options.max_drop,
        )
        self.notes.append(str(found))
        self.watch.lap("accuracy control")
        return plan.without(found.kept, "accuracy control")

    def _checked(
        self,
        plan: Plan,
        decisions: Decisions,
        check: OutputsCheck | None,
        decide_anew: Decide | None,
    ) -> Checked | None:
        """Return what was checked and repaired; None if it could not be run."""
        if check is None:
            return None
        repairs = self.options.eval_function is None
        try:
            checked = check_and_repair(plan, decisions, check, repairs, decide_anew)
        except UnsupportedError as error:
            if plan.target.runs_here:
                raise
            self.notes.append(_why_unchecked(error))
            return None
        return fastest(checked, check) if self.plan_for == HERE else checked

    def _note_speed(
        self, check: OutputsCheck, checked: Checked, verification: Verification
    ) -> None:
        """Say what computes with integers in another runtime, and whether that is slow."""
        if not isinstance(check, RuntimeCheck):
            return
        self.notes.append(check.integers(checked.emitted.model))
        if self.plan_for is None and verification.speedup < _SLOWER:
            self.notes.append(SLOWER_NOTE)


def _is_onnx(plan: Plan) -> bool:
    return plan.target.form == "onnx"


def _runtime(options: Options) -> Runtime | None:
    """Return the runtime that a target is for; None if that is Paddle."""
    return RUNTIMES.get(canonical_backend(options.deploy_backend))


def _activation_tensors(emitted: Emitted, ops: Sequence[WeightedOp]) -> list[QuantizedTensor]:
    readers, steps = readers_by_tensor((op.activation, op.op_type) for op in ops), emitted.steps
    return [
        QuantizedTensor(
            name, "activation", readers.get(name, ()), 8, None, given.threshold, steps[name]
        )
        for name, given in emitted.ranges.items()
    ]


def _check_measurable(options: Options, verify: bool) -> None:
    """Raise an error if the result is not to be run, or cannot be run here."""
    if not verify:
        raise SettingError("plan_for='here': the check measures the time. Leave out verify=False.")
    runtime = _runtime(options)
    if runtime is not None and not is_installed(runtime):
        raise UnsupportedError(
            f"plan_for='here': {runtime.name}, in which the time is measured, is not installed. "
            f"Install pyquant's extra '{runtime.extra}', or leave out plan_for."
        )
    if runtime is None and not options.target.runs_here:
        raise UnsupportedError(
            f"plan_for='here': a model for {options.deploy_backend} does not run on a CPU. "
            "Leave out one of the two."
        )


def _settings_left_out(asked: Options, taken: Options) -> list[str]:
    return [
        f"{name}={value!r} is left out: with it, the outputs differ more from the float model's"
        for name, value in asked.accuracy_settings.items()
        if getattr(taken, name) != value
    ]


def _refuse_runs(limit: int, needing: Mapping[str, Any]) -> None:
    """Refuse what runs the model as a whole, which does not fit into the limit."""
    for name, value in needing.items():
        if value is not None:
            raise UnsupportedError(
                f"{name}: it runs the model as a whole, which does not fit into {as_text(limit)}. "
                "Leave it out, or give more memory_limit."
            )


def _why_unchecked(error: UnsupportedError) -> str:
    return f"the result was not checked: {error}"


def _unchecked_note(limit: int) -> str:
    return (
        f"the check is left out: the float model and the int8 one do not fit into {as_text(limit)} "
        "together. Run pyquant verify where there is more memory"
    )


def _per_token_notes(plan: Plan, decisions: Decisions) -> list[str]:
    read = {op.activation for op in plan.ops}
    names = sorted(read & decisions.equalization.per_token)
    if not names:
        return []
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [
        f"quantized per token: '{names[0]}'{more}. As the model runs, each position is divided by "
        "its largest magnitude. The threshold is that of the quotients"
    ]


def _fusion_note(lost: list[str]) -> str:
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    return (
        "Paddle's passes for oneDNN lose an activation when they fuse the op behind it: the float "
        f"model is wrong under oneDNN at {', '.join(lost[:_NAMED])}{more}. The quantized model is "
        "right; for the float model, use 'pyquant fold'"
    )


_HALF_NOTE = (
    "the model computes in float16 or bfloat16: it was calibrated in float32, and the result takes "
    "and gives float32 in their place"
)

# As fast as float in another runtime. What is nearer to 1 may be noise.
_SLOWER = 0.9

_NAMED = 3  # tensors that a note names


def _format_notes(model: Model, plan: Plan) -> list[str]:
    if model.pir is None or _is_onnx(plan):
        return []
    return [
        "the result is a .pdmodel: on a CPU, Paddle has no int8 passes for a .json "
        "and runs it only in float"
    ]
