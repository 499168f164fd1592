"""Dynamic mode: quantizes weights to 4, 8 or 16 bits, without data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import NonFiniteWeightError, SettingError
from .program import proto
from .program.graph import Graph
from .program.grouped_weights import PACKED_BITS, AnyWeight, GroupedWeight, groups_of
from .program.matrix_products import why_misread
from .program.misfusion import keep_apart
from .program.model import QUANTIZED, Model, copy_model, load_model, write_model
from .program.names import DEQUANTIZED
from .program.onnx_model.export import OnnxModel, is_onnx, to_onnx, write_onnx
from .program.onnx_model.weights import OPSET as WEIGHTS_OPSET
from .program.output_files import OutputFiles
from .program.quantizable import (
    OTHER,
    WEIGHT_ONLY_OP_TYPES,
    FloatOp,
    WeightedOp,
    check_quantizable,
    find_other_readers,
    find_weighted_ops,
    refuse_nothing,
    stays_float,
    with_large_parameters,
)
from .program.rewrite_json import JsonProgram, write_json
from .program.stored_weights import dequantize_by_scale, dequantize_groups, store_weights
from .program.targets.paddle_lite import ops_for_lite, store_for_lite
from .program.weights import WEIGHT_QUANTIZE_TYPES, QuantizedWeight, quantize_weights
from .record import copy_preprocessing, count_tensors, write_record
from .result import (
    FLOAT,
    ONNX,
    PADDLE_LITE,
    QuantizationResult,
    Stopwatch,
    file_bytes,
    weight_tensors,
)
from .settings import check_choice, check_op_types

WEIGHT_BITS = (4, 8, 16)
GROUP_SIZES = (32, 64, 128, 256)
MSE = "mse"
DYNAMIC_QUANTIZE_TYPES = (*WEIGHT_QUANTIZE_TYPES, MSE)

_GROUP_OF_4_BITS = 64


def quant_post_dynamic(
    model_dir: str | Path,
    save_model_dir: str | Path,
    model_filename: str | None = None,
    params_filename: str | None = None,
    save_model_filename: str | None = None,
    save_params_filename: str | None = None,
    quantizable_op_type: Collection[str] = tuple(WEIGHT_ONLY_OP_TYPES),
    weight_bits: int = 8,
    generate_test_model: bool = False,
    weight_quantize_type: str | None = None,
    lite_format: bool = False,
    skip_tensor_list: Collection[str] | None = None,
    group_size: int | None = None,
) -> QuantizationResult:
    """Store the weights of a model as integers; the model still computes in float.

    The result runs in Paddle's Executor and Predictor as it is: ops such as ``cast`` and
    ``elementwise_mul`` restore the float weights, once, when the Predictor optimizes the program at
    load time.

    Args:
        model_dir: directory of the model (see `pyquant.load_model`).
        save_model_dir: as in PaddleSlim, the model goes into ``quantized_model`` below it, and the
            float twin into ``test_model``. A name that ends in ``.onnx`` is that of the model's
            file; the twin goes into ``test_model`` beside it.
        model_filename: the program's file; None finds it.
        params_filename: the combined parameter file; None finds it, or takes separate files.
        save_model_filename: None means ``model.pdmodel``, or ``model.json`` for a model read from
            Paddle 3's ``.json``. Such a model is written in the format that the suffix names.
            Any model can be written as ``.onnx``, of opset 21: its integers are behind
            ``DequantizeLinear``.
        save_params_filename: None means the program's name with ``.pdiparams``.
        quantizable_op_type: op types whose weights are quantized. A weight may also reach its op
            through ops that only reshape it, as ``conv1d``'s filter does. For ``rnn`` (LSTM, GRU
            and simple RNN), all matrices are quantized, by their rows. ``other`` stands for
            parameters of 64 KiB or more that ops read otherwise, such as tables of positions; they
            become int16. PaddleSlim's default is ``conv2d`` and ``mul``.
        weight_bits: 4, 8 or 16. With 4, two integers share a byte. Weights that cannot be in groups
            have 8.
        generate_test_model: also write a float model with the dequantized weights.
        weight_quantize_type: ``"channel_wise_abs_max"`` (one threshold per channel, or per group),
            ``"abs_max"`` (one per tensor) or ``"mse"`` (per group, the step of least squared error
            among a few). None means ``"mse"`` for groups, ``"channel_wise_abs_max"`` otherwise.
        lite_format: write Paddle-Lite's form instead: integer weights, and their scales as
            attributes of the ops. Paddle itself cannot run it. Paddle-Lite takes integer weights of
            ``conv2d``, ``depthwise_conv2d``, ``mul`` and ``lookup_table``; others stay float.
        skip_tensor_list: weights, or inputs or outputs of ops; these ops stay in float.
        group_size: give every so many inputs of a channel (32, 64, 128 or 256) a step of their own;
            fewer, down to 16, where that does not divide the inputs. None means whole channels, and
            64 with 4 bits.

    Returns:
        What was quantized and with which scale, and what stays in float and why. The latter lists
        ops with a weight, also if it holds NaN or infinity, and, with their bytes, all float
        parameters of 64 KiB or more, which is more than biases and normalizations take.

    Raises:
        ModelFileError: the model cannot be read.
        SettingError: an argument is wrong, or nothing in the model can be quantized.
        UnsupportedError: the model is already quantized, or has unknown ops.
        OutputError: the result cannot be written; nothing has changed on the disk.

    Example:
        >>> pyquant.quant_post_dynamic("float", "small", weight_bits=8)
        <QuantizationResult: 3 weights, small/quantized_model/model.pdmodel>
    """
    check_op_types(quantizable_op_type, WEIGHT_ONLY_OP_TYPES)
    check_choice("weight_bits", weight_bits, WEIGHT_BITS)
    grouping = _Grouping.of(weight_bits, weight_quantize_type, group_size, lite_format)
    watch = Stopwatch()
    model = load_model(model_dir, model_filename, params_filename)
    check_quantizable(model, skip_tensor_list or ())
    ops, kept = _part(model, quantizable_op_type, skip_tensor_list or (), lite_format)
    per_channel = weight_quantize_type != "abs_max"
    by_channel = quantize_weights(model, ops, max(8, weight_bits), per_channel)
    weights: dict[str, AnyWeight] = {**by_channel}
    if grouping is not None:
        weights.update(grouping.of_weights(by_channel, ops))
    if OTHER in quantizable_op_type and not lite_format:
        others = find_other_readers(model, ops, kept, skip_tensor_list or ())
        more, lossy = _as_int16(model, others, weights, per_channel)
        ops, kept = [*ops, *(op for op in others if op not in lossy)], [*kept, *lossy.values()]
        weights.update(more)
    refuse_nothing(model, quantizable_op_type, ops, kept)
    watch.lap("load")
    directory, folder, filename = Path(save_model_dir), QUANTIZED, save_model_filename
    if is_onnx(directory):
        directory, folder, filename = _onnx_target(directory, filename)
    filename = filename or _default_filename(model, lite_format)
    params = save_params_filename or str(Path(filename).with_suffix(".pdiparams"))
    bytes_before = file_bytes(model.source_files)
    settings = {
        "quantizable_op_type": quantizable_op_type,
        "weight_bits": weight_bits,
        "weight_quantize_type": weight_quantize_type,
        "group_size": group_size,
        "lite_format": lite_format,
        "skip_tensor_list": skip_tensor_list,
    }
    result = _Result(
        directory, folder, filename, params, generate_test_model, lite_format, settings
    )
    try:
        paths, test_path = result.write(model, weights, ops)
    except NonFiniteWeightError:
        # Weights are first read while they are written. The files written so far are removed.
        ops, kept = _without_non_finite(model, weights, ops, kept)
        refuse_nothing(model, quantizable_op_type, ops, kept)
        weights = {op.weight: weights[op.weight] for op in ops}
        paths, test_path = result.write(model, weights, ops)
    watch.lap("save")
    return QuantizationResult(
        model_path=paths[0],
        params_path=None if is_onnx(filename) else paths[1],
        quantized=weight_tensors(weights, ops),
        kept_float=with_large_parameters(model, ops, kept),
        bytes_before=bytes_before,
        bytes_after=file_bytes(paths),
        seconds=watch.seconds,
        notes=_notes(model, filename),
        test_model_path=test_path,
        target=result.target,
    )


quant_post_only_weight = quant_post_dynamic
"""PaddleSlim's old name for `quant_post_dynamic`."""


