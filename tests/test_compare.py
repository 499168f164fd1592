"""The per-layer report, against numpy on the tensors that Paddle computes in small programs."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from comparisons import find
from paddle_run import run
from processors import QDQ, deployed
from static_runs import RUN, quantized

import pyquant
from pyquant import (
    CalibrationDataError,
    ModelFileError,
    OutputError,
    SettingError,
    Similarity,
    UnsupportedError,
    compare,
    load_model,
    quant_post_dynamic,
    quant_post_static,
    save_model,
    save_page,
)
from pyquant.calibration.statistic import ActivationHistogram
from pyquant.cli import main
from pyquant.comparison import paired
from pyquant.comparison.pictures import histogram_picture
from pyquant.comparison.quantization import read_quantization
from pyquant.comparison.report import ComparedTensor
from pyquant.comparison.weights import compare_weight
from pyquant.program import proto
from pyquant.program.op import ops_of

DATA = Path(__file__).parent / "data"
IMAGES = programs.random((12, 3, 8, 8), 9)
BATCHES = [IMAGES[:5], IMAGES[5:6], IMAGES[6:]]
INTERMEDIATE = ["a", "b", "c"]


@pytest.fixture
def int8(source: Path, tmp_path: Path) -> Path:
    """Calibrated on half of the values: some saturate."""
    quant_post_static(None, source, tmp_path / "int8", data_loader=[IMAGES[:6] * 0.5], **QDQ)
    return tmp_path / "int8"


def open_net() -> programs.ProgramBuilder:
    """The same network with every tensor as an output."""
    net = programs.conv_net()
    for name in INTERMEDIATE:
        net.fetch(name)
    return net


def run_open(directory: Path) -> dict[str, np.ndarray[Any, Any]]:
    model = load_model(directory)
    return dict(zip(model.fetches, run(directory, {"x": IMAGES}))) | {"x": IMAGES}


def similarity(x: Any, y: Any) -> Similarity:
    x, y = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
    cosine = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    return Similarity(10 * math.log10(np.mean(x**2) / np.mean((x - y) ** 2)), cosine)


def rounded(x: Any, threshold: float) -> Any:
    threshold = np.float32(threshold)
    integers = np.clip(np.rint(x * (np.float32(127) * (np.float32(1) / threshold))), -128, 127)
    return (integers.astype(np.float32) * threshold) / np.float32(127)


def near(expected: Similarity) -> Any:
    return pytest.approx(expected, rel=1e-6)


def renamed(directory: Path, output: Path, names: dict[str, str]) -> Path:
    """Write a model again with other names for variables."""
    model = load_model(directory)
    for block in model.program.blocks:
        for var in block.vars:
            var.name = names.get(var.name, var.name)
        for op in ops_of(block):
            op.rename_inputs(names)
            op.rename_outputs(names)
    parameters = {names.get(name, name): array for name, array in model.parameters.items()}
    save_model(replace(model, parameters=parameters), output, "m.pdmodel", "m.pdiparams")
    return output


def test_activations_are_those_of_numpy(tmp_path: Path) -> None:
    source = open_net().save(tmp_path / "in")
    made = quant_post_static(
        None,
        source,
        tmp_path / "int8",
        data_loader=[IMAGES[:6] * 0.5],
        skip_tensor_list=["y"],
        **QDQ,
    )
    comparison = compare(source, tmp_path / "int8", data_loader=BATCHES)
    floats, simulated = run_open(source), run_open(tmp_path / "int8")
    thresholds = made.thresholds()
    assert set(thresholds) == {"x", "b"}
    assert (comparison.batches, comparison.samples) == (3, 12)
    for name, threshold in thresholds.items():
        found = find(comparison, name, "activation")
        x, y = floats[name], simulated[name]
        assert found.error == near(similarity(x, rounded(y, threshold)))
        assert found.own == near(similarity(x, rounded(x, threshold)))
        assert found.saturation == np.mean(np.abs(x) > threshold) > 0
        assert found.threshold == threshold
        assert (found.bits, found.axis, found.op_types) == (8, None, ("conv2d",))
        assert found.histogram is not None
        assert found.histogram.abs_max == np.abs(x).max()
        assert found.histogram.values == x.size
    exact = Similarity(math.inf, 1.0)
    assert find(comparison, "x", "activation").inherited == exact
    inherited = find(comparison, "b", "activation").inherited
    assert inherited == near(similarity(floats["b"], simulated["b"]))


def test_outputs_are_those_of_numpy(tmp_path: Path) -> None:
    source = open_net().save(tmp_path / "in")
    result = quant_post_static(None, source, tmp_path / "int8", data_loader=BATCHES, **QDQ)
    comparison = compare(source, tmp_path / "int8", data_loader=BATCHES)
    floats, simulated = run_open(source), run_open(tmp_path / "int8")
    for name, op_type in {"a": "conv2d", "c": "conv2d", "y": "matmul_v2"}.items():
        found = find(comparison, name, "op output")
        assert found.error == near(similarity(floats[name], simulated[name]))
        assert found.op_types == (op_type,)
    for name in load_model(source).fetches:
        found = find(comparison, name, "simulated")
        assert found.error == near(similarity(floats[name], simulated[name]))
    outputs = run(result.model_path, {"x": IMAGES}, "int8")
    for name, output in zip(load_model(source).fetches, outputs):
        expected = similarity(floats[name], output)
        # Its rounding depends on the batch.
        assert find(comparison, name, "int8 run").error == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("kind", ["channel_wise_abs_max", "abs_max"])
def test_weights_are_those_of_numpy(source: Path, tmp_path: Path, kind: str) -> None:
    quant_post_static(
        None,
        source,
        tmp_path / "out",
        data_loader=BATCHES,
        weight_quantize_type=kind,
        **QDQ,  # for VNNI: of others, a threshold may be larger than the largest weight
    )
    comparison = compare(source, tmp_path / "out", data_loader=BATCHES)
    for name, array in load_model(source).parameters.items():
        axis = 1 if name == "dense.w" else 0
        others = tuple(i for i in range(array.ndim) if i != axis)
        whole = kind == "abs_max"
        threshold = np.abs(array).max(axis=None if whole else others, keepdims=True)
        step = threshold.astype(np.float64) / 127
        found = find(comparison, name, "weight")
        expected = similarity(array, np.rint(array / step) * step)
        assert found.error == pytest.approx(expected, rel=1e-4)
        assert found.axis == (None if whole else axis)
        np.testing.assert_allclose(found.threshold, threshold.ravel(), rtol=1e-6)
        assert (found.bits, found.saturation) == (8, 0)


@pytest.mark.parametrize("bits", [8, 16])
def test_dynamic(tmp_path: Path, bits: int) -> None:
    source = programs.embedding_net().save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", weight_bits=bits)
    comparison = compare(source, result.model_path, data_loader=[np.arange(10).reshape(2, 5)])
    assert {t.kind for t in comparison.tensors} == {"weight", "op output", "simulated"}
    table = find(comparison, "table", "weight")
    assert (table.bits, table.axis, table.note) == (bits, 0, "")
    assert set(table.op_types) == {"lookup_table_v2", "matmul_v2"}
    assert table.error is not None
    assert table.error.sqnr > {8: 40, 16: 85}[bits]
    assert find(comparison, "y", "simulated").error == find(comparison, "y", "op output").error


@pytest.mark.parametrize("dtype", [np.float16, np.uint16])
def test_weights_in_half_precision(tmp_path: Path, dtype: Any) -> None:
    """Compared without a run, since Paddle has no such kernels on a CPU."""
    net = programs.embedding_net()
    table = net.parameters["table"]
    half = table.astype(np.float16) if dtype == np.float16 else table.view(np.uint32) >> 16
    half = half.astype(dtype)
    variables = {var.name: var for var in net.block.vars}
    proto.tensor_desc(variables["table"]).data_type = proto.paddle_dtype(half.dtype)
    net.parameters["table"] = half
    source = net.save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out")
    (weight,) = read_quantization(load_model(result.model_path)).weights.values()
    found = compare_weight(load_model(source), weight, ("matmul_v2",))
    twin = np.abs(half.astype(np.float32) if dtype == np.float16 else bfloat16(half))
    np.testing.assert_allclose(found.threshold, twin.max(axis=1), rtol=1e-6)
    assert found.error is not None
    assert 40 < found.error.sqnr < 55


def bfloat16(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def test_dynamic_json(tmp_path: Path) -> None:
    result = quant_post_dynamic(DATA / "small.json", tmp_path)
    assert result.model_path.suffix == ".json"
    images = programs.random((4, 3, 8, 12))
    comparison = compare(DATA / "small.json", result.model_path, data_loader=[images])
    assert {t.name for t in comparison.worst("weight")} == {t.name for t in result.quantized}
    for tensor in comparison.tensors:
        assert tensor.error is not None
        assert tensor.error.sqnr > 30
    assert find(comparison, "fetch_name_0", "simulated").op_types


def test_static_of_json(tmp_path: Path) -> None:
    images = programs.random((4, 3, 8, 12))
    quant_post_static(None, DATA / "small.json", tmp_path, data_loader=[images], **QDQ)
    comparison = compare(DATA / "small.json", tmp_path, data_loader=[images])
    assert comparison.worst("activation")
    assert all(t.error is not None and t.error.sqnr > 15 for t in comparison.tensors)


def test_a_weight_that_others_read(tmp_path: Path) -> None:
    source = programs.shared_weight_net().save(tmp_path / "in")
    feeds = [{"left": IMAGES[:4], "right": IMAGES[4:8]}]
    quant_post_static(None, source, tmp_path / "out", data_loader=feeds, **QDQ)
    comparison = compare(source, tmp_path / "out", data_loader=feeds)
    weight = find(comparison, "w", "weight")
    assert weight.error is not None
    assert weight.error.sqnr > 35
    assert find(comparison, "total", "simulated").error == Similarity(math.inf, 1.0)


def test_a_program_as_paddles_own_ptq_writes_it(source: Path, int8: Path, tmp_path: Path) -> None:
    """Its quantized weights are still declared float, and its scales have no dimensions."""
    model = load_model(int8)
    for var in model.program.blocks[0].vars:
        if var.name in ("first.w", "second.w"):
            proto.tensor_desc(var).data_type = proto.paddle_dtype(np.dtype(np.float32))
    for name in ("x@scale", "b@scale"):
        model.parameters[name] = model.parameters[name].reshape(())
    save_model(model, tmp_path / "out", "m.pdmodel", "m.pdiparams")
    ours = compare(source, int8, data_loader=BATCHES)
    theirs = compare(source, tmp_path / "out", data_loader=BATCHES)
    assert str(theirs).partition("\n\n")[2] == str(ours).partition("\n\n")[2]


def test_how_the_data_are_split_makes_no_difference(source: Path, int8: Path) -> None:
    whole = compare(source, int8, data_loader=[IMAGES])
    for parts in (
        compare(source, int8, data_loader=BATCHES),
        compare(source, int8, sample_generator=list(IMAGES), batch_size=5),
        compare(load_model(source), load_model(int8), batch_generator=lambda: iter(BATCHES)),
    ):
        for one, other in zip(whole.tensors, parts.tensors):
            assert (one.name, one.kind, one.saturation) == (
                other.name,
                other.kind,
                other.saturation,
            )
            if one.kind != "int8 run":
                assert one.error == pytest.approx(other.error, rel=1e-6)


def test_worst_first(source: Path, int8: Path) -> None:
    comparison = compare(source, int8, data_loader=BATCHES)
    worst = comparison.worst()
    assert len(worst) == len(comparison.tensors)
    decibels = [t.error.sqnr for t in worst if t.error is not None]
    assert decibels == sorted(decibels)
    missing = ComparedTensor("m", "activation", (), None, own=Similarity(3.0, 0.9))
    unknown = ComparedTensor("u", "weight", (), None)
    broken = ComparedTensor("n", "activation", (), Similarity(math.nan, math.nan))
    mixed = replace(comparison, tensors=[unknown, missing, *comparison.tensors, broken])
    names = [t.name for t in mixed.worst()]
    assert (names[0], names[-2:]) == ("n", ["m", "u"])
    rows = comparison.table().split("weights: ")[1].split("\n\n")[0].splitlines()[3:]
    shown = [float(row.split()[0]) for row in rows]
    assert shown == sorted(shown)
    assert len(shown) == 3


def test_the_table_fits_and_is_aligned(source: Path, int8: Path) -> None:
    comparison = compare(source, int8, data_loader=BATCHES)
    assert str(comparison) == comparison.table()
    tables = comparison.table().split("\n\n")[1:]
    assert len(tables) == 4
    for table in tables:
        assert max(map(len, table.splitlines())) <= 100
        head, *rows = table.splitlines()[2:]
        start = head.index("tensor")
        assert all(re.fullmatch(r".*\s\s", row[:start]) for row in rows)
    assert "and 2 more" in comparison.table(top=1)
    assert comparison.table(top=1).count("dense.w") <= 1


def test_tensors_that_the_float_model_has_not(source: Path, int8: Path, tmp_path: Path) -> None:
    """As after folding: an activation, an op's output and a weight with other names."""
    names = {"b": "folded.b", "a": "folded.a", "second.w": "folded.w", "y": "folded.y"}
    folded = renamed(int8, tmp_path / "folded", names)
    before, comparison = (compare(source, m, data_loader=BATCHES) for m in (int8, folded))
    b = find(comparison, "folded.b", "activation")
    assert (b.error, b.inherited) == (None, None)
    assert "float model" in b.note
    assert b.own is not None
    assert b.own.sqnr > 10
    assert b.threshold == find(before, "b", "activation").threshold
    assert find(comparison, "folded.w", "weight").note == b.note
    assert find(comparison, "folded.a", "op output").error is None
    # Outputs of other names are told by their place.
    assert find(comparison, "folded.y", "simulated").error == find(before, "y", "simulated").error
    lines = comparison.table().splitlines()
    (row,) = [number for number, line in enumerate(lines) if line.endswith("  folded.b")]
    assert lines[row].split()[:2] == ["-", "-"]
    assert lines[row + 1] == f"      ({b.note})"
    assert max(map(len, lines[3:])) <= 100


