"""Factors of channels, and thresholds chosen by what they cost the outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
import static_runs
from comparisons import find
from paddle_run import execute, relative_error, run
from processors import deployed, needs_vnni
from programs import STRAIGHT, UNPADDED, Net
from static_runs import RUN, error_of, model_bytes

from pyquant import (
    Calibration,
    SettingError,
    UnsupportedError,
    calibrate,
    compare,
    load_model,
    quant_post_static,
    save_model,
    save_page,
)
from pyquant.calibration import channel_factors
from pyquant.calibration.channel_statistics import by_channel
from pyquant.calibration.layouts import LAYOUTS
from pyquant.calibration.samples import ActivationSample
from pyquant.calibration.statistic import ActivationHistogram, ActivationMaxima, empty_statistic
from pyquant.program import proto

BACKENDS = ["QDQ", "OneDNN"]
# Of the worst tensor; some weights have 7 bits, and ranges have room for new values.
SQNR = {"QDQ": 34, "OneDNN": 33}


def uneven(shape: tuple[int, ...], axis: int, seed: int = 0) -> Any:
    """Random values, one channel of which is a hundred times as large."""
    values = programs.random(shape, seed)
    np.moveaxis(values, axis, 0)[1] *= 100
    return values


def heavy_tailed(shape: tuple[int, ...]) -> Any:
    """Values whose largest grow with their number, as those of a decoder's gated units do."""
    return np.random.default_rng(0).standard_t(4, shape).astype(np.float32)


def product() -> tuple[Net, Any, str]:
    net = Net([4, 6, 32])
    net.matmul(16, **STRAIGHT)
    net.parameters["w1"][1] *= np.float32(0.01)
    return net.end(), uneven((4, 6, 32), -1), "x"


def convolution() -> tuple[Net, Any, str]:
    net = Net([4, 8, 12, 12]).conv(8, UNPADDED)
    net.parameters["w1"][:, 1] *= np.float32(0.01)
    return net.end(), uneven((4, 8, 12, 12), 1), "x"


def behind_relu(pooled: bool = False, scaled: bool = False) -> tuple[Net, Any, str]:
    """A convolution, which can absorb the factors, makes the large channel."""
    net = Net([4, 8, 12, 12]).conv(8).constant("elementwise_add", np.linspace(-1, 1, 8), 1)
    if scaled:
        net.constant("elementwise_mul", np.linspace(1, 2, 8), 1)
    net.act("relu")
    if pooled:
        net.dims = [4, 8, 6, 6]
        attributes = {"pooling_type": "max", "ksize": [2, 2], "strides": [2, 2], "paddings": [0, 0]}
        net.then("pool2d", {"X": net.last}, "Out", attributes)
    name = net.last
    net.conv(8)
    first, last = (name for name in net.parameters if name.startswith("w"))
    net.parameters[first][1] *= np.float32(100)
    net.parameters[last][:, 1] *= np.float32(0.01)
    return net.end(), programs.random((4, 8, 12, 12), 3), name


def behind_norm() -> tuple[Net, Any, str]:
    net = Net([4, 6, 32])
    gains = np.ones(32, np.float32)
    gains[1] = 100
    inputs = {"Scale": net.parameter("gains", gains), "Bias": net.parameter("shifts", gains - 1)}
    net.then("layer_norm", {"X": net.last, **inputs}, "Y", {"begin_norm_axis": 2})
    for slot in ("Mean", "Variance"):
        proto.add_var(net.block, slot, proto.FP32, [-1])
        net.block.ops[-1].outputs.add(parameter=slot, arguments=[slot])
    name = net.last
    net.matmul(16, **STRAIGHT)
    net.parameters["w1"][1] *= np.float32(0.01)
    return net.end(), programs.random((4, 6, 32), 3), name


INSERTED: dict[str, Callable[[], tuple[Net, Any, str]]] = {
    "product": product,
    "convolution": convolution,
}
TAKEN_IN: dict[str, Callable[[], tuple[Net, Any, str]]] = {
    "relu": behind_relu,
    "folded": lambda: behind_relu(scaled=True),
    "pooling": lambda: behind_relu(pooled=True),
    "layer_norm": behind_norm,
}


def quantized(directory: Path, data: Any, backend: str | None, **options: Any) -> Any:
    form = deployed(backend) if data.ndim == 4 else {"deploy_backend": backend}
    return static_runs.quantized(directory, [data[:1], data[1:]], **form, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*INSERTED, *TAKEN_IN])
