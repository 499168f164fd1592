"""Both modes on pretrained models in common use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_forms import check_runs, converted
from ocr_images import RENDERERS, V5_RENDERERS, inputs
from paddle_run import execute, predict, relative_error
from processors import QDQ, needs_vnni

from bench.methods import Variant
from bench.ocr import lines, models, recognizer
from pyquant import load_model, quant_post_dynamic, quant_post_static

# How far each form may be from the original: some probabilities round differently.
V5_ERRORS = {"convert": 1e-4, "fold": 1e-4, "QDQ": 0.4, "OneDNN": 0.3}
DENORMAL = 1.2e-38  # Paddle's Predictor keeps denormals, its Executor flushes them to zero


def test_what_onednn_does_not_run_as_json_is_noted(tmp_path: Path) -> None:
    source = models.json_path(models.V5_DETECTION)
    (note,) = quant_post_dynamic(source, tmp_path / "1").notes
    assert re.search(r"nearest_interp_v2 '.+' of a \.json.*save_model_filename", note)
    given = {"save_model_filename": "model.pdmodel"}
    assert quant_post_dynamic(source, tmp_path / "2", **given).notes == []
    assert quant_post_dynamic(models.model_dir(models.DETECTION), tmp_path / "3").notes == []


@pytest.mark.parametrize("name", RENDERERS)
def test_dynamic_int8(tmp_path: Path, name: str) -> None:
    result = quant_post_dynamic(models.model_dir(name), tmp_path)
    assert result.bytes_after <= 0.28 * result.bytes_before
    before = load_model(models.model_dir(name)).parameters
    after = load_model(result.model_path.parent).parameters
    for tensor in result.quantized:
        step = after[f"{tensor.name}@scale"].astype(np.float64)
        if tensor.axis == 0:  # by channels along axis 1 of a reshaped weight
            step = step.reshape([-1, *[1] * (after[tensor.name].ndim - 1)])
        error = np.abs(after[tensor.name] * step - before[tensor.name])
        assert (error <= step * (0.5 + 1e-5)).all()
    feed = {"x": inputs(name, 2)}
    plain = predict(result.model_path, result.params_path, feed)[0]
    executed = execute(result.model_path, result.params_path, feed)[0]
    np.testing.assert_allclose(executed, plain, rtol=0, atol=DENORMAL)
    for how in ("float", "int8"):
        again = predict(result.model_path, result.params_path, feed, how)[0]
        np.testing.assert_allclose(again, plain, atol=1e-3)


def test_dynamic_recognition_is_about_a_quarter(tmp_path: Path) -> None:
    result = quant_post_dynamic(models.model_dir(models.RECOGNITION), tmp_path)
    assert result.bytes_after <= 0.27 * result.bytes_before


@pytest.mark.parametrize("name", RENDERERS)
def test_dynamic_int16_is_float_but_for_rounding(tmp_path: Path, name: str) -> None:
    result = quant_post_dynamic(models.model_dir(name), tmp_path, weight_bits=16)
    feed = {"x": inputs(name, 4)}
    expected = predict(*models.model_paths(name), feed)[0]
    assert relative_error(predict(result.model_path, result.params_path, feed)[0], expected) < 1e-3


@pytest.mark.parametrize("name", RENDERERS)
def test_static_runs_as_int8_and_as_simulated(tmp_path: Path, name: str) -> None:
    if name == models.RECOGNITION:
        needs_vnni()
    images = inputs(name, 8)
    result = quant_post_static(
        None,
        models.model_dir(name),
        tmp_path,
        data_loader=[images[:4], images[4:]],
        verify=False,
        **QDQ,
    )
    feed = {"x": images[:4]}
    simulated = predict(result.model_path, result.params_path, feed)[0]
    executed = execute(result.model_path, result.params_path, feed)[0]
    np.testing.assert_allclose(executed, simulated, rtol=0, atol=DENORMAL)
    int8 = predict(result.model_path, result.params_path, feed, "int8")[0]
    expected = predict(*models.model_paths(name), feed)[0]
    # The run may round differently from the simulation, but must not be further from float.
    assert relative_error(int8, expected) < 1.5 * relative_error(simulated, expected) + 0.01


FORMS_THAT_READ: dict[str, dict[str, Any]] = {
    "default": {},
    "QDQ": {"deploy_backend": "QDQ"},
    "QDQ for VNNI": QDQ,
}


def share_of_lines_read(paths: tuple[Path, Path], how: str) -> float:
    images, texts = lines.render_lines(96, lines.TEST_SEED)
    variant = Variant(how, paths, how)
    read = recognizer.read_lines(variant.load(), images, models.characters())
    return recognizer.line_accuracy(read, texts)


@pytest.fixture(scope="module")
def read_in_float() -> float:
    return share_of_lines_read(models.model_paths(models.RECOGNITION), "float")


@pytest.mark.parametrize("form", FORMS_THAT_READ)
def test_static_recognition_still_reads(tmp_path: Path, form: str, read_in_float: float) -> None:
    if form == "QDQ for VNNI":
        needs_vnni()
    calibration, _ = lines.render_lines(32, lines.CALIBRATION_SEED)
    directory = models.model_dir(models.RECOGNITION)
    batches = lines.batches(calibration)
    options = FORMS_THAT_READ[form]
    result = quant_post_static(None, directory, tmp_path, data_loader=batches, **options)
    assert result.params_path is not None
    paths = result.model_path, result.params_path
    read = share_of_lines_read(paths, "int8" if "QDQ" in form else "float")
    assert read_in_float > 0.8
    assert read >= read_in_float - 0.06


@pytest.mark.parametrize("form", V5_ERRORS)
@pytest.mark.parametrize("name", V5_RENDERERS)
def test_models_of_paddle_3_run_in_every_way(tmp_path: Path, name: str, form: str) -> None:
    """The .json of recognition computes shapes; Paddle itself fails to run that of detection."""
    check_runs(models.json_path(name), form, tmp_path, "x", inputs(name, 4), V5_ERRORS[form])


@pytest.mark.parametrize("name", V5_RENDERERS)
def test_dynamic_mode_of_paddle_3_models(tmp_path: Path, name: str) -> None:
    result = quant_post_dynamic(
        models.json_path(name), tmp_path, weight_bits=16, save_model_filename="m.pdmodel"
    )
    feed = {"x": inputs(name, 2)}
    plain = predict(*converted(models.json_path(name), tmp_path / "float", None)[:2], feed)
    for how in ("plain", "float"):
        output = predict(result.model_path, result.params_path, feed, how)[0]
        assert relative_error(output, plain[0]) < 2e-3