def _notes(model: Model, filename: str) -> list[str]:
    """Note what Paddle does not run in the format that is written."""
    resized = [op for op in model.ops() if op.type in _RESIZING and op.floats("scale")]
    if not filename.endswith(".json") or not resized:
        return []
    return [
        f"oneDNN does not run {resized[0].type} '{resized[0].output()}' of a .json, in float "
        "either: Paddle cannot read its scale (ConvertPirAttribute2RuntimeAttribute). Run it "
        "without oneDNN, or name the result .pdmodel by save_model_filename"
    ]


_RESIZING = ("nearest_interp_v2", "bilinear_interp_v2")


def _default_filename(model: Model, lite_format: bool) -> str:
    """Return a name that keeps the format of the source where possible."""
    return "model.json" if model.pir is not None and not lite_format else "model.pdmodel"


def _onnx_target(path: Path, filename: str | None) -> tuple[Path, str, str]:
    """Return the directory of an ``.onnx`` file, no folder in it, and the name."""
    if filename is not None:
        raise SettingError(
            f"save_model_filename: '{path}' names the file already. Leave out '{filename}'."
        )
    return path.parent, "", path.name


def _part(
    model: Model, op_types: Collection[str], skip_tensors: Collection[str], lite_format: bool
) -> tuple[list[WeightedOp], list[FloatOp]]:
    """Return the ops whose weights become integers, and those that stay in float."""
    ops, kept = find_weighted_ops(model, op_types, skip_tensors, takes_reshaped=not lite_format)
    if lite_format:
        ops, more = ops_for_lite(model, ops)
    else:
        misread = why_misread(model, ops)
        more = [stays_float(model, op, why) for op, why in misread.items()]
        ops = [op for op in ops if op not in misread]
    return ops, kept + more