@pytest.mark.parametrize(
    ("round_type", "equalize"), [("round", None), ("round", True), ("adaround", True)]
)
def test_uneven_channels_cost_less(
    tmp_path: Path, name: str, backend: str, round_type: str, equalize: bool | None
) -> None:
    net, data, activation = {**INSERTED, **TAKEN_IN}[name]()
    net.save(tmp_path / "float")
    options = {"algo": "abs_max", "round_type": round_type}
    quantized(tmp_path, data, backend, **options, equalize=False)
    before = error_of(tmp_path, data, RUN[backend])
    quantized(tmp_path, data, backend, **options, equalize=equalize)
    assert error_of(tmp_path, data, RUN[backend]) < min(0.03, before / 5)
    made = {name for op in load_model(tmp_path / "int8").ops() for name in op.writes()}
    assert (f"{activation}.equalized" in made) == (name in INSERTED)


def test_what_another_op_reads_is_divided_for_the_int8_op_alone(tmp_path: Path) -> None:
    net, data, name = behind_relu()
    net.fetch(name)
    net.save(tmp_path / "float")
    quantized(tmp_path, data, "OneDNN", algo="abs_max", equalize=True)
    expected = run(tmp_path / "float", {"x": data})
    actual = run(tmp_path / "int8", {"x": data}, "float")
    assert [relative_error(*pair) < 0.03 for pair in zip(actual, expected)] == [True, True]


