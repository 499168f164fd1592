"""Data as people have it: images, functions, loaders; and what is said of data that is none."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paddle.io import DataLoader, Dataset
from PIL import Image
from programs import ProgramBuilder

from pyquant import CalibrationDataError, Images, SettingError, UnsupportedError, quant_post_static
from pyquant.cli import main
from pyquant.inference_yml import images_as_in

pytestmark = pytest.mark.any_isa


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a directory of two images, one of them below it."""
    directory = tmp_path / "pictures"
    (directory / "more").mkdir(parents=True)
    Image.new("RGB", (16, 8), (255, 0, 51)).save(directory / "wide.png")
    Image.new("L", (8, 16), 255).save(directory / "more" / "tall.png")
    return directory


def test_images_are_resized_scaled_and_normalized(pictures: Path) -> None:
    options: dict[str, Any] = {"size": (8, 6), "mean": [0.5], "std": [0.5, 0.25, 0.5]}
    images = Images(pictures, **options)
    tall, wide = images
    assert len(images) == 2
    assert wide.shape == tall.shape == (3, 8, 6)
    assert wide.dtype == np.float32
    np.testing.assert_allclose(wide[:, 0, 0], [1.0, -2.0, -0.6], rtol=1e-6)
    np.testing.assert_allclose(tall[:, 0, 0], [1.0, 2.0, 1.0], rtol=1e-6)
    last = [*Images(pictures, channels="BGR", layout="HWC", **{**options, "std": [0.5]})][-1]
    np.testing.assert_allclose(last[0, 0], [-0.6, -1.0, 1.0], rtol=1e-6)


def test_an_image_that_cannot_be_read_is_named(pictures: Path) -> None:
    (pictures / "broken.jpg").write_bytes(b"none")
    with pytest.raises(CalibrationDataError, match=r"broken\.jpg: cannot be read as an image"):
        list(Images(pictures, (8, 8), [0], [1]))
    with pytest.raises(SettingError, match="no std may be 0"):
        Images(pictures, (8, 8), [0], [0])


def as_in(pictures: Path, text: str) -> list[np.ndarray[Any, Any]]:
    file = pictures.parent / "inference.yml"
    file.write_text(text)
    return list(images_as_in(pictures, file))


def test_preprocessing_of_paddleocr(pictures: Path) -> None:
    recognition = """
PreProcess:
  transform_ops:
  - DecodeImage: {channel_first: false, img_mode: BGR}
  - MultiLabelEncode: {gtc_encode: NRTRLabelEncode}
  - RecResizeImg: {image_shape: [3, 4, 12]}
  - KeepKeys: {keep_keys: [image]}
"""
    _, wide = as_in(pictures, recognition)
    assert wide.shape == (3, 4, 12)
    np.testing.assert_allclose(wide[:, 0, 0], [-0.6, -1.0, 1.0], rtol=1e-6)
    assert not wide[:, :, 8:].any()
    detection = """
PreProcess:
  transform_ops:
  - DecodeImage: {img_mode: BGR}
  - DetLabelEncode: null
  - DetResizeForTest: {resize_long: 300}
  - NormalizeImage: {mean: [0.5, 0.5, 0.5], order: hwc, scale: 1./255., std: [1, 1, 0.5]}
  - ToCHWImage: null
"""
    tall, wide = as_in(pictures, detection)
    assert wide.shape == (3, 256, 384)
    assert tall.shape == (3, 384, 256)
    np.testing.assert_allclose(wide[:, 0, 0], [-0.3, -0.5, 1.0], rtol=1e-5)
    limited = detection.replace("resize_long: 300", "limit_side_len: 40, limit_type: min")
    assert as_in(pictures, limited)[1].shape == (3, 32, 64)  # 40 x 80, to multiples of 32


def test_preprocessing_of_paddleclas_and_paddledetection(pictures: Path) -> None:
    classes = """
PreProcess:
  transform_ops:
  - ResizeImage: {resize_short: 10}
  - CropImage: {size: 8}
  - NormalizeImage: {mean: [0, 0, 0], std: [1, 1, 1], scale: 0.00392156862745098, order: ''}
  - ToCHWImage: null
"""
    _, wide = as_in(pictures, classes)
    assert wide.shape == (3, 8, 8)
    np.testing.assert_allclose(wide[:, 0, 0], [1.0, 0.0, 0.2], rtol=1e-5)
    boxes = """
Preprocess:
- {interp: 2, keep_ratio: false, target_size: [4, 6], type: Resize}
- {mean: [0, 0, 0], norm_type: none, std: [1, 1, 1], type: NormalizeImage}
- {type: Permute}
"""
    _, wide = as_in(pictures, boxes)
    assert wide.shape == (3, 4, 6)
    np.testing.assert_allclose(wide[:, 0, 0], [1.0, 0.0, 0.2], rtol=1e-5)


