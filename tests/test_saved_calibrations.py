"""Saved calibrations that hold what no calibration has are refused by name."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibrations import BATCHES

from pyquant import Calibration, CalibrationDataError, CalibrationFileError, quant_post_static
from pyquant.calibrating import calibrate
from pyquant.calibration.kept import batch_hash

pytestmark = pytest.mark.any_isa

Arrays = dict[str, Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a calibration of the network in the directory ``in`` beside it."""
    from programs import conv_net

    directory = tmp_path_factory.mktemp("saved")
    source = conv_net().save(directory / "in")
    calibrate(source, data_loader=BATCHES[:2]).save(directory / "good.npz")
    return directory / "good.npz"


def set_header(**values: Any) -> Callable[[Arrays], Any]:
    def change(arrays: Arrays) -> None:
        header = {**json.loads(str(arrays["header"])), **values}
        arrays["header"] = np.array(json.dumps(header))

    return change


def edit_channels(place: int, value: Any) -> Callable[[Arrays], Any]:
    def change(arrays: Arrays) -> None:
        channels = json.loads(str(arrays["header"]))["channels"]
        channels["x"][place] = value
        set_header(channels=channels)(arrays)

    return change


def set_value(name: str, value: float) -> Callable[[Arrays], Any]:
    return lambda arrays: arrays[name].reshape(-1).__setitem__(0, value)


CASES: dict[str, tuple[Callable[[Arrays], Any], str]] = {
    "a large exponent": (set_header(width_exponents=[5000] * 3), "its width_exponents"),
    "another exponent": (set_header(width_exponents=[90] * 3), "exponent of 'x' is 90"),
    "text for a number": (set_header(batches="two"), "its batches is 'two'"),
    "true for a number": (set_header(batches=True), "its batches is True"),
    "negative batches": (set_header(batches=-1), "its batches is -1"),
    "other progress": (set_header(progress=[1, 0]), r"progress is \[1, 0\] of 2"),
    "a negative sum": (set_header(sample_abs_max_sums=["-0x1"] * 3), "its sample_abs_max_sums"),
    "a large sum": (set_header(sample_abs_max_sums=["0x" + "f" * 60] * 3), "maxima of 'x'"),
    "fewer of a list": (set_header(width_exponents=[]), "not one for each"),
    "no header": (lambda arrays: arrays.pop("header"), "no table"),
    "a strange axis": (edit_channels(0, 99), "its channels is"),
    "positions of another number": (edit_channels(1, 5), "'x' has 5 positions"),
    "NaN": (set_value("abs_max", np.nan), "magnitude of 'x' is nan"),
    "infinity": (set_value("abs_max", np.inf), "magnitude of 'x' is inf"),
    "another range": (set_value("minimum", -1e9), r"'x' lie in \[-1000000000.0"),
    "no samples": (set_value("samples", 0), "'x' has 0 samples"),
    "many zeros": (set_value("zeros", 1e9), "'x' has 1000000000 zeros"),
    "other counts": (set_value("counts", 7), "histogram of 'x'"),
    "a large channel": (set_value("channel_abs_max", np.inf), "channels of 'x' are larger"),
    "NaN in a sample": (set_value("rows", np.nan), "sample of 'x'"),
    "a large total": (set_value("whole", 2**62), "sums of the channels of 'x'"),
    "a large fraction": (set_value("fraction", 2**62), "sums of the channels of 'x'"),
    "another type": (
        lambda arrays: arrays.update(abs_max=arrays["abs_max"].astype(np.float32)),
        r"'abs_max' is float32\[3\], where float64",
    ),
    "one array more": (lambda arrays: arrays.update(more=np.zeros(1)), "'more'"),
    "one array less": (lambda arrays: arrays.pop("zeros"), "'zeros' is missing"),
    "another batch": (
        lambda arrays: arrays[next(name for name in arrays if "kept/" in name)].fill(1),
        "has been changed",
    ),
}


def changed(saved: Path, path: Path, change: Callable[[Arrays], Any]) -> Path:
    with np.load(saved) as stored:
        arrays = dict(stored)
    change(arrays)
    np.savez(path, **arrays)
    return path


def test_what_was_not_changed_is_read(tmp_path: Path, saved: Path) -> None:
    path = changed(saved, tmp_path / "c.npz", lambda arrays: None)
    assert Calibration.load(path).batches == 2


@pytest.mark.parametrize("case", CASES)
def test_what_no_calibration_has_is_named(tmp_path: Path, saved: Path, case: str) -> None:
    change, said = CASES[case]
    path = changed(saved, tmp_path / "c.npz", change)
    with pytest.raises(CalibrationFileError, match=rf"/c\.npz: .*{said}"):
        Calibration.load(path)


def replace_batch(arrays: Arrays) -> None:
    for name in [name for name in arrays if name.startswith("kept/")]:
        del arrays[name]
    feed = {"y": np.ones((2, 3), np.float32)}
    arrays[f"kept/{batch_hash(feed)}/y"] = feed["y"]


@pytest.mark.parametrize(
    ("change", "said"),
    [(edit_channels(0, 2), "'x' lie along axis 2.* 1"), (replace_batch, "'y' is not an input")],
)
def test_what_does_not_fit_the_model_is_refused(
    tmp_path: Path, saved: Path, change: Callable[[Arrays], Any], said: str
) -> None:
    path = changed(saved, tmp_path / "c.npz", change)
    for use in ({"calibration": path}, {"checkpoint": path, "data_loader": BATCHES[:3]}):
        with pytest.raises(CalibrationFileError, match=rf"/c\.npz: .*{said}"):
            quant_post_static(None, saved.parent / "in", tmp_path / "out", **use)
    assert not (tmp_path / "out").exists()


def test_an_archive_that_expands_is_refused(tmp_path: Path, source: Path) -> None:
    """It holds more than it can be worth: reading it would take all memory."""
    path = tmp_path / "c.npz"
    np.savez_compressed(path, x=np.zeros((1 << 20, 3, 8, 8), np.uint8))
    with pytest.raises(CalibrationFileError, match=r"/c\.npz: .*expand to 20\d{7}\b"):
        Calibration.load(path)
    with pytest.raises(CalibrationDataError, match=r"/c\.npz: .*expand to 20\d{7}\b"):
        quant_post_static(None, source, tmp_path / "out", data_loader=path)


def test_a_header_that_declares_more_is_refused(tmp_path: Path) -> None:
    path, array = tmp_path / "c.npz", tmp_path / "array.npy"
    np.save(array, np.zeros(8))
    with zipfile.ZipFile(path, "w") as archive:
        content = array.read_bytes().replace(b"(8,), }    ", b"(8000000,),}")
        archive.writestr("counts.npy", content)
    with pytest.raises(CalibrationFileError, match=r"/c\.npz: .*declares float64\[8000000\]"):
        Calibration.load(path)