@pytest.mark.parametrize("name", LAYOUTS)
def test_samples_are_the_same_in_any_layout(name: str) -> None:
    layout, data = LAYOUTS[name], programs.random((3, 32, 9, 8))
    blocked = data.reshape(3, 32 // (layout.block or 32), -1, 72).swapaxes(2, 3)
    samples = [ActivationSample() for _ in range(3)]
    ways = [(data, 1, None), (data.transpose(0, 2, 3, 1).copy(), -1, None)]
    for sample, way in zip(samples, [*ways, (_in_memory(blocked, data), 1, layout)]):
        for part in (slice(0, 1), slice(1, 3)):
            sample.observe(by_channel(way[0][part], *way[1:]))
        np.testing.assert_array_equal(sample.rows, samples[0].rows)


def _in_memory(blocked: Any, data: Any) -> Any:
    """Return values in their order in memory, by the shape of ``data``."""
    return np.ascontiguousarray(blocked).reshape(data.shape)


def test_even_channels_are_left_alone(tmp_path: Path) -> None:
    net = Net([4, 6, 32]).matmul(16, **STRAIGHT).end()
    data = programs.random((4, 6, 32))
    net.save(tmp_path / "float")
    quantized(tmp_path, data, "OneDNN", equalize=False)
    plain = (tmp_path / "int8" / "model.pdmodel").read_bytes()
    for equalize in (None, True):
        quantized(tmp_path, data, "OneDNN", equalize=equalize)
        assert (tmp_path / "int8" / "model.pdmodel").read_bytes() == plain


@pytest.mark.parametrize(
    ("channels", "times", "weights"),
    [(1, 10, 0.1), (16, 4, 0.01)],
    ids=["costs little", "not far larger"],
)
def test_some_are_divided_on_request_alone(
    tmp_path: Path, channels: int, times: float, weights: float
) -> None:
    net = Net([4, 64, 6, 6]).conv(16, UNPADDED)
    net.parameters["w1"][:, :channels] *= np.float32(weights)
    net.end().save(tmp_path / "float")
    data = programs.random((4, 64, 6, 6))
    data[:, :channels] *= times
    for equalize in (None, True):
        quantized(tmp_path, data, "OneDNN", algo="abs_max", equalize=equalize)
        made = load_model(tmp_path / "int8").parameters
        assert ("x@factors" in made) == (equalize is True)


@pytest.mark.parametrize("reads", ["rows", "an image"])
def test_products_are_spared_smaller_errors(tmp_path: Path, reads: str) -> None:
    """Rounding costs 0.3 % here, too little for one more op, which takes longer on an image."""
    shape = (4, 36, 64) if reads == "rows" else (4, 64, 6, 6)
    net = Net(list(shape))
    net = net.matmul(16, **STRAIGHT) if reads == "rows" else net.conv(16, UNPADDED)
    data = programs.random((4, 36, 64))
    data[..., 0] *= 10
    weight = net.parameters["w1"]
    (weight if reads == "rows" else weight.swapaxes(0, 1))[0] *= np.float32(0.1)
    net.end().save(tmp_path / "float")
    if reads == "an image":
        data = data.swapaxes(1, 2).reshape(shape).copy()
    quantized(tmp_path, data, "OneDNN", algo="abs_max")
    assert ("x@factors" in load_model(tmp_path / "int8").parameters) == (reads == "rows")


@pytest.mark.parametrize("given", [{"scale_dict": {"x": 5.0}}, {"same_scale_tensor_list": [["x"]]}])
@pytest.mark.parametrize("equalize", [None, True])
def test_what_has_a_given_threshold_is_left_alone(
    tmp_path: Path, given: Any, equalize: bool | None
) -> None:
    net, data, _ = product()
    net.save(tmp_path / "float")
    quantized(tmp_path, data, None, equalize=equalize, **given)
    assert "x@factors" not in load_model(tmp_path / "int8").parameters


@pytest.mark.parametrize("options", [{}, {"equalize": True}, {"algo": "auto"}])
def test_calibrations_hold_what_it_takes(tmp_path: Path, options: Any) -> None:
    """More positions than are kept, in any split and order: the files are the same."""
    net = Net([-1, 300, 32]).matmul(16, **STRAIGHT)
    net.parameters["w1"][1] *= np.float32(0.01)
    net.end().save(tmp_path / "float")
    data = uneven((99, 300, 32), -1)
    quantized(tmp_path, data, "OneDNN", **options)
    expected = model_bytes(tmp_path / "int8")
    assert "x@factors" in load_model(tmp_path / "int8").parameters
    parts = [
        calibrate(tmp_path / "float", data_loader=[part], deploy_backend="OneDNN")
        for part in (data[70:], data[:30], data[30:70])
    ]
    Calibration.merge(parts).save(tmp_path / "all.npz")
    for given in (
        {"calibration": tmp_path / "all.npz"},
        {"data_loader": [data[:50], data[50:]], "checkpoint": tmp_path / "c.npz"},
    ):
        quant_post_static(
            None, tmp_path / "float", tmp_path / "int8", deploy_backend="OneDNN", **given, **options
        )
        assert model_bytes(tmp_path / "int8") == expected


def test_which_positions_are_kept_is_told_by_their_values() -> None:
    """There are so many that some are dropped; the order and the split of the samples differ."""
    data = programs.random((256, 32, 64))
    whole, backwards = (empty_statistic(ActivationMaxima, -1) for _ in range(2))
    whole.observe(data[:, None])
    for begin in range(256, 0, -32):
        part = empty_statistic(ActivationMaxima, -1)
        for sample in range(begin - 32, begin):
            part.observe(data[sample : sample + 1, None])
        backwards.merge(part)
    assert whole.channels is not None
    assert backwards.channels is not None
    rows = whole.channels.sample.rows
    assert len(rows) < 256 * 16
    np.testing.assert_array_equal(backwards.channels.sample.rows, rows)
    np.testing.assert_array_equal(backwards.channels.sample.abs_max, whole.channels.sample.abs_max)
    kept = {row.tobytes() for row in rows}
    quarters = [{row.tobytes() for row in part.reshape(-1, 64)} for part in np.split(data, 4)]
    assert len(kept) == len(rows)
    assert min(len(kept & quarter) for quarter in quarters) > len(kept) / 8
    assert sum(len(kept & quarter) for quarter in quarters) == len(kept)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ops_kept_for_accuracy_read_what_they_did(tmp_path: Path, backend: str) -> None:
    net, data, _ = product()
    net.save(tmp_path / "float")
    metrics = iter([1.0, 0.0, 1.0])
    result = quantized(
        tmp_path,
        data,
        backend,
        algo="abs_max",
        equalize=True,
        eval_function=lambda predictor: next(metrics),
    )
    assert len(result.kept_float) == 1
    assert error_of(tmp_path, data, RUN[backend]) < 1e-5
    assert "x@factors" not in load_model(tmp_path / "int8").parameters


@pytest.mark.parametrize("equalize", [False, True])
def test_the_files_do_not_depend_on_how_the_data_is_split(tmp_path: Path, equalize: bool) -> None:
    net, data, _ = convolution()
    net.save(tmp_path / "float")
    written = []
    for batches in ([data], [data[:1], data[1:]], [data[:3], data[3:]]):
        options = {"algo": "auto", "equalize": equalize, "deploy_backend": "OneDNN"}
        static_runs.quantized(tmp_path, batches, **options)
        written.append(model_bytes(tmp_path / "int8"))
    assert len(set(written)) == 1


def test_auto_takes_what_costs_the_outputs_least(tmp_path: Path) -> None:
    """One channel has rare large values; the weights decide whether they count."""
    data = programs.random((64, 32, 32))
    data[0, 0, 3] = 40
    errors = {}
    for weight in (1e-4, 30.0):
        net = Net([64, 32, 32]).matmul(16, **STRAIGHT)
        net.parameters["w1"][3] *= np.float32(weight)
        net.end().save(tmp_path / "float")
        for algo in ("auto", "mse", "abs_max", "hist"):
            quantized(tmp_path, data, "OneDNN", algo=algo, equalize=False)
            errors[weight, algo] = error_of(tmp_path, data, "float")
        least = min(errors[weight, algo] for algo in ("mse", "abs_max", "hist"))
        assert errors[weight, "auto"] <= least * 1.05
    assert errors[30.0, "auto"] < 0.8 * errors[30.0, "mse"]


@pytest.mark.parametrize("name", [*INSERTED, *TAKEN_IN])
def test_biases_are_corrected_for_divided_activations(tmp_path: Path, name: str) -> None:
    net, data, _ = {**INSERTED, **TAKEN_IN}[name]()
    data = data + np.float32(1)  # whose mean is not zero
    net.save(tmp_path / "float")
    expected = run(tmp_path / "float", {"x": data})[0]
    channels = 1 if expected.ndim == 4 else -1

    def mean_error(**options: Any) -> float:
        options = {"algo": "abs_max", "weight_bits": 4, "equalize": True, **options}
        quantized(tmp_path, data, "OneDNN", **options)
        actual = run(tmp_path / "int8", {"x": data}, "float")[0]
        wrong = np.moveaxis(actual - expected, channels, 0).reshape(actual.shape[channels], -1)
        return float(np.abs(wrong.mean(axis=1)).mean())

    assert mean_error() < 0.4 * mean_error(bias_correction=False)


@pytest.mark.parametrize(("count", "least", "most"), [(64, 2.0, 2.0), (200_000, 1.0, 1.1)])
def test_few_positions_leave_room_for_new_values(count: int, least: float, most: float) -> None:
    values = heavy_tailed((count, 64))
    sample, statistic = ActivationSample(), ActivationHistogram()
    sample.observe(values[None, None])
    sample.raise_maxima(np.abs(values).max(axis=0))
    statistic.observe(values)
    assert least <= channel_factors.headroom(sample, statistic, np.full(64, 2)) <= most
    assert channel_factors.headroom(sample, statistic, np.ones(64)) == 1


def test_new_values_err_less_with_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scales = np.geomspace(0.3, 1, 64, dtype=np.float32)
    seen, new = heavy_tailed((2, 4, 64, 64)) * scales
    net = Net([4, 64, 64]).matmul(16, **STRAIGHT)
    net.parameters["w1"] /= scales[:, None]
    net.end().save(tmp_path / "float")
    errors = []
    for make_room in (channel_factors.headroom, lambda *_: 1.0):
        monkeypatch.setattr(channel_factors, "headroom", make_room)
        static_runs.quantized(tmp_path, [seen], equalize=True, deploy_backend="QDQ")
        errors.append(error_of(tmp_path, new, "float"))
    assert errors[0] < 0.8 * errors[1]


def test_bad_arguments(tmp_path: Path) -> None:
    net, data, _ = product()
    net.save(tmp_path / "float")
    calibration = calibrate(tmp_path / "float", data_loader=[data])
    with pytest.raises(UnsupportedError, match=r"^round_type"):
        quant_post_static(
            None,
            tmp_path / "float",
            tmp_path / "int8",
            calibration=calibration,
            round_type="adaround",
        )
    with pytest.raises(SettingError, match=r"^equalize: .*algo='avg'"):
        quantized(tmp_path, data, None, algo="avg", equalize=True)


def changed(directory: Path, changes: dict[str, Any]) -> Path:
    """Write the int8 model again with other values of parameters, or without them."""
    model = load_model(directory / "int8")
    for name, array in changes.items():
        position = [var.name for var in model.program.blocks[0].vars].index(name)
        if array is None:
            del model.parameters[name], model.program.blocks[0].vars[position]
        else:
            model.parameters[name] = array
            desc = proto.tensor_desc(model.program.blocks[0].vars[position])
            desc.dims[:] = array.shape
    save_model(model, directory / "changed", "m.pdmodel", "m.pdiparams")
    return directory / "changed"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*INSERTED, *TAKEN_IN])