def test_weights_that_folding_changed(source: Path, int8: Path, tmp_path: Path) -> None:
    model = load_model(int8)
    model.parameters["first.w@scale"] = model.parameters["first.w@scale"] * np.float32(3)
    save_model(model, tmp_path / "scaled", "m.pdmodel", "m.pdiparams")
    comparison = compare(source, tmp_path / "scaled", data_loader=BATCHES)
    changed = find(comparison, "first.w", "weight")
    assert changed.error is None
    assert "values in the float model" in changed.note
    assert find(comparison, "second.w", "weight").error is not None


def test_tensors_of_another_shape(source: Path, tmp_path: Path) -> None:
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 3, 8, 8])
    first = net.parameter("first.w", programs.random((4, 3, 3, 3), 1))
    second = net.parameter("second.w", programs.random((4, 4, 3, 3), 2))
    dims = [-1, 4, 8, 8]
    a = net.op("conv2d", {"Input": x, "Filter": first}, ("Output", "a"), dims, programs.CONV)
    b = net.op("relu", {"X": a}, ("Out", "b"), dims)
    net.fetch(
        net.op("conv2d", {"Input": b, "Filter": second}, ("Output", "y"), dims, programs.CONV)
    )
    quant_post_static(
        None, net.save(tmp_path / "other"), tmp_path / "out", data_loader=BATCHES, **QDQ
    )
    comparison = compare(source, tmp_path / "out", data_loader=[IMAGES])
    for name, kind, shape in (
        ("b", "activation", "8, 8, 8]"),
        ("a", "op output", "8, 8, 8]"),
        ("y", "simulated", "10]"),
    ):
        found = find(comparison, name, kind)
        assert found.error is None
        assert shape in found.note
    assert find(comparison, "b", "activation").own is not None
    weight = find(comparison, "first.w", "weight")
    assert "[8, 3, 3, 3]" in weight.note