def _as_int16(
    model: Model,
    others: Sequence[WeightedOp],
    known: Collection[str],
    per_channel: bool,
) -> tuple[dict[str, AnyWeight], dict[WeightedOp, FloatOp]]:
    """Return the large parameters that ``others`` alone read as int16, and what stays in float.

    They may be tables of positions or masks, which 8 bits would harm.
    """
    own = [op for op in others if op.weight not in known]
    weights = quantize_weights(model, own, 16, per_channel)
    lossy = {}
    for name, weight in weights.items():
        if weight.why_float is None and (lost := weight.share_lost) > _MOST_LOST:
            lossy[name] = f"{lost:.0%} of the values of '{name}' would become zero as int16"
    kept = {op: stays_float(model, op, lossy[op.weight]) for op in own if op.weight in lossy}
    return {name: weight for name, weight in weights.items() if name not in lossy}, kept


_MOST_LOST = 0.01  # of a normal distribution, int16 loses a ten-thousandth


def _without_non_finite(
    model: Model,
    weights: Mapping[str, AnyWeight],
    ops: Sequence[WeightedOp],
    kept: Sequence[FloatOp],
) -> tuple[list[WeightedOp], list[FloatOp]]:
    """Return the ops whose weights are finite, and ``kept`` extended by the others."""
    reasons = {name: weight.why_float for name, weight in weights.items()}
    refused = [
        stays_float(model, op, reason) for op in ops if (reason := reasons[op.weight]) is not None
    ]
    return [op for op in ops if reasons[op.weight] is None], [*kept, *refused]


@dataclass(frozen=True)
class _Grouping:
    """How weights are quantized in groups."""

    bits: int
    size: int
    searches: bool

    @classmethod
    def of(
        cls, bits: int, kind: str | None, size: int | None, lite_format: bool
    ) -> _Grouping | None:
        """Return what the arguments ask for, None if not for groups; check them."""
        if kind is not None:
            check_choice("weight_quantize_type", kind, DYNAMIC_QUANTIZE_TYPES)
        if size is None and bits == PACKED_BITS:
            size = _GROUP_OF_4_BITS
        if size is None:
            if kind == MSE:
                raise SettingError("weight_quantize_type: 'mse' is for groups. Give group_size.")
            return None
        check_choice("group_size", size, GROUP_SIZES)
        if bits > 8:
            raise SettingError(
                f"weight_bits: groups have 4 or 8, not {bits}. Leave out group_size."
            )
        if lite_format:
            raise SettingError("lite_format: Paddle-Lite takes no groups. Leave out group_size.")
        if kind == "abs_max":
            raise SettingError("weight_quantize_type: 'abs_max' is one threshold, not for groups.")
        return cls(bits, size, kind in (None, MSE))

    def of_weights(
        self, weights: Mapping[str, QuantizedWeight], ops: Sequence[WeightedOp]
    ) -> dict[str, AnyWeight]:
        """Return those of ``weights`` whose inputs can be in groups, by name."""
        axes = {op.weight: op.channel_axis for op in reversed(ops)}
        found: dict[str, AnyWeight] = {}
        for name, weight in weights.items():
            groups = groups_of(weight.stored.shape, axes[name], self.size)
            if groups is not None:
                found[name] = GroupedWeight(
                    name, weight.stored, groups, self.bits, self.searches, weight.file
                )
        return found