def test_compare_finds_the_error_of_rounding_alone(tmp_path: Path, name: str, backend: str) -> None:
    if backend == "QDQ" and name in ("folded", "relu"):
        needs_vnni()
    net, data, activation = {**INSERTED, **TAKEN_IN}[name]()
    net.save(tmp_path / "float")
    quantized(tmp_path, data, backend, algo="abs_max", equalize=True)
    comparison = compare(tmp_path / "float", tmp_path / "int8", data_loader=[data])
    assert {tensor.note for tensor in comparison.tensors} == {""}
    # Weights of 7 bits, as in convolutions that read int8, are 6 dB worse.
    assert min(tensor.badness for tensor in comparison.tensors) > (1, SQNR[backend])
    assert any("equalized" in note for note in comparison.notes)
    # For integers that pass through a pooling, the report names their origin.
    root = "t3" if (name, backend) == ("pooling", "OneDNN") else activation
    assert find(comparison, root, "activation").equalized
    assert all(tensor.equalized for tensor in comparison.worst("weight"))
    assert not any(tensor.equalized for tensor in comparison.worst("simulated", "int8 run"))
    assert f"  {root} (equalized)\n" in comparison.table()
    save_page(comparison, tmp_path / "page.html")
    assert f"<h3>{root} (equalized) <small>" in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*INSERTED, *TAKEN_IN])