def test_an_unknown_step_is_named(pictures: Path) -> None:
    with pytest.raises(UnsupportedError, match="'Mystery' is not known"):
        as_in(pictures, "PreProcess: {transform_ops: [{Mystery: null}]}")
    with pytest.raises(CalibrationDataError, match="says nothing about preprocessing"):
        as_in(pictures, "Global: {}")


def test_the_command_line_takes_images(
    pictures: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(source), "--data", str(pictures)]
    assert main(arguments) == 1
    assert "--image-size, --mean, --std are missing" in capsys.readouterr().err
    assert main([*arguments, "--image-size", "8", "--mean", "0.5", "--std", "0.5"]) == 0
    assert "output y float32[2, 10]" in capsys.readouterr().out
    (source / "inference.yml").write_text(
        "PreProcess: {transform_ops: [{ResizeImage: {size: [8, 8]}}, {ToCHWImage: null}]}"
    )
    assert main(arguments) == 0
    assert "output y float32[2, 10]" in capsys.readouterr().out


def test_the_lines_to_run_can_be_pasted(
    pictures: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(pictures), "--image-size", "8", "--mean", "0.5", "--std", "0.5"]
    out = ["-o", str(tmp_path / "int 8")]
    assert main(["static", str(source), *out, *options, "--channels", "BGR"]) == 0
    (line,) = (one for one in capsys.readouterr().out.split("\n") if "pyquant run" in one)
    command, *arguments = shlex.split(line)
    assert (command, arguments[0]) == ("pyquant", "run")
    assert arguments[2:] == [*options[:2], "--image-size", "8", *options[4:], "--channels", "BGR"]
    assert main(arguments) == 0


def test_the_preprocessing_goes_with_the_model(
    pictures: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "inference.yml").write_text(
        "PreProcess: {transform_ops: [{ResizeImage: {size: [8, 8]}}, {ToCHWImage: null}]}"
    )
    data = ["--data", str(pictures)]
    assert main(["static", str(source), "-o", str(tmp_path / "int8"), *data]) == 0
    assert main(["dynamic", str(source), "-o", str(tmp_path / "small")]) == 0
    for result in ("int8", "small"):
        capsys.readouterr()
        assert main(["run", "--no-isolate", str(tmp_path / result), *data]) == 0
        assert "output y float32[2, 10]" in capsys.readouterr().out


def test_the_command_line_takes_a_function(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cli_batches.py").write_text(
        "import numpy\ndef some():\n    yield numpy.ones((3, 3, 8, 8), 'float32')\n"
    )
    assert main(["run", "--no-isolate", str(source), "--data", "cli_batches:some"]) == 0
    assert "output y float32[3, 10]" in capsys.readouterr().out


def test_files_that_are_no_data(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.csv").write_text("1,2")
    zipfile.ZipFile(tmp_path / "empty.npz", "w").close()
    for name, said in (
        ("data.csv", "data.csv: samples are read from .npz and .npy files"),
        ("empty.npz", "empty.npz: it holds no array"),
        ("none.npz", "none.npz: there is no such file"),
    ):
        assert main(["run", "--no-isolate", str(source), "--data", str(tmp_path / name)]) == 1
        assert said in capsys.readouterr().err
    wanted = ["-o", str(tmp_path / "out"), "--calibration", str(tmp_path / "none.npz")]
    assert main(["static", "--no-isolate", str(source), *wanted]) == 1
    assert "none.npz: there is no such file" in capsys.readouterr().err


def test_inputs_of_different_length_are_named(tmp_path: Path) -> None:
    net = ProgramBuilder()
    a, b = net.feed("a", [-1, 4]), net.feed("b", [-1, 4])
    weight = net.parameter("w", np.ones((4, 4), np.float32))
    both = net.op("elementwise_add", {"X": a, "Y": b}, ("Out", "both"), [-1, 4], {"axis": -1})
    straight = {"trans_x": False, "trans_y": False}
    net.fetch(net.op("matmul_v2", {"X": both, "Y": weight}, ("Out", "y"), [-1, 4], straight))
    net.save(tmp_path / "two")
    batch = {"a": np.ones((2, 4), np.float32), "b": np.ones((3, 4), np.float32)}
    with pytest.raises(CalibrationDataError, match=r"different numbers of samples: .*'b': 3"):
        quant_post_static(None, tmp_path / "two", tmp_path / "out", data_loader=[batch])


class Failing(Dataset):
    """Samples of which one cannot be read."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        if index == 4:
            raise KeyError("label 4 is missing")
        return np.zeros((3, 8, 8), np.float32)


@pytest.mark.parametrize(("workers", "error"), [(0, KeyError), (1, CalibrationDataError)])
def test_an_error_in_a_loader_is_shown(
    source: Path, tmp_path: Path, workers: int, error: type[Exception]
) -> None:
    loader: Sequence[Any] = DataLoader(Failing(), batch_size=2, num_workers=workers)
    with pytest.raises(error, match="label 4 is missing"):
        quant_post_static(None, source, tmp_path / "out", data_loader=loader)
