"""Reading and writing parameter files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from programs import Net, random

from pyquant import ModelFileError, load_model
from pyquant.program.parameters import read_combined, write_combined
from pyquant.program.quantizable import ACTIVATION_OP_TYPES, find_weighted_ops
from pyquant.program.weights import quantize_weights

pytestmark = pytest.mark.any_isa

ARRAYS = {
    "b.w": random((4, 3)),
    "a.w": np.arange(6, dtype=np.int8).reshape(2, 3),
    "half": random((5,)).astype(np.float16),
    "raw bfloat16": np.array([0x3F80, 0xFF7F], np.uint16),
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 4), np.float32),
    "flag": np.array([True, False]),
}


def encoded() -> bytes:
    stream = io.BytesIO()
    write_combined(stream, ARRAYS)
    return stream.getvalue()


def test_arrays_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_bytes(encoded())
    arrays = read_combined(path, list(ARRAYS))
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_writing_what_was_read_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_bytes(encoded())
    stream = io.BytesIO()
    write_combined(stream, read_combined(path, list(ARRAYS)))
    assert stream.getvalue() == path.read_bytes()


def test_every_truncation_is_refused_by_name(tmp_path: Path) -> None:
    data = encoded()
    path = tmp_path / "p"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match=r"p: .*'"):
            read_combined(path, list(ARRAYS))


def test_bytes_left_over_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_bytes(encoded() + b"\0" * 30)
    with pytest.raises(ModelFileError, match="/p: 30 bytes"):
        read_combined(path, list(ARRAYS))


@pytest.mark.parametrize("seed", range(300))
def test_damaged_bytes_give_a_typed_error_or_arrays(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    data = bytearray(encoded())
    for position in generator.integers(0, len(data), 3):
        data[position] = generator.integers(0, 256)
    path = tmp_path / "p"
    path.write_bytes(bytes(data))
    try:
        arrays = read_combined(path, list(ARRAYS))
    except ModelFileError:
        return
    assert set(arrays) == set(ARRAYS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"/nowhere: .*params_filename"):
        read_combined(tmp_path / "nowhere", ["w"])


def resident_bytes(path: Path) -> int:
    """How much of a mapped file is in this process's memory."""
    size, is_of_file = 0, False
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        if "-" in line.split(maxsplit=1)[0]:
            is_of_file = line.endswith(str(path))
        elif is_of_file and line.startswith("Rss:"):
            size += 1024 * int(line.split()[1])
    return size


def test_pages_of_a_weight_are_given_back(tmp_path: Path) -> None:
    """Otherwise all of a large model would be in memory once its weights are integers."""
    source = Net([1, 512]).matmul(4096, trans_x=False, trans_y=False).end().save(tmp_path)
    model = load_model(source)
    assert model.params_path is not None
    ops, _ = find_weighted_ops(model, ACTIVATION_OP_TYPES, ())
    (weight,) = quantize_weights(model, ops, 8, per_channel=True).values()
    made = weight.made()
    assert made.integers.any()
    model.parameters[weight.name].sum()
    assert resident_bytes(model.params_path) > 2**22
    kept = weight.keeping(made, keeps_integers=True)
    assert resident_bytes(model.params_path) < 2**20
    np.testing.assert_array_equal(np.concatenate(list(kept.values.chunks())), made.integers)
