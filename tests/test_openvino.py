"""Int8 models that are made for OpenVINO: how it reads them, and what it runs as int8."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ocr_images import inputs
from paddle_run import predict, relative_error
from programs import CONV, UNPADDED, Net, random

from bench.ocr import models
from pyquant import QuantizationResult, UnsupportedError, load_model, quant_post_static
from pyquant.cli import main
from pyquant.program.model import Model

pytest.importorskip("openvino")  # with it comes the extra of the same name

from openvino_run import layers, outputs

pytestmark = pytest.mark.any_isa

IMAGES = random((4, 8, 8, 8), 9)
WEIGHTED = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


def quantized(source: Path, data: Any, **options: Any) -> QuantizationResult:
    given = {"deploy_backend": "OpenVINO", "data_loader": [data], "verify": False, **options}
    return quant_post_static(None, source, source.parent / "int8", **given)


def made_of(net: Net, directory: Path, data: Any, **options: Any) -> QuantizationResult:
    net.end().save(directory / "float")
    return quantized(directory / "float", data, **options)


def in_paddle(source: Path, data: Any) -> Any:
    model = load_model(source)
    return predict(model.model_path, model.params_path, {model.feeds[0].name: data})[0]


def error_of(result: QuantizationResult, source: Path, data: Any) -> float:
    (feed,) = load_model(source).feeds
    return relative_error(outputs(result.model_path, {feed.name: data})[0], in_paddle(source, data))


@pytest.mark.parametrize(
    ("low", "levels"), [(0.0, 255), (-0.25, 255), (-1.0, 255)], ids=["relu", "swish", "signed"]
)
def test_all_levels_of_an_activation_are_used(tmp_path: Path, low: float, levels: int) -> None:
    """A convolution with the weight 1 shows the values that integers stand for."""
    data = np.linspace(low, 1, 8 * 8 * 64, dtype=np.float32).reshape(1, 1, 64, 64)
    net = Net(list(data.shape)).conv(1, UNPADDED)
    (weight,) = net.parameters
    net.parameters[weight] = np.ones((1, 1, 1, 1), np.float32)
    result = made_of(net, tmp_path, data, algo="abs_max", bias_correction=False)
    (found,) = outputs(result.model_path, {"x": data})
    step = (1 - low) / levels
    assert len(np.unique(found.round(5))) == levels + 1
    assert 0.45 * step < np.abs(found - data).max() < 0.6 * step


def residual_net() -> Net:
    """Convolutions with and without groups, a residual and a product."""
    net = Net(list(IMAGES.shape)).conv(8).act("relu")
    side = net.last
    net.conv(8, {**CONV, "groups": 8}, "depthwise_conv2d").act("hard_swish").conv(8, UNPADDED)
    net.then("elementwise_add", {"X": net.last, "Y": side}, "Out", {"axis": -1}).act("relu")
    net.conv(8)
    net.dims = [net.dims[0], 512]
    flat = {"start_axis": 1, "stop_axis": -1}
    return net.then("flatten_contiguous_range", {"X": net.last}, "Out", flat).matmul(16)


def test_every_op_with_a_weight_is_int8(tmp_path: Path) -> None:
    result = made_of(residual_net(), tmp_path, IMAGES)
    assert result.kept_float == []
    assert sum(layers(result.model_path, *WEIGHTED).values()) == 5
    assert set(layers(result.model_path, *WEIGHTED)) <= {"u8", "i8"}
    assert 0 < error_of(result, tmp_path / "float", IMAGES) < 0.03


def test_a_sum_of_feature_maps_is_int8_beside_int8_ops_alone(tmp_path: Path) -> None:
    net = residual_net()
    result = made_of(net, tmp_path, IMAGES)

    def is_quantized(model: Model) -> bool:
        (op,) = (
            op
            for op in model.ops()
            if op.type == "elementwise_add" and model.parameters.keys().isdisjoint(op.reads())
        )
        return all(name.endswith(".dequantized") for name in op.reads())

    assert is_quantized(load_model(tmp_path / "int8"))
    names = [op.output() for op in load_model(tmp_path / "float").ops() if "conv2d" in op.type]
    result = quantized(tmp_path / "float", IMAGES, skip_tensor_list=names)
    assert [one.op_types for one in result.quantized if one.kind == "weight"] == [("matmul_v2",)]
    assert not is_quantized(load_model(tmp_path / "int8"))


def test_a_result_is_checked_in_openvino(tmp_path: Path) -> None:
    residual_net().end().save(tmp_path / "float")
    result = quantized(tmp_path / "float", IMAGES, verify=True)
    found = result.verification
    assert found is not None
    assert 0 < found.error_percent < 5
    assert not found.departs
    assert min(found.float_seconds, found.int8_seconds, found.speedup) > 0
    assert any(note.startswith("OpenVINO computes with integers: ") for note in result.notes)


def add_attribute(net: Net) -> None:
    net.then("one_hot_v2", {"X": net.last}, "Out", {"depth": 5, "allow_out_of_range": True})


def add_dtype(net: Net) -> None:
    waves = net.feed("waves", [-1, 8, 8, 8], 23)  # complex64
    net.fetch(net.op("relu", {"X": waves}, ("Out", "z"), [-1, 8, 8, 8]))


@pytest.mark.parametrize(
    ("add", "named"),
    [
        (add_attribute, "the op 'one_hot_v2' that writes"),
        (add_dtype, "the op 'relu' that writes 'z'"),
    ],
)
def test_what_its_frontend_refuses_is_named_before_data_are_read(
    tmp_path: Path, add: Callable[[Net], None], named: str
) -> None:
    net = residual_net().act("relu")
    add(net)
    net.act("relu").end().save(tmp_path / "float")

    def data() -> Any:
        raise AssertionError("the data are read")

    with pytest.raises(UnsupportedError, match=f"OpenVINO cannot read {named}.*another deploy"):
        quant_post_static(
            None,
            tmp_path / "float",
            tmp_path / "int8",
            data_loader=data,
            deploy_backend="OpenVINO",
        )


@pytest.mark.parametrize("command", ["convert", "fold"])
def test_a_float_model_is_written_for_it(tmp_path: Path, command: str) -> None:
    """Paddle runs it as well."""
    net = Net(list(IMAGES.shape)).conv(16)
    shuffle = {"upscale_factor": 2, "data_format": "NCHW"}
    net.dims = [net.dims[0], 4, *(2 * size for size in net.dims[2:])]
    net.then("pixel_shuffle", {"X": net.last}, "Out", shuffle).end().save(tmp_path / "float")
    path = tmp_path / "out"
    given = [command, str(tmp_path / "float"), str(path), "--deploy-backend", "openvino"]
    assert main(given) == 0
    (found,) = outputs(path / "m.pdmodel", {"x": IMAGES})
    assert relative_error(found, in_paddle(tmp_path / "float", IMAGES)) < 1e-5
    assert relative_error(in_paddle(path, IMAGES), in_paddle(tmp_path / "float", IMAGES)) < 1e-5
    assert main([*given[:2], str(path / "m.onnx"), *given[3:]]) == 1


def test_a_truncated_file_ends_no_process_after_the_check(tmp_path: Path) -> None:
    """OpenVINO's Cores each change the stack of signal handlers."""
    source = residual_net().end().save(tmp_path / "float")
    quantized(source, IMAGES, verify=True)
    model = load_model(source)
    os.truncate(model.params_path, 0)
    assert not any(array.any() for array in model.parameters.values())