def test_a_name_that_is_written_again(tmp_path: Path) -> None:
    """With an in-place relu, the value that the convolution reads is the quantized one."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 3, 8, 8])
    dims = [-1, 3, 8, 8]
    v = net.op("scale", {"X": x}, ("Out", "v"), dims, {"scale": 1.0, "bias": -2.0})
    net._add("relu", {"X": [v]}, {"Out": [v]}, {})
    w = net.parameter("w", programs.random((4, 3, 3, 3), 1))
    out = ("Output", "y")
    net.fetch(net.op("conv2d", {"Input": v, "Filter": w}, out, [-1, 4, 8, 8], programs.CONV))
    source = net.save(tmp_path / "in")
    quant_post_static(None, source, tmp_path / "out", data_loader=BATCHES, verify=False, **QDQ)
    found = find(compare(source, tmp_path / "out", data_loader=BATCHES), "v", "activation")
    expected = np.maximum(IMAGES - np.float32(2), 0)
    assert found.histogram is not None
    assert found.histogram.values == expected.size
    assert found.histogram.minimum == 0
    assert found.inherited == Similarity(math.inf, 1.0)
    assert isinstance(found.threshold, float)
    assert found.own == near(similarity(expected, rounded(expected, found.threshold)))


def test_values_that_are_no_numbers(source: Path, int8: Path, tmp_path: Path) -> None:
    images = IMAGES.copy()
    images[0, 0, 0, 0], images[1, 0, 0, 0] = np.nan, np.inf
    comparison = compare(source, int8, data_loader=[images])
    x = find(comparison, "x", "activation")
    assert x.error is not None
    assert math.isnan(x.error.sqnr)
    assert "2 NaN" in x.note
    assert comparison.worst("activation")[0].note
    assert "nan" in comparison.table()
    save_page(comparison, tmp_path / "page.html")


def test_an_int8_run_that_fails_is_left_out(
    source: Path, int8: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ModelFileError("no int8 kernels here.")

    class Failing:
        def get_input_handle(self, name: str) -> Any:
            raise RuntimeError("(Unimplemented) no such kernel")

    for made, said in ((fail, "no int8 kernels here"), (lambda *_: Failing(), "no such kernel")):
        monkeypatch.setattr(paired, "make_int8_predictor", made)
        comparison = compare(source, int8, data_loader=BATCHES)
        assert not comparison.worst("int8 run")
        assert comparison.worst("simulated")
        (note,) = comparison.notes
        assert said in note
        assert note in comparison.table()


def test_an_exception_while_tensors_are_looked_at(
    source: Path, int8: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError("no more")

    monkeypatch.setattr(paired, "view_values", fail)
    with pytest.raises(MemoryError, match="no more"):
        compare(source, int8, data_loader=BATCHES)


def test_what_is_refused(source: Path, int8: Path, tmp_path: Path) -> None:
    data = {"data_loader": BATCHES}
    with pytest.raises(ModelFileError, match="/nowhere: "):
        compare(tmp_path / "nowhere", int8, **data)
    with pytest.raises(SettingError, match=r"/in/m\.pdmodel: .*quant_post_static"):
        compare(source, source, **data)
    with pytest.raises(SettingError, match=r"/model\.pdmodel: .*float model"):
        compare(int8, source, **data)
    lite = quant_post_dynamic(source, tmp_path / "lite", lite_format=True)
    with pytest.raises(UnsupportedError, match=r"/lite/.*Paddle-Lite"):
        compare(source, lite.model_path, **data)
    with pytest.raises(CalibrationDataError, match="batch_generator, sample_generator"):
        compare(source, int8)
    with pytest.raises(CalibrationDataError, match=r"^data to compare on: "):
        compare(source, int8, data_loader=[])
    with pytest.raises(
        CalibrationDataError, match=r"batch 0: .*'x'.* \[12, 1, 8, 8\].*\[-1, 3, 8, 8\]"
    ):
        compare(source, int8, data_loader=[IMAGES[:, :1]])
    with pytest.raises(CalibrationDataError, match=r"/nothing\.npz: "):
        compare(source, int8, sample_generator=tmp_path / "nothing.npz")
    with pytest.raises(SettingError, match=r"^batch_nums: 0"):
        compare(source, int8, batch_nums=0, **data)


def test_scales_that_are_refused(source: Path, int8: Path, tmp_path: Path) -> None:
    for scale, error, said in (
        ([np.nan], ModelFileError, "'b@scale'"),
        ([1.0, 2.0], UnsupportedError, "'b' .*2 thresholds"),
    ):
        model = load_model(int8)
        model.parameters["b@scale"] = np.array(scale, np.float32)
        save_model(model, tmp_path / "out", "m.pdmodel", "m.pdiparams")
        with pytest.raises(error, match=said):
            compare(source, tmp_path / "out", data_loader=BATCHES)
    model = load_model(int8)
    op = next(op for op in model.ops() if "b@scale" in op.reads())
    op.set_inputs("Scale", ["a"])
    save_model(model, tmp_path / "computed", "m.pdmodel", "m.pdiparams")
    with pytest.raises(UnsupportedError, match=r"scale 'a' .*quantize_linear"):
        compare(source, tmp_path / "computed", data_loader=BATCHES)


def test_models_that_do_not_belong_together(source: Path, int8: Path, tmp_path: Path) -> None:
    names = [var.name for var in load_model(source).program.blocks[0].vars]
    theirs = {name: f"their.{name}" for name in names if name not in ("x", "feed", "fetch")}
    other = renamed(source, tmp_path / "other", theirs)
    with pytest.raises(SettingError, match=rf"{other}/m\.pdmodel .*{int8}/model\.pdmodel"):
        compare(other, int8, data_loader=BATCHES)
    wide = programs.depthwise_net().save(tmp_path / "wide")
    with pytest.raises(
        SettingError, match=r"\['x FP32\[-1, 6, 8, 8\]'\].*\['x FP32\[-1, 3, 8, 8\]'\]"
    ):
        compare(wide, int8, data_loader=BATCHES)
    two = programs.shared_weight_net().save(tmp_path / "two")
    with pytest.raises(SettingError, match=r"\['left .*, 'right .*\['x "):
        compare(two, int8, data_loader=BATCHES)


def test_a_batch_that_the_quantized_model_cannot_run(int8: Path, tmp_path: Path) -> None:
    net = programs.conv_net()
    source = net.save(tmp_path / "any")
    model = load_model(int8)
    dims = proto.tensor_desc(model.feeds[0]).dims
    assert list(dims) == [-1, 3, 8, 8]
    wide = load_model(source)
    proto.tensor_desc(wide.feeds[0]).dims[2:] = [-1, -1]
    save_model(wide, tmp_path / "wide", "m.pdmodel", "m.pdiparams")
    with pytest.raises(CalibrationDataError, match=r"batch 0: .*/wide/m\.pdmodel.*\[2, 3, 9, 9\]"):
        compare(tmp_path / "wide", int8, data_loader=[programs.random((2, 3, 9, 9))])


class Page(HTMLParser):
    """Checks that elements close, and gathers what a test asks for."""

    void = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.headings: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.void and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open and self.open[-1] == "h3":
            self.headings.append(data.strip())


def test_the_page(source: Path, int8: Path, tmp_path: Path) -> None:
    comparison = compare(source, int8, data_loader=BATCHES)
    save_page(comparison, tmp_path / "new" / "page.html")
    text = (tmp_path / "new" / "page.html").read_text("utf-8")
    page = Page(text)
    assert page.headings == [t.name for t in comparison.worst("activation")]
    classes = [value for tag, name, value in page.attributes if name == "class"]
    assert classes.count("card") == 3
    assert classes.count("bars") == 3  # a histogram in each,
    assert "beyond" in classes  # in which some values saturate,
    assert [tag for tag, _, value in page.attributes if value == "threshold"].count("line") == 3
    for tensor in comparison.tensors:
        assert any(tensor.name in piece for piece in page.texts)
    # On a phone, where the head of a table is not shown, each cell has its heading.
    headings = {value for _, name, value in page.attributes if name == "data-heading"}
    assert {"SQNR dB", "cosine", "run", "threshold", "bits", "op"} <= headings
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _, _ in page.attributes}
    assert not [name for _, name, _ in page.attributes if name in ("src", "href")]
    assert "url(" not in text
    assert "://" not in text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_names_in_the_page_are_escaped(source: Path, int8: Path, tmp_path: Path) -> None:
    evil = '<script>"&b</script>'
    names = {"b": evil, "c": "<i>"}
    before = renamed(source, tmp_path / "before", names)
    after = renamed(int8, tmp_path / "a&b<u>", names)
    comparison = compare(before, after, data_loader=BATCHES)
    save_page(comparison, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert evil in page.headings
    assert not {"script", "i", "u"} & {tag for tag, _, _ in page.attributes}


def test_a_page_that_cannot_be_written(source: Path, int8: Path, tmp_path: Path) -> None:
    comparison = compare(source, int8, data_loader=BATCHES)
    (tmp_path / "page.html").mkdir()
    with pytest.raises(OutputError, match=r"/page\.html: "):
        save_page(comparison, tmp_path / "page.html")


def test_command_line(
    source: Path, int8: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "data.npz", x=IMAGES)
    page = tmp_path / "page.html"
    data = ["--data", str(tmp_path / "data.npz")]
    more = ["--html", str(page), "--batches", "2", "--batch-size", "4", "--top", "1"]
    assert main(["compare", "--no-isolate", str(source), str(int8), *data, *more]) == 0
    text = capsys.readouterr().out
    assert "data       8 samples in 2 batches" in text
    assert "activations: 3, worst first" in text
    assert "int8 run" in text
    assert "and 2 more" in text
    assert f"page {page}" in text
    Page(page.read_text("utf-8"))
    shutil.move(source / "m.pdiparams", source / "weights")
    named = ["--float-params", "weights", "--int8-params", "model.pdiparams"]
    assert main(["compare", "--no-isolate", str(source), str(int8), *data, *named]) == 0
    capsys.readouterr()
    for arguments, said in [
        ([str(int8), str(source), "--int8-params", "weights"], f"{int8}/model.pdmodel: "),
        ([str(source), str(int8)], f"{source}/first.w: "),
    ]:
        assert main(["compare", "--no-isolate", *arguments, *data]) == 1
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith("pyquant: ")
        assert said in message
    with pytest.raises(SystemExit):
        main(["compare", "--no-isolate", str(source), str(int8), *data, "--top", "0"])


def test_public_names() -> None:
    assert {"compare", "Comparison", "ComparedTensor", "Similarity"} <= set(pyquant.__all__)


def test_the_float_model_is_folded_as_the_quantized_one_was(tmp_path: Path) -> None:
    net = programs.Net([4, 3, 8, 8]).conv(8).constant("elementwise_mul", [3.0]).act("sigmoid")
    net.constant("elementwise_mul", [0.2]).constant("elementwise_add", [0.1]).conv(4).end()
    source = net.save(tmp_path / "in")
    quant_post_static(None, source, tmp_path / "int8", data_loader=BATCHES, **QDQ)
    comparison = compare(source, tmp_path / "int8", data_loader=BATCHES)
    assert ["folded" in note for note in comparison.notes] == [True]
    assert all(tensor.error is not None for tensor in comparison.tensors)
    assert all(tensor.error.sqnr > 20 for tensor in comparison.tensors if tensor.error)
    plain = quant_post_static(
        None, source, tmp_path / "plain", data_loader=BATCHES, optimize_model=False, **QDQ
    )
    comparison = compare(source, plain.model_path, data_loader=BATCHES)
    assert not comparison.notes
    assert all(tensor.error.sqnr > 20 for tensor in comparison.tensors if tensor.error)


def carried_net() -> programs.Net:
    """A signed input, a relu that a pooling and a convolution read, then a zero point."""
    net = programs.Net([4, 3, 8, 8]).conv(8).act("relu")
    pooling = {
        "pooling_type": "max",
        "ksize": [3, 3],
        "strides": [1, 1],
        "paddings": [1, 1],
        "padding_algorithm": "EXPLICIT",
        "data_format": "NCHW",
    }
    net.then("pool2d", {"X": net.last}, "Out", pooling)
    return net.conv(8).act("hard_swish").conv(4, {**programs.CONV, "paddings": [0, 0]}).end()


@pytest.fixture
def onednn(tmp_path: Path) -> tuple[Path, Path]:
    """A float model, and its form in oneDNN's int8 ops; some values saturate."""
    source = carried_net().save(tmp_path / "float")
    data = [IMAGES[:6] * np.float32(0.5)]
    quant_post_static(None, source, tmp_path / "onednn", data_loader=data, deploy_backend="OneDNN")
    return source, tmp_path / "onednn"


