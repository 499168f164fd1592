"""Dynamic mode: weights to int8 or int16, without data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from .errors import SettingError
from .program.model import Model, load_model, write_model
from .program.output_files import OutputFiles
from .program.proto import ProgramDesc, set_attribute
from .program.quantizable import WEIGHT_ONLY_OP_TYPES, WeightedOp, find_weighted_ops
from .program.rewrite import Rewriter, rename_inputs, store_weights
from .program.rewrite_json import JsonProgram
from .program.weights import WEIGHT_QUANTIZE_TYPES, QuantizedWeight, quantize_weights
from .result import QuantizationResult, Stopwatch, file_bytes, weight_tensors
from .settings import check_choice, check_op_types

WEIGHT_BITS = (8, 16)


def quant_post_dynamic(
    model_dir: str | Path,
    save_model_dir: str | Path,
    model_filename: str | None = None,
    params_filename: str | None = None,
    save_model_filename: str | None = None,
    save_params_filename: str | None = None,
    quantizable_op_type: Collection[str] = tuple(WEIGHT_ONLY_OP_TYPES),
    weight_bits: int = 8,
    weight_quantize_type: str = "channel_wise_abs_max",
    generate_test_model: bool = False,
    lite_format: bool = False,
    skip_tensor_list: Collection[str] | None = None,
) -> QuantizationResult:
    """Store the weights of a model as int8 or int16; it then computes in float as before.

    The result runs in Paddle's Executor and Predictor as it is: ``cast`` and ``elementwise_mul``
    make the float weights again, once, when the Predictor optimises the program at load time.

    Args:
        model_dir: directory of the model (see `pyquant.load_model`).
        save_model_dir: as in PaddleSlim, the model goes into ``quantized_model`` below it, and the
            float twin into ``test_model``.
        model_filename: the program's file; None finds it.
        params_filename: the combined parameter file; None finds it, or takes separate files.
        save_model_filename: None is ``model.pdmodel``, or for a model read from Paddle 3's
            ``.json``, ``model.json``. Such a model is written in the form that its name says.
        save_params_filename: None is the program's name with ``.pdiparams``.
        quantizable_op_type: op types whose weights are quantized.
        weight_bits: 8 or 16.
        weight_quantize_type: ``"channel_wise_abs_max"`` or ``"abs_max"`` (one per tensor).
        generate_test_model: also write the float model of the dequantized weights.
        lite_format: write Paddle-Lite's form instead: integer weights, and their scales as
            attributes of the ops. Paddle itself cannot run it.
        skip_tensor_list: weights, or inputs or outputs of ops, whose ops stay in float.

    Returns:
        What was quantized, with which scale, and what stays in float, and why.

    Raises:
        ModelFileError: the model cannot be read.
        SettingError: an argument is wrong, or nothing in the model can be quantized.
        UnsupportedError: the model is quantized already, or has ops that are not known.
        OutputError: the result cannot be written; nothing has changed on the disk.
    """
    check_op_types(quantizable_op_type, WEIGHT_ONLY_OP_TYPES)
    check_choice("weight_bits", weight_bits, WEIGHT_BITS)
    check_choice("weight_quantize_type", weight_quantize_type, WEIGHT_QUANTIZE_TYPES)
    watch = Stopwatch()
    model = load_model(model_dir, model_filename, params_filename)
    ops, kept = find_weighted_ops(model, quantizable_op_type, skip_tensor_list or ())
    watch.lap("load")
    weights = quantize_weights(model, ops, weight_bits, weight_quantize_type != "abs_max")
    watch.lap("quantize")
    filename = save_model_filename or _default_filename(model, lite_format)
    params = save_params_filename or str(Path(filename).with_suffix(".pdiparams"))
    bytes_before = file_bytes(model.source_files)
    outputs = _Outputs(Path(save_model_dir), filename, params, generate_test_model, lite_format)
    write = _write_json if filename.endswith(".json") else _write_pdmodel
    with OutputFiles(outputs.directory) as files:
        paths, test_path = write(files, outputs, model, weights, ops)
    watch.lap("save")
    return QuantizationResult(
        model_path=paths[0],
        params_path=paths[1],
        quantized=weight_tensors(weights, ops),
        kept_float=kept,
        bytes_before=bytes_before,
        bytes_after=file_bytes(paths),
        seconds=watch.seconds,
        test_model_path=test_path,
    )


class _Outputs(NamedTuple):
    """What to write, and where."""

    directory: Path
    model_filename: str
    params_filename: str
    test_model: bool
    lite_format: bool

    @property
    def model_directory(self) -> Path:
        return self.directory / "quantized_model"

    @property
    def test_model_directory(self) -> Path:
        return self.directory / "test_model"


def _default_filename(model: Model, lite_format: bool) -> str:
    """Return a name that keeps the format of the source where that can be."""
    return "model.json" if model.pir is not None and not lite_format else "model.pdmodel"


def _write_pdmodel(
    files: OutputFiles,
    outputs: _Outputs,
    model: Model,
    weights: Mapping[str, QuantizedWeight],
    ops: Sequence[WeightedOp],
) -> tuple[tuple[Path, ...], Path | None]:
    names = outputs.model_filename, outputs.params_filename
    twin = _dequantized_twin(model, weights, ops) if outputs.test_model else None
    store = _store_for_lite if outputs.lite_format else _store_for_paddle
    store(model, weights, ops)
    paths = write_model(files, model, outputs.model_directory, *names)
    if twin is None:
        return paths, None
    return paths, write_model(files, twin, outputs.test_model_directory, *names)[0]


def _write_json(
    files: OutputFiles,
    outputs: _Outputs,
    model: Model,
    weights: Mapping[str, QuantizedWeight],
    ops: Sequence[WeightedOp],
) -> tuple[tuple[Path, ...], Path | None]:
    if outputs.lite_format:
        raise SettingError(
            f"{outputs.model_filename}: Paddle-Lite reads .pdmodel alone. Name it .pdmodel."
        )
    names = outputs.model_filename, outputs.params_filename
    program = JsonProgram(model)
    program.store_integers(weights, ops)
    paths = program.write(files, outputs.model_directory, *names)
    if not outputs.test_model:
        return paths, None
    twin = JsonProgram(model)
    twin.store_floats(weights, ops)
    return paths, twin.write(files, outputs.test_model_directory, *names)[0]


def _store_for_paddle(
    model: Model, weights: Mapping[str, QuantizedWeight], ops: Sequence[WeightedOp]
) -> None:
    rewriter = Rewriter(model)
    rewriter.dequantize_weights_by_scale(weights, ops)
    rewriter.apply()


def _store_for_lite(
    model: Model, weights: Mapping[str, QuantizedWeight], ops: Sequence[WeightedOp]
) -> None:
    """Write the attributes that Paddle-Lite's weight_quantization_preprocess_pass reads."""
    stored = store_weights(model, {name: weight.values for name, weight in weights.items()}, ops)
    for op in ops:
        weight = weights[op.weight]
        desc = model.program.blocks[op.block].ops[op.position]
        rename_inputs(desc, stored)
        kind = "abs_max" if weight.axis < 0 else "channel_wise_abs_max"
        set_attribute(desc, "quantization_type", f"post_weight_{kind}")
        set_attribute(desc, "quantize_weight_bits", weight.bits)
        set_attribute(desc, f"{stored[op.weight]}_quant_scale", weight.scale.ravel().tolist())
        set_attribute(desc, "with_quant_attr", True)


def _dequantized_twin(
    model: Model, weights: Mapping[str, QuantizedWeight], ops: Sequence[WeightedOp]
) -> Model:
    program = ProgramDesc()
    program.CopyFrom(model.program)
    twin = replace(model, program=program, parameters=dict(model.parameters))
    floats = {name: weight.dequantized() for name, weight in weights.items()}
    stored = store_weights(twin, floats, ops)
    for op in ops:
        rename_inputs(program.blocks[op.block].ops[op.position], stored)
    return twin
