"""Profiles: programs in the form that the passes of TensorRT and Paddle-Lite match; all in int8.

Neither a GPU nor an ARM device is used: the tests read the written program as those passes do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
import static_runs
from paddle_run import relative_error, run
from processors import QDQ, deployed, needs_vnni
from programs import CONV, UNPADDED, Net, product_attributes
from static_runs import RUN, error_of

from pyquant import (
    QuantizationResult,
    SettingError,
    UnsupportedError,
    calibrate,
    load_model,
    quant_post_static,
)
from pyquant.program import proto
from pyquant.program.model import Model
from pyquant.program.op import Op, ops_of
from pyquant.program.quantizable import ACTIVATION_OP_TYPES, QUANTIZABLE_OPS
from pyquant.program.targets.profiles import DEPLOY_BACKENDS

pytestmark = pytest.mark.any_isa

IMAGES = programs.random((4, 8, 8, 8), 9)
ROWS = programs.random((6, 64), 9)
DEPTHWISE = {**CONV, "groups": 8}
ELSEWHERE = ["TensorRT", "ARM"]


SMALL = re.compile(r"fewer than [\d,]+ multiplications")


def images() -> Net:
    return Net(list(IMAGES.shape))


def rows() -> Net:
    return Net(list(ROWS.shape))


def product(net: Net, outputs: int, op_type: str) -> Net:
    weight = net.parameter(f"w.{net.last}", programs.random((net.dims[-1], outputs), outputs))
    net.dims = [*net.dims[:-1], outputs]
    return net.then(op_type, {"X": net.last, "Y": weight}, "Out", product_attributes(op_type))


def every_op() -> Net:
    """Each op type with a weight, some followed by a bias, a relu or a residual."""
    net = images().conv(8).constant("elementwise_add", programs.random((8,), 1), 1).act("relu")
    side = net.last
    net.conv(8, DEPTHWISE, "depthwise_conv2d").act("relu").conv(8, UNPADDED)
    net.then("elementwise_add", {"X": net.last, "Y": side}, "Out", {"axis": -1}).act("relu")
    net.conv(4, CONV, "conv2d_transpose").act("sigmoid").act("tanh")
    net.dims = [net.dims[0], 256]
    flat = {"start_axis": 1, "stop_axis": -1}
    net.then("flatten_contiguous_range", {"X": net.last}, "Out", flat)
    for op_type in ("mul", "matmul", "matmul_v2"):
        product(net, 32, op_type)
        net.constant("elementwise_add", programs.random((32,), 3)).act("relu")
    net.fetch(net.last)  # the softmax is almost one-hot, and hides errors
    net.then("softmax", {"X": net.last}, "Out", {"axis": -1}).end()
    for name in net.parameters:
        if name.startswith("w"):
            net.parameters[name] *= np.float32(0.2)
    return net


def quantized(net: Net, directory: Path, data: Any, **options: Any) -> QuantizationResult:
    net.save(directory / "float")
    return static_runs.quantized(directory, [data], **{"algo": "abs_max", **options})


def only(names: Sequence[str]) -> str:
    (name,) = names
    return name


class Passes:
    """The facts that the passes read from a QDQ program.

    Attributes:
        model: the program without QDQ, weights as stored.
        scales: the steps of each weight's integers, and their axis.
        ranges: for each op that reads quantized tensors, by its first output, their ranges.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.scales: dict[str, tuple[Any, int]] = {}
        self.ranges: dict[str, dict[str, float]] = {}
        producers = model.producers()
        sources = {}  # of each dequantized tensor
        for op in model.ops():
            if op.type != "dequantize_linear":
                continue
            self._check(op)
            source = only(op.inputs("X"))
            output = only(op.outputs("Y"))
            scale = model.parameters[only(op.inputs("Scale"))]
            if source in model.parameters:
                axis = op.value("quant_axis")
                assert model.parameters[source].dtype == np.int8
                self.scales[source] = scale / np.float32(127), axis
                sources[output] = source, None
            else:
                quantize = producers[source]
                assert quantize.type == "quantize_linear"
                self._check(quantize)
                assert quantize.inputs("Scale") == op.inputs("Scale")
                assert op.value("quant_axis") == -1
                sources[output] = only(quantize.inputs("X")), float(scale[0])
        self.ops = [op for op in model.ops() if not op.type.endswith("quantize_linear")]
        for op in self.ops:
            read = [sources[name] for name in op.reads() if name in sources]
            op.rename_inputs({name: source for name, (source, _) in sources.items()})
            ranges = {name: scale for name, scale in read if scale is not None}
            if ranges:
                self.ranges[op.output()] = ranges

    def _check(self, op: Op) -> None:
        """Check what the passes assume of ``quantize_linear`` and its inverse."""
        assert op.value("bit_length") == 8
        zero_point = self.model.parameters[only(op.inputs("ZeroPoint"))]
        assert not zero_point.any()

    def tensor_range(self, name: str) -> float | None:
        """Return the range of a tensor, from any op that has it."""
        return next((read[name] for read in self.ranges.values() if name in read), None)