def test_onednn_activations_are_those_of_numpy(onednn: tuple[Path, Path]) -> None:
    source, quantized = onednn
    comparison = compare(source, quantized, data_loader=BATCHES)
    model = load_model(quantized)
    ops = [op for op in model.ops() if op.type in ("quantize", "fused_conv2d")]
    signed, first, _, swish, _ = ops
    x = find(comparison, "x", "activation")
    assert x.threshold == pytest.approx(127 / signed.attr("Scale", 0.0))
    assert (x.least, x.op_types) == (None, ("fused_conv2d",))
    relu = find(comparison, first.output("Output"), "activation")
    assert relu.threshold == pytest.approx(255 / first.attr("Scale_out", 0.0))
    assert (relu.least, relu.op_types) == (0, ("fused_conv2d",))  # through the pooling
    behind = find(comparison, swish.input("Input"), "activation")
    factor, shift = (swish.attr(name, 0.0) for name in ("Scale", "Shift"))
    assert behind.least == pytest.approx(-shift / factor)
    assert behind.threshold == pytest.approx((255 - shift) / factor)
    assert -0.5 < behind.least < -0.3
    floats = np.concatenate(BATCHES)
    factor = np.float32(signed.attr("Scale", 0.0))
    integers = np.rint(floats * factor)
    made = np.clip(integers, -128, 127)
    assert x.error == x.own == near(similarity(floats, made / factor))
    assert x.saturation == np.mean(made != integers) > 0
    for tensor in (relu, behind):
        assert tensor.error is not None
        assert tensor.own is not None
        assert tensor.inherited is not None
        assert 10 < tensor.error.sqnr < min(tensor.own.sqnr, tensor.inherited.sqnr)
        assert tensor.saturation > 0


