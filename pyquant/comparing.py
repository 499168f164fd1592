"""The per-layer report: compares a quantized model with the float model it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from .calibration.data import Feed
from .calibration.iteration import Source
from .calibration.source import CalibrationData
from .comparison.equalized import Equalized, equalized
from .comparison.paired import PairedRun
from .comparison.quantization import Quantization, read_quantization
from .comparison.report import ComparedTensor, Comparison
from .comparison.weights import compare_weight, float_name
from .errors import CalibrationDataError, SettingError
from .program import proto
from .program.folding.fold import fold
from .program.model import Model, copy_model, load_model
from .program.quantizable import ACTIVATION_OP_TYPES
from .progress import progress_bar
from .record import read_record
from .result import file_bytes

_FOLDED = "the float model was folded first, as the quantized one was"
_EQUALIZED = "the float model was equalized first, as the quantized one was"
_LEFT = "the factors of '{}' cannot be applied to the float model: its values differ there"


def compare(
    float_model: str | Path | Model,
    quantized_model: str | Path | Model,
    batch_generator: Source | None = None,
    sample_generator: Source | None = None,
    data_loader: Source | None = None,
    batch_size: int = 1,
    batch_nums: int | None = None,
) -> Comparison:
    """Run both models over the same data, and compare every tensor that is quantized.

    Both run op by op. The quantized model runs in fake quantization, as its program says, so errors
    add up as they really do. Its outputs are compared a second time as its int8 kernels compute
    them, which may differ.

    Tensors are matched by name; the float model is folded and equalized first if the quantized one
    was. A tensor that the float model lacks is listed with what is known of it alone. Memory holds
    one batch of the float model's compared tensors and the quantized model's forward pass; nothing
    else grows with the data.

    Args:
        float_model: its directory or program, or what `pyquant.load_model` returned for it.
        quantized_model: likewise, what `quant_post_static` or `quant_post_dynamic` wrote for it.
        batch_generator: as in `quant_post_static`.
        sample_generator: likewise.
        data_loader: likewise.
        batch_size: likewise.
        batch_nums: likewise.

    Returns:
        The threshold, saturation, SQNR and cosine of every quantized activation and weight, and
        the SQNR and cosine of the outputs of the quantized ops and of the model.
        `Comparison.table` turns it into text, `save_page` into a page.

    Raises:
        ModelFileError: a model cannot be read, or Paddle cannot load it.
        SettingError: an argument is wrong, the models do not belong together, the float model is
            quantized, or the quantized one is not.
        UnsupportedError: the quantized model is in Paddle-Lite's form, or has unknown ops, or an
            input holds variable-length sequences (LoD).
        CalibrationDataError: there is no data, or a batch does not fit the models.

    Example:
        >>> comparison = pyquant.compare("float", "int8", data_loader=batches)
        >>> comparison.verdict.headline
        'Near float: look at your own metric'
        >>> pyquant.save_page(comparison, "report.html")
    """
    sources = {
        "batch_generator": batch_generator,
        "sample_generator": sample_generator,
        "data_loader": data_loader,
    }
    data = CalibrationData(sources, batch_size, batch_nums)
    before, after = _loaded(float_model), _loaded(quantized_model)
    quantization = _checked_quantization(before, after)
    alike = _most_alike(before, quantization)
    before = alike.model
    weights = _compared_weights(before, quantization)
    run = PairedRun(before, after, quantization)
    batches = samples = 0
    for feed in progress_bar(data.feeds(before), "comparing", data.batches()):
        run.batch(feed, batches)
        batches += 1
        samples += _samples(feed)
    if not batches:
        raise CalibrationDataError("data to compare on: it yields nothing. Give a batch at least.")
    tensors = [_named(tensor, alike.names) for tensor in (*run.compared(), *weights)]
    notes = [*run.notes, *([_FOLDED] if before.folded is not None else [])]
    notes += [_EQUALIZED] if alike.names else []
    notes += [_LEFT.format(name) for name in sorted(alike.left)]
    paths = [source for source in sources.values() if isinstance(source, (str, Path))]
    return Comparison(
        before.model_path,
        after.model_path,
        batches,
        samples,
        tensors,
        notes,
        float_bytes=file_bytes(before.source_files),
        quantized_bytes=file_bytes(after.source_files),
        kept_float=_kept_float(after, quantization),
        weights_of=_weights_of(before, after, quantization),
        record=read_record(after.model_path),
        data=quote(str(paths[0])) if paths else "DATA",
    )


def _weights_of(before: Model, after: Model, quantization: Quantization) -> dict[str, str]:
    """Return the float weight of the op that computes each output, by the output's name."""
    producers, found = after.producers(), dict[str, str]()
    for output in quantization.outputs:
        name: str | None = output.value.name
        for _ in range(_BEHIND):
            op = None if name is None else producers.get(name)
            if op is None:
                break
            weights = [
                quantization.weights[one] for one in op.reads() if one in quantization.weights
            ]
            if weights:
                found[output.value.name] = float_name(before, weights[0].name)
                break
            name = next(iter(op.inputs("X")), None)
    return found