@pytest.mark.parametrize("backend", ELSEWHERE)
def test_every_op_with_a_weight_is_of_the_form_that_the_passes_match(
    tmp_path: Path, backend: str
) -> None:
    result = quantized(every_op(), tmp_path, IMAGES, **deployed(backend))
    assert result.kept_float == []
    passes = Passes(load_model(tmp_path / "int8"))
    found = [op for op in passes.ops if op.type in QUANTIZABLE_OPS]
    assert {op.type for op in found} == set(ACTIVATION_OP_TYPES)
    for op in found:
        kind = QUANTIZABLE_OPS[op.type]
        weight = only(op.inputs(kind.weight))
        scales, axis = passes.scales[weight]
        assert axis == (1 if op.type in ("conv2d_transpose", "mul", "matmul", "matmul_v2") else 0)
        assert scales.shape == (passes.model.parameters[weight].shape[axis],)
        activation = only(op.inputs(kind.activation))
        assert passes.ranges[op.output()][activation] > 0
    assert {op.type for op in passes.ops}.isdisjoint({"cast", "elementwise_mul"})


def test_tensorrt_knows_the_range_of_all_that_an_int8_layer_reads_and_writes(
    tmp_path: Path,
) -> None:
    quantized(every_op(), tmp_path, IMAGES, deploy_backend="TensorRT")
    passes = Passes(load_model(tmp_path / "int8"))
    readers: dict[str, list[Any]] = {}
    for op in passes.ops:
        for name in op.reads():
            readers.setdefault(name, []).append(op)
    types = []
    for op in passes.ops:
        if op.type not in (*QUANTIZABLE_OPS, *DEPLOY_BACKENDS["TensorRT"].fused):
            continue
        types.append(op.type)
        output = op.output()
        addends = [name for r in readers[output] for name in r.inputs("Y")]
        is_biased = any(name in passes.model.parameters for name in addends)
        # A convolution and its bias are one layer (conv_elementwise_add_fuse_pass.cc).
        is_inside = op.type == "conv2d" and is_biased
        assert (passes.tensor_range(output) is None) == is_inside, op.type
    assert types.count("elementwise_add") == 5
    assert passes.tensor_range(passes.model.fetches[1]) is None


def test_paddle_lite_is_given_what_int8_ops_read_and_no_more(tmp_path: Path) -> None:
    quantized(every_op(), tmp_path, IMAGES, deploy_backend="ARM")
    passes = Passes(load_model(tmp_path / "int8"))
    int8 = {op.output() for op in passes.ops if op.type in QUANTIZABLE_OPS}
    assert passes.ranges.keys() == int8


@pytest.mark.parametrize("backend", ELSEWHERE)
@pytest.mark.parametrize(
    "op_type", ["conv2d", "depthwise_conv2d", "conv2d_transpose", "mul", "matmul", "matmul_v2"]
)
def test_the_simulation_computes_what_the_integers_say(
    tmp_path: Path, backend: str, op_type: str
) -> None:
    net, data = one_op(op_type)
    quantized(net, tmp_path, data, **deployed(backend), bias_correction=False)
    expected = outputs_of_integers(net, tmp_path, data, 8)
    (simulated,) = run(tmp_path / "int8", {"x": data})
    assert relative_error(simulated, expected) < 1e-5
    assert 1e-4 < error_of(tmp_path, data, "plain") < 0.03