def test_onednn_outputs_and_weights(onednn: tuple[Path, Path]) -> None:
    source, quantized = onednn
    comparison = compare(source, quantized, data_loader=[IMAGES])
    assert {tensor.bits for tensor in comparison.worst("weight")} == {8}
    assert [len(comparison.worst(kind)) for kind in ("weight", "op output", "activation")] == [
        3
    ] * 3
    assert all(tensor.note == "" for tensor in comparison.tensors)
    simulated, run = (comparison.worst(kind)[0] for kind in ("simulated", "int8 run"))
    assert simulated.op_types == run.op_types == ("fused_conv2d",)
    assert simulated.error is not None
    assert run.error is not None
    assert run.error.sqnr == pytest.approx(simulated.error.sqnr, abs=0.5)
    (output,) = [t for t in comparison.worst("op output") if t.name == simulated.name]
    assert output.error == simulated.error


@pytest.mark.parametrize("backend", ["QDQ", "OneDNN"])
def test_it_runs_as_it_is_deployed(backend: str, tmp_path: Path) -> None:
    """With the int8 passes, which QDQ needs, Paddle cannot run a chain of int8 products."""
    net = programs.Net([12, 64])
    for _ in range(4):
        net.matmul(64, trans_x=False, trans_y=False)
        net.constant("elementwise_add", np.linspace(-1, 1, 64)).act("relu")
    source, rows = net.end().save(tmp_path / "float"), programs.random((12, 64), 3)
    quantized(tmp_path, [rows], **deployed(backend))
    comparison = compare(source, tmp_path / "int8", data_loader=[rows])
    assert not comparison.notes
    int8 = run(tmp_path / "int8", {"x": rows}, RUN[backend])[0]
    expected = similarity(run(source, {"x": rows})[0], int8)
    assert comparison.worst("int8 run")[0].error == pytest.approx(expected, rel=1e-6)