@dataclass(frozen=True)
class _Result:
    """Where and in which format the quantized model is written."""

    directory: Path  # its ``test_model`` gets the twin
    folder: str  # of the directory, for the model
    filename: str  # of the program; the suffix names the format
    params: str
    with_twin: bool
    lite_format: bool
    settings: Mapping[str, Any]  # the arguments, for the record

    @property
    def target(self) -> str:
        """What runs the result."""
        if is_onnx(self.filename):
            return ONNX
        return PADDLE_LITE if self.lite_format else FLOAT

    def write(
        self, model: Model, weights: Mapping[str, AnyWeight], ops: Sequence[WeightedOp]
    ) -> tuple[tuple[Path, ...], Path | None]:
        """Write the quantized form of ``model``, which itself stays unchanged.

        Returns the paths of the quantized model's files, and of the twin's program if there is one.
        Raises NonFiniteWeightError if a weight holds NaN or infinity, without changing the disk.
        """
        write: Callable[..., tuple[Path, ...]] = write_model
        if self.filename.endswith(".json"):
            write = write_json
            _refuse_lite(self.filename, self.lite_format)
            quantized, twin = _json_programs(model, weights, ops, self.with_twin)
        elif is_onnx(self.filename):
            write = _write_onnx
            _refuse_lite(self.filename, self.lite_format)
            quantized, twin = _onnx_programs(model, weights, ops, self.with_twin)
        else:
            quantized, twin = _models(model, weights, ops, self.with_twin, self.lite_format)
        test_path = None
        with OutputFiles(self.directory) as files:
            into = self.directory / self.folder
            paths = write(files, quantized, into, self.filename, self.params)
            found = {"quantized": count_tensors(weight_tensors(weights, ops))}
            write_record(files, paths[0], model, self.target, self.settings, found)
            copy_preprocessing(files, model, into)
            if twin is not None:
                into = self.directory / "test_model"
                test_path = write(files, twin, into, self.filename, self.params)[0]
        return paths, test_path


def _write_onnx(
    files: OutputFiles, written: OnnxModel, directory: Path, filename: str, _: str
) -> tuple[Path, ...]:
    return write_onnx(files, written, directory / filename)


def _refuse_lite(filename: str, lite_format: bool) -> None:
    if lite_format:
        raise SettingError(f"{filename}: Paddle-Lite reads .pdmodel alone. Name it .pdmodel.")


def _models(
    model: Model,
    weights: Mapping[str, AnyWeight],
    ops: Sequence[WeightedOp],
    with_twin: bool,
    lite_format: bool,
) -> tuple[Any, Any]:
    """Return a copy of ``model`` with quantized weights, and the float twin or None."""
    twin = _dequantized_twin(model, weights, ops) if with_twin else None
    if twin is not None:
        keep_apart(twin)
    quantized = copy_model(model)
    if lite_format:
        by_channel = {n: one for n, one in weights.items() if isinstance(one, QuantizedWeight)}
        store_for_lite(quantized, by_channel, ops)
    else:
        _store_for_paddle(quantized, weights, ops)
    return quantized, twin


def _onnx_programs(
    model: Model,
    weights: Mapping[str, AnyWeight],
    ops: Sequence[WeightedOp],
    with_twin: bool,
) -> tuple[Any, Any]:
    """Return the model in ONNX with quantized weights, and the float twin or None."""
    twin = to_onnx(_dequantized_twin(model, weights, ops), WEIGHTS_OPSET) if with_twin else None
    changed = copy_model(model)
    graph = Graph(changed)
    names = dict[str, str]()
    for op in ops:
        if op.weight not in names:
            data_type = proto.paddle_dtype(weights[op.weight].stored.dtype)
            names[op.weight] = graph.add_variable(f"{op.weight}{DEQUANTIZED}", op.weight, data_type)
        graph.rename_input(graph.number(op.block, op.read_at), op.weight, names[op.weight])
    graph.write_back()
    behind = {name: weights[weight] for weight, name in names.items()}
    return to_onnx(changed, WEIGHTS_OPSET, behind), twin


def _json_programs(
    model: Model,
    weights: Mapping[str, AnyWeight],
    ops: Sequence[WeightedOp],
    with_twin: bool,
) -> tuple[Any, Any]:
    """Return the ``.json`` program with quantized weights, and the float twin or None."""
    quantized = JsonProgram(model)
    quantized.store_integers(weights, ops)
    if not with_twin:
        return quantized, None
    twin = JsonProgram(model)
    twin.store_floats(weights, ops)
    return quantized, twin


def _store_for_paddle(
    model: Model, weights: Mapping[str, AnyWeight], ops: Sequence[WeightedOp]
) -> None:
    graph = Graph(model)
    grouped = {name: one for name, one in weights.items() if isinstance(one, GroupedWeight)}
    others = {name: one for name, one in weights.items() if isinstance(one, QuantizedWeight)}
    dequantize_by_scale(graph, others, [op for op in ops if op.weight in others])
    dequantize_groups(graph, grouped, [op for op in ops if op.weight in grouped])
    graph.write_back()
    keep_apart(model)


def _dequantized_twin(
    model: Model, weights: Mapping[str, AnyWeight], ops: Sequence[WeightedOp]
) -> Model:
    twin = copy_model(model)
    floats = {name: weight.dequantized for name, weight in weights.items()}
    graph = Graph(twin)
    stored = store_weights(graph, floats, ops)
    for op in ops:
        number = graph.number(op.block, op.read_at)
        graph.rename_input(number, op.weight, stored[op.weight])
    graph.write_back()
    return twin