def one_op(op_type: str) -> tuple[Net, Any]:
    """A net of one op with a weight, and data for it."""
    if op_type in ("mul", "matmul", "matmul_v2"):
        return product(rows(), 32, op_type).end(), ROWS
    attributes = DEPTHWISE if op_type == "depthwise_conv2d" else CONV
    return images().conv(8, attributes, op_type).end(), IMAGES


def outputs_of_integers(net: Net, directory: Path, data: Any, weight_bits: int) -> Any:
    """What ``net`` computes from the dequantized integers of its input and its weight.

    The integers are computed anew in numpy, by the maxima, per channel.
    """
    op = next(op for op in ops_of(net.block) if op.type in QUANTIZABLE_OPS)
    kind = QUANTIZABLE_OPS[op.type]
    name = only(op.inputs(kind.weight))
    weight = net.parameters[name]
    others = tuple(axis for axis in range(weight.ndim) if axis != kind.channel_axis % weight.ndim)
    levels = 2 ** (weight_bits - 1) - 1
    steps = np.abs(weight).max(axis=others, keepdims=True) / levels
    net.parameters[name] = (np.rint(weight / steps) * steps).astype(np.float32)
    net.save(directory / "reference")
    net.parameters[name] = weight
    step = np.abs(data).max() / 127
    rounded = (np.rint(data / step) * step).astype(np.float32)
    return run(directory / "reference", {"x": rounded})[0]


@pytest.mark.parametrize("backend", ELSEWHERE)
@pytest.mark.parametrize("full", [False, True])
def test_the_simulation_is_near_float(tmp_path: Path, backend: str, full: bool) -> None:
    result = quantized(every_op(), tmp_path, IMAGES, **deployed(backend), is_full_quantize=full)
    assert result.kept_float == []
    assert 0 < error_of(tmp_path, IMAGES, "plain") < 0.02
    # A tanh behind a sigmoid is fused to no int8 op.
    tanh = next(op for op in load_model(tmp_path / "int8").ops() if op.type == "tanh")
    is_quantized = only(tanh.inputs("X")).endswith(".dequantized")
    assert is_quantized == (full and backend == "TensorRT")


def biased_conv() -> Net:
    net = images().conv(8)
    bias = net.parameter("bias", programs.random((8,), 4))
    net.block.ops[-1].inputs.add(parameter="Bias", arguments=[bias])
    return net.conv(8)


def batched_product() -> Net:
    """A weight of its own for each of four matrices, and a plain product."""
    net = Net([4, 8, 8, 8])
    weight = net.parameter("w0", programs.random((8, 8, 8), 4))
    return net.then("matmul_v2", {"X": net.last, "Y": weight}, "Out", {}).conv(8)


@pytest.mark.parametrize(
    ("backend", "build", "reason"),
    [
        (
            "TensorRT",
            lambda: rows().matmul(32, trans_x=False, trans_y=True),
            "axis 0",
        ),
        (
            "ARM",
            lambda: images().conv(8, {**CONV, "groups": 2}, "conv2d_transpose"),
            "transposed convolution.* groups",
        ),
        ("ARM", lambda: rows().matmul(32).matmul(16).act(), "product"),
        ("ARM", biased_conv, "float parameter"),
        ("ARM", batched_product, "two dimensions"),
        ("TensorRT", batched_product, "two dimensions"),
    ],
)
def test_what_a_runtime_cannot_do_stays_as_it_is(
    tmp_path: Path, backend: str, build: Any, reason: str
) -> None:
    net = build().end()
    data = ROWS if net.dims[0] == len(ROWS) else IMAGES
    result = quantized(net, tmp_path, data, **deployed(backend), optimize_model=False)
    assert re.search(reason, result.kept_float[0].reason)
    assert "int16" not in result.kept_float[0].reason
    written = load_model(tmp_path / "int8")
    assert all(op.type != "cast" for op in written.ops())
    weight = next(name for name in net.parameters if name.startswith("w"))
    np.testing.assert_array_equal(written.parameters[weight], net.parameters[weight])