def test_the_page_draws_both_ends_of_a_range(onednn: tuple[Path, Path], tmp_path: Path) -> None:
    comparison = compare(*onednn, data_loader=BATCHES)
    save_page(comparison, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    lines = [tag for tag, _, value in page.attributes if value == "threshold"].count("line")
    assert lines == 4  # two for the range with a zero point
    assert any(re.fullmatch(r"range -0\.\d+ \.\. .*", text) for text in page.texts)
    assert any(text.startswith("range 0 .. ") for text in page.texts)
    assert any(text.startswith("threshold ") for text in page.texts)


def test_onednn_scales_that_are_refused(onednn: tuple[Path, Path], tmp_path: Path) -> None:
    source, quantized = onednn
    for scale in (-1.0, math.inf):
        model = load_model(quantized)
        next(op for op in model.ops() if op.type == "quantize").set_attr("Scale", scale)
        save_model(model, tmp_path / "out", "m.pdmodel", "m.pdiparams")
        with pytest.raises(ModelFileError, match=rf"'x\.quantized' .*{scale}"):
            compare(source, tmp_path / "out", data_loader=BATCHES)
    with pytest.raises(SettingError, match=r"/model\.pdmodel: .*float model"):
        compare(quantized, source, data_loader=BATCHES)


def test_a_picture_of_zeros_is_none() -> None:
    statistic = ActivationHistogram()
    statistic.observe(np.zeros((2, 8), np.float32))
    tensor = ComparedTensor("x", "activation", (), None, threshold=0.0, histogram=statistic)
    assert histogram_picture(tensor) == ""