def test_compare_shows_a_wrong_factor(tmp_path: Path, name: str, backend: str) -> None:
    net, data, activation = {**INSERTED, **TAKEN_IN}[name]()
    net.save(tmp_path / "float")
    # Not equalize=True: scales per token would make up for one wrong factor of all channels.
    quantized(tmp_path, data, backend, algo="abs_max")
    factors = load_model(tmp_path / "int8").parameters[f"{activation}@factors"]
    assert factors.max() > 20
    wrong = changed(tmp_path, {f"{activation}@factors": factors * np.float32(1.1)})
    comparison = compare(tmp_path / "float", wrong, data_loader=[data])
    for weight in comparison.worst("weight"):
        assert "values in the float model" in weight.note
    (tensor,) = [t for t in comparison.worst("activation") if t.equalized or t.name == activation]
    assert tensor.inherited is not None
    assert tensor.inherited.sqnr == pytest.approx(20, abs=1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["product", "relu"])
def test_compare_says_where_factors_do_not_fit(tmp_path: Path, name: str, backend: str) -> None:
    net, data, activation = {**INSERTED, **TAKEN_IN}[name]()
    net.save(tmp_path / "float")
    quantized(tmp_path, data, backend, algo="abs_max", equalize=True)
    wrong = changed(tmp_path, {f"{activation}@factors": np.ones(3, np.float32)})
    comparison = compare(tmp_path / "float", wrong, data_loader=[data])
    assert [note for note in comparison.notes if f"'{activation}'" in note]
    assert not any(tensor.equalized for tensor in comparison.tensors)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compare_of_an_activation_that_a_float_op_reads_too(tmp_path: Path, backend: str) -> None:
    """The float op's weight, also stored as integers, is not multiplied."""
    net, data, _ = convolution()
    first = net.last
    net.last, net.dims = "x", [4, 8, 12, 12]
    net.conv(8, {**UNPADDED, "groups": 8}, op_type="depthwise_conv2d")
    net.parameters["w2"][1] *= np.float32(0.01)
    net.then("elementwise_add", {"X": first, "Y": net.last}, "Out", {"axis": -1})
    net.end().save(tmp_path / "float")
    quantized(tmp_path, data, backend, algo="abs_max", equalize=True)
    comparison = compare(tmp_path / "float", tmp_path / "int8", data_loader=[data])
    bits = {tensor.name: tensor.bits for tensor in comparison.worst("weight")}
    assert bits == {"w1": 8, "w2": 16}
    assert {tensor.note for tensor in comparison.tensors} == {""}
    # Weights of 7 bits, as convolutions of int8 have them, are 6 dB worse.
    assert min(tensor.badness for tensor in comparison.tensors) > (1, SQNR[backend])
    equalized = [tensor.name for tensor in comparison.tensors if tensor.equalized]
    assert equalized == ["x", "w1"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["product", "relu"])
def test_paddle_runs_a_program_that_tells_its_factors_as_one_that_does_not(
    tmp_path: Path, name: str, backend: str
) -> None:
    net, data, activation = {**INSERTED, **TAKEN_IN}[name]()
    net.save(tmp_path / "float")
    result = quantized(tmp_path, data, backend, algo="abs_max", equalize=True)
    silent = changed(tmp_path, {f"{activation}@factors": None})
    for how in ("plain", "float", "int8") if backend == "QDQ" else ("float", "int8"):
        (told,) = run(tmp_path / "int8", {"x": data}, how)
        (untold,) = run(silent, {"x": data}, how)
        np.testing.assert_array_equal(told, untold)
    if backend == "QDQ":
        (told,) = execute(result.model_path, result.params_path, {"x": data})
        np.testing.assert_allclose(told, run(tmp_path / "int8", {"x": data})[0], rtol=1e-5)