def test_a_product_in_float_reads_floats_in_full_quantization_too(tmp_path: Path) -> None:
    net = rows().matmul(32, trans_x=False, trans_y=True).act("tanh").end()
    result = quantized(
        net, tmp_path, ROWS, deploy_backend="TensorRT", is_full_quantize=True, optimize_model=False
    )
    assert list(result.thresholds()) == ["t1"]
    assert [op.op_type for op in result.kept_float] == ["matmul_v2"]


def test_a_product_of_activations_is_int8_in_full_quantization(tmp_path: Path) -> None:
    net = rows().matmul(32)
    inputs = {"X": net.last, "Y": net.last}
    net.dims = [len(ROWS), len(ROWS)]
    net.then("matmul_v2", inputs, "Out", {"trans_x": False, "trans_y": True}).end()
    for full, kept, activations in ((False, 1, 2), (True, 0, 2)):
        result = quantized(net, tmp_path, ROWS, deploy_backend="TensorRT", is_full_quantize=full)
        assert len(result.kept_float) == kept
        assert len(result.thresholds()) == activations


def test_products_need_a_scale_for_each_column_on_arm(tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedError, match=r"^weight_quantize_type='abs_max': .*ARM .*'channel_wise_abs_max'"
    ):
        quantized(
            every_op(), tmp_path, IMAGES, deploy_backend="ARM", weight_quantize_type="abs_max"
        )


def test_a_metric_needs_a_model_that_runs_here(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"^eval_function: .*TensorRT"):
        quantized(
            every_op(), tmp_path, IMAGES, deploy_backend="TensorRT", eval_function=lambda _: 1.0
        )


def test_names_of_profiles_are_of_any_case(tmp_path: Path) -> None:
    for number, name in enumerate(("tensorrt", "arm", "mkldnn", "onednn")):
        quantized(every_op(), tmp_path / str(number), IMAGES, deploy_backend=name)
    with pytest.raises(SettingError, match=r"^deploy_backend: 'cuda' .*'TensorRT', 'ARM'"):
        quantized(every_op(), tmp_path, IMAGES, deploy_backend="cuda")


def test_a_skipped_tensor_is_read_in_float(tmp_path: Path) -> None:
    net = every_op()
    sums = [op for op in ops_of(net.block) if op.type == "elementwise_add"]
    residual = only(sums[1].outputs("Out"))
    options = {"deploy_backend": "TensorRT", "skip_tensor_list": [residual]}
    result = quantized(net, tmp_path, IMAGES, is_full_quantize=True, **options)
    assert residual not in result.thresholds()
    written = load_model(tmp_path / "int8")
    for op in written.ops():
        if residual in (*op.reads(), *op.writes()):
            assert not any(name.endswith(".dequantized") for name in op.reads())


def depthwise_on_sigmoid() -> Net:
    return images().conv(8).act().conv(8, DEPTHWISE, "depthwise_conv2d").conv(8, UNPADDED).end()


@pytest.mark.parametrize("backend", ["QDQ", "OneDNN"])
def test_full_quantization_takes_what_was_left_for_accuracy(tmp_path: Path, backend: str) -> None:
    if backend == "QDQ":
        needs_vnni()
    options = {**deployed(backend), "quantizable_op_type": ["conv2d"]}
    (tmp_path / "full").mkdir()
    partly = quantized(depthwise_on_sigmoid(), tmp_path, IMAGES, **options)
    fully = quantized(
        depthwise_on_sigmoid(), tmp_path / "full", IMAGES, is_full_quantize=True, **options
    )
    weights = [len([t for t in r.quantized if t.kind == "weight"]) for r in (partly, fully)]
    assert weights == [2, 3]
    assert fully.kept_float == []
    assert all(tensor.bits <= 8 for tensor in fully.quantized)
    assert 0 < error_of(tmp_path / "full", IMAGES, RUN[backend]) < 0.05
    if backend == "QDQ":
        int8, simulated = (
            run(tmp_path / "full/int8", {"x": IMAGES}, how)[0] for how in ("int8", "plain")
        )
        assert relative_error(int8, simulated) < 0.02


