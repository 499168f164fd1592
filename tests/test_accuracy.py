"""The data, weights and options of the accuracy bench."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bench.accuracy.data import image_folder
from bench.accuracy.networks import RECIPES, build, load_weights, save_weights, weights_path
from bench.methods import parse_option

pytestmark = pytest.mark.any_isa


@pytest.fixture
def folder(tmp_path):
    """Two classes of five images each; class 1 is white."""
    for label, name in enumerate(("n01", "n02")):
        (tmp_path / "val" / name).mkdir(parents=True)
        for number in range(5):
            image = Image.new("RGB", (300, 260 + number), (255 * label,) * 3)
            image.save(tmp_path / "val" / name / f"{number}.JPEG")
    return tmp_path


def test_images_that_calibrate_are_not_tested(folder):
    calibration, test = image_folder(folder, calibration_images=3)
    assert (len(calibration), len(test)) == (3, 7)
    assert np.bincount(np.concatenate([calibration.labels, test.labels])).tolist() == [5, 5]


def test_images_are_cropped_and_normalised(folder):
    images, labels = next(image_folder(folder, 0)[1].batches(10))
    assert images.shape == (10, 3, 224, 224)
    assert images.dtype == np.float32
    white = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(images[labels == 1][:, :, 9, 9], [white] * 5, rtol=1e-5)


def test_a_training_part_calibrates(folder):
    (folder / "val").rename(folder / "train")
    (folder / "val" / "n01").mkdir(parents=True)
    Image.new("L", (64, 48)).save(folder / "val" / "n01" / "gray.JPEG")
    calibration, test = image_folder(folder, calibration_images=3)
    assert (len(calibration), len(test)) == (10, 1)
    assert test.sample(1).shape == (1, 3, 224, 224)


def test_something_is_left_to_test(folder):
    with pytest.raises(ValueError, match="10"):
        image_folder(folder, calibration_images=10)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="JPEG"):
        image_folder(tmp_path, 1)


def test_weights_survive_their_file(tmp_path):
    network = build("mobilenet_v3_small")
    before = {key: value.numpy() for key, value in network.state_dict().items()}
    save_weights(tmp_path / "weights.npz", before)
    other = build("mobilenet_v3_small")
    load_weights(other, tmp_path / "weights.npz")
    for key, value in other.state_dict().items():
        np.testing.assert_allclose(value.numpy(), before[key], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in RECIPES if "mobilenet" in name])
def test_kept_weights_fit_their_network(name):
    load_weights(build(name), weights_path(name))


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("algo=KL", ("algo", "KL")),
        ("hist_percent=0.99", ("hist_percent", 0.99)),
        ("skip_tensor_list=['a=b']", ("skip_tensor_list", ["a=b"])),
    ],
)
def test_options_are_read(text, option):
    assert parse_option(text) == option