@pytest.mark.parametrize("name", [models.RECOGNITION, models.DETECTION, models.DIRECTION])
def test_a_real_model_is_int8(name: str, tmp_path: Path) -> None:
    """Recognition is repaired; so is detection, in half a minute more, if it is checked."""
    data, verify = inputs(name, 4), name != models.DETECTION
    result = quant_post_static(
        None,
        models.model_dir(name),
        tmp_path,
        data_loader=[data],
        deploy_backend="OpenVINO",
        verify=verify,
    )
    found = layers(result.model_path, "Convolution", "FullyConnected")
    weights = sum(one.kind == "weight" for one in result.quantized)
    assert found["u8"] + found["i8"] == weights > 45
    assert error_of(result, models.model_dir(name), data) < 0.2


def test_shuffled_pixels_are_the_same(tmp_path: Path) -> None:
    net = Net([4, 8, -1, -1]).conv(8, UNPADDED)
    net.then("pixel_shuffle", {"X": net.last}, "Out", {"upscale_factor": 2, "data_format": "NCHW"})
    made_of(net, tmp_path, IMAGES)
    by_shuffle = in_paddle(tmp_path / "float", IMAGES)
    found = outputs(tmp_path / "int8" / "model.pdmodel", {"x": IMAGES})[0]
    assert found.shape == by_shuffle.shape == (4, 2, 16, 16)
    assert 1e-4 < relative_error(found, by_shuffle) < 0.02


@pytest.mark.parametrize("columns", [1, 2])
def test_an_old_product_is_read(tmp_path: Path, columns: int) -> None:
    data = random((4, 6, 8), 3)
    net = Net([4, 6, 8])
    weight = net.parameter("w", random((48 if columns == 1 else 8, 16), 4))
    attributes = {"x_num_col_dims": columns, "y_num_col_dims": 1}
    net.dims = [4, 16] if columns == 1 else [4, 6, 16]
    net.then("mul", {"X": net.last, "Y": weight}, "Out", attributes)
    result = made_of(net, tmp_path, data)
    assert set(layers(result.model_path, *WEIGHTED)) <= {"u8", "i8"}
    assert 1e-4 < error_of(result, tmp_path / "float", data) < 0.02


def test_an_op_that_the_frontend_lacks_is_named_before_calibration(tmp_path: Path) -> None:
    net = Net(list(IMAGES.shape)).conv(8).act("mish").conv(8)
    output = net.block.ops[-2].outputs[0].arguments[0]

    def unread() -> Any:
        pytest.fail("the data were read")
        yield IMAGES

    net.end().save(tmp_path / "float")
    with pytest.raises(
        UnsupportedError, match=rf"^deploy_backend='OpenVINO': .*'mish'.*'{output}'"
    ):
        quant_post_static(
            None,
            tmp_path / "float",
            tmp_path / "int8",
            data_loader=unread,
            deploy_backend="OpenVINO",
        )