def test_what_the_runtime_cannot_do_is_no_choice(tmp_path: Path) -> None:
    net = images().conv(8).conv(8, CONV, "conv2d_transpose").end()
    result = quantized(net, tmp_path, IMAGES, is_full_quantize=True, **QDQ)
    assert "conv2d_transpose" in result.kept_float[0].reason


def test_a_calibration_serves_full_quantization(tmp_path: Path) -> None:
    options: Any = {"deploy_backend": "TensorRT", "is_full_quantize": True}
    by_data = quantized(every_op(), tmp_path, IMAGES, **options)
    calibration = calibrate(tmp_path / "float", data_loader=[{"x": IMAGES}], **options)
    saved = quant_post_static(
        None,
        tmp_path / "float",
        tmp_path / "again",
        calibration=calibration,
        algo="abs_max",
        **options,
    )
    assert saved.thresholds() == by_data.thresholds()
    assert saved.model_path.read_bytes() == by_data.model_path.read_bytes()


@pytest.mark.parametrize("bits", [2, 4, 7])
@pytest.mark.parametrize("op_type", ["conv2d", "matmul_v2"])
@pytest.mark.parametrize("backend", ["QDQ", "OneDNN", "ARM"])
def test_weights_of_fewer_bits(tmp_path: Path, bits: int, op_type: str, backend: str) -> None:
    net, data = one_op(op_type)
    options: Any = {"weight_bits": bits, **deployed(backend), "bias_correction": False}
    result = quantized(net, tmp_path, data, **options)
    (weight,) = (tensor for tensor in result.quantized if tensor.kind == "weight")
    assert weight.bits == bits
    stored = load_model(tmp_path / "int8").parameters[weight.name]
    assert np.abs(stored.astype(int)).max() == 2 ** (bits - 1) - 1
    expected = outputs_of_integers(net, tmp_path, data, bits)
    runs = {"QDQ": ("plain", "int8"), "OneDNN": ("float",), "ARM": ("plain",)}[backend]
    for how in runs:
        # OneDNN's activations have a zero point, and Paddle's int8 passes round the weights of a
        # convolution to 8 bits again.
        is_exact = how == "plain" or (how == "int8" and op_type != "conv2d")
        bound = 1e-5 if is_exact else 0.01
        assert relative_error(run(tmp_path / "int8", {"x": data}, how)[0], expected) < bound


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"activation_bits": 16}, "^activation_bits=16.* 8"),
        ({"activation_bits": 4}, "^activation_bits=4.* 8"),
        ({"weight_bits": 16}, "^weight_bits=16.* quant_post_dynamic"),
        ({"weight_bits": 1}, "^weight_bits=1.* 2 to 8"),
    ],
)
def test_other_widths_are_refused_with_the_reason(
    tmp_path: Path, options: dict[str, int], reason: str
) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        quantized(every_op(), tmp_path, IMAGES, **options)


SCALED: dict[str, Callable[[], Net]] = {
    "product": lambda: (
        rows().matmul(30, trans_x=False, trans_y=False).constant("elementwise_mul", np.full(30, 3))
    ),
    "depthwise": lambda: (
        images().conv(8, DEPTHWISE, "depthwise_conv2d").constant("elementwise_mul", [3.0], 1)
    ),
    "transposed": lambda: (
        images().conv(8, CONV, "conv2d_transpose").constant("elementwise_mul", [3.0], 1)
    ),
}


@pytest.mark.parametrize("name", SCALED)
def test_ranges_are_those_of_the_folded_program(name: str, tmp_path: Path) -> None:
    net = SCALED[name]()
    channels, axis = net.dims[1 if len(net.dims) == 4 else -1], 1 if len(net.dims) == 4 else -1
    net.constant("elementwise_add", np.linspace(-1, 1, channels), axis).act("relu").end()
    data = programs.random(tuple(net.dims[:1]) + tuple(read_dims(net)), 3)
    quantized(net, tmp_path, data, deploy_backend="TensorRT")
    assert error_of(tmp_path, data, "plain") < 0.05


def read_dims(net: Net) -> list[int]:
    return list(proto.tensor_desc(net.block.vars[2]).dims)[1:]