_BEHIND = 3  # ops from a product to its output: a scale, a bias, an activation


def _kept_float(after: Model, quantization: Quantization) -> tuple[tuple[str, str], ...]:
    """Return type and output of the ops that read no integers, of a model that has some."""
    activations = quantization.activations
    if not activations:
        return ()
    return tuple(
        (op.type, op.writes()[0])
        for op in after.ops()
        if op.type in ACTIVATION_OP_TYPES and activations.keys().isdisjoint(op.reads())
    )


def _loaded(model: str | Path | Model) -> Model:
    return model if isinstance(model, Model) else load_model(model)


def _compared_weights(before: Model, quantization: Quantization) -> list[ComparedTensor]:
    return [
        compare_weight(before, weight, quantization.op_types.get(name, ()))
        for name, weight in quantization.weights.items()
    ]


def _named(tensor: ComparedTensor, names: Mapping[str, str]) -> ComparedTensor:
    """Give a tensor its name in the float model before equalization."""
    if tensor.name not in names:
        return tensor
    return replace(tensor, name=names[tensor.name], equalized=True)


def _most_alike(before: Model, quantization: Quantization) -> Equalized:
    """Return the float model with the quantized one's factors, folded first if that fits better."""
    candidates = [before]
    for shifts in (True, False):
        folded = copy_model(before)
        fold(folded, shifts=shifts)
        candidates.append(folded)
    divided = [equalized(model, quantization) for model in candidates]
    return max(divided, key=lambda candidate: _in_common(candidate, quantization))


def _in_common(candidate: Equalized, quantization: Quantization) -> int:
    """Count the weights that were quantized unchanged, and the quantized activations."""
    model = candidate.model
    computed = {*model.writes(), *(var.name for var in model.feeds)} - {*candidate.left}
    activations = quantization.activations.values()
    return sum(not weight.note for weight in _compared_weights(model, quantization)) + sum(
        activation.value.name in computed for activation in activations
    )


def _checked_quantization(before: Model, after: Model) -> Quantization:
    """Return what ``after`` quantizes; check that it belongs to ``before``."""
    if _is_quantized(read_quantization(before)):
        raise SettingError(
            f"{before.model_path}: it is quantized. Give the float model first, then the "
            "quantized one."
        )
    quantization = read_quantization(after)
    if not _is_quantized(quantization):
        raise SettingError(
            f"{after.model_path}: nothing in it is quantized: it has neither quantize_linear and "
            "dequantize_linear ops, nor oneDNN's int8 ops, nor integer weights. Give what "
            "quant_post_static or quant_post_dynamic wrote."
        )
    if not _take_the_same(before, after):
        takes = [[_described(var) for var in model.feeds] for model in (before, after)]
        raise _strangers(before, after, f"the one takes {takes[0]}, the other {takes[1]}")
    computed = {activation.value.name for activation in quantization.activations.values()}
    computed |= {output.value.name for output in quantization.outputs}
    stored = {float_name(before, weight.name) for weight in quantization.weights.values()}
    inputs = {var.name for var in before.feeds}
    known = before.writes().keys() - inputs
    if not (computed & known or stored & before.parameters.keys()):
        some = min(stored | computed - inputs)
        raise _strangers(before, after, f"they have no tensor in common, not even '{some}'")
    return quantization


def _is_quantized(quantization: Quantization) -> bool:
    return bool(quantization.activations or quantization.weights)


def _take_the_same(before: Model, after: Model) -> bool:
    """Return whether two models have the same inputs, with compatible shapes."""
    ours = {var.name: proto.tensor_desc(var) for var in before.feeds}
    theirs = {var.name: proto.tensor_desc(var) for var in after.feeds}
    return ours.keys() == theirs.keys() and all(
        desc.data_type == theirs[name].data_type
        and len(desc.dims) == len(theirs[name].dims)
        and all(-1 in pair or pair[0] == pair[1] for pair in zip(desc.dims, theirs[name].dims))
        for name, desc in ours.items()
    )


def _described(var: Any) -> str:
    desc = proto.tensor_desc(var)
    return f"{var.name} {proto.dtype_name(desc.data_type)}{list(desc.dims)}"


def _strangers(before: Model, after: Model, why: str) -> SettingError:
    return SettingError(
        f"{before.model_path} and {after.model_path} do not belong together: {why}. "
        "Give the float model that the quantized one was made from."
    )


def _samples(feed: Feed) -> int:
    return max((len(array) for array in feed.values() if array.ndim), default=1)