ODD: dict[str, tuple[Callable[[], Net], str]] = {
    "channels last": (lambda: channels_last(), "QDQ"),
    "flattened": (lambda: flattened(), "TensorRT"),
    "transposed": (lambda: transposed_rows(), "ARM"),
}


def channels_last() -> Net:
    net = Net([4, 10, 12, 8])
    weight = net.parameter("w1", programs.random((16, 8, 3, 3), 1))
    net.dims = [4, 10, 12, 16]
    attributes = {**CONV, "data_format": "NHWC"}
    return net.then("conv2d", {"Input": "x", "Filter": weight}, "Output", attributes)


def flattened() -> Net:
    """A product that flattens all axes except the first."""
    net = Net([4, 8, 6, 6])
    weight = net.parameter("w1", programs.random((288, 16), 1))
    net.dims = [4, 16]
    attributes = {"x_num_col_dims": 1, "y_num_col_dims": 1}
    return net.then("mul", {"X": "x", "Y": weight}, "Out", attributes)


def transposed_rows() -> Net:
    """A product that reads its rows as columns."""
    net = Net([4, 6, 32])
    weight = net.parameter("w1", programs.random((6, 16), 1))
    net.dims = [4, 32, 16]
    attributes = {"trans_x": True, "trans_y": False}
    return net.then("matmul_v2", {"X": "x", "Y": weight}, "Out", attributes)


@pytest.mark.parametrize("name", ODD)
def test_rounding_by_data_of_whatever_lies_otherwise(name: str, tmp_path: Path) -> None:
    make, backend = ODD[name]
    net = make().end()
    # If values are correlated, errors of weights can make up for one another.
    data = programs.random((4, *read_dims(net)), 3) + np.float32(2)
    options = {**deployed(backend), "bias_correction": False}
    errors = []
    for round_type in ("adaround", "round"):
        quantized(net, tmp_path, data, weight_bits=3, round_type=round_type, **options)
        errors.append(error_of(tmp_path, data, "plain"))
    assert errors[0] < errors[1]
    quantized(net, tmp_path, data, algo="auto", equalize=True, **options)


def large_and_small(height: int = 32) -> Net:
    """Return a net of two large convolutions between two that do little."""
    net = Net([-1, 4, height, 32]).conv(8, UNPADDED).act("relu").conv(64).act("relu")
    return net.conv(16, UNPADDED).act("relu").conv(2, UNPADDED).end()


def quantized_at_32(net: Net, directory: Path, **options: Any) -> QuantizationResult:
    data = [programs.random((2, 4, 32, 32), 1)]
    model_dir = net.save(directory / "in")
    options = {"data_loader": data, "verify": False, **options}
    return quant_post_static(None, model_dir, directory / "out", **options)


@pytest.mark.parametrize("backend", [None, "QDQ", "ONNX"])
def test_an_op_that_does_little_stays_in_float(backend: str | None, tmp_path: Path) -> None:
    """Not the first one: what it reads shows whether the data are prepared as for training."""
    net = large_and_small()
    result = quantized_at_32(net, tmp_path, **deployed(backend))
    (kept,) = result.kept_float
    assert kept.name == net.last
    assert SMALL.search(kept.reason)
    kinds = [tensor.kind for tensor in result.quantized]
    assert kinds.count("activation") >= 3
    assert kinds.count("weight") == (3 if backend == "ONNX" else 4)


@pytest.mark.parametrize(
    ("net", "options"),
    [
        (lambda: large_and_small(height=-1), {}),
        (lambda: Net([-1, 4, 32, 32]).conv(8, UNPADDED).act("relu").conv(2, UNPADDED).end(), {}),
        (large_and_small, {"is_full_quantize": True}),
        (large_and_small, {"deploy_backend": "OpenVINO"}),
    ],
    ids=["of an open height", "all do little", "in full", "where int8 costs little"],
)
def test_an_op_that_does_little_is_int8(
    net: Callable[[], Net], options: dict[str, Any], tmp_path: Path
) -> None:
    assert not quantized_at_32(net(), tmp_path, **options).kept_float
