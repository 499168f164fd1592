"""Static mode on models whose weights are float16 or bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from decoders import decoder, encoder, tokens
from half_precision import halved
from static_runs import model_bytes

from pyquant import calibrate, load_model, quant_post_static, verify
from pyquant.calibration import sequential
from pyquant.program import segments
from pyquant.program.half_precision import compute_in_float32

pytestmark = pytest.mark.any_isa

NETS = {
    "convolutions": (
        lambda path: programs.conv_net().save(path),
        [programs.random((2, 3, 8, 8), seed) for seed in range(2)],
    ),
    "encoder": (encoder, tokens(2)),
    "decoder": (decoder, tokens(2)),
}


@pytest.mark.parametrize("data_type", ["float16", "bfloat16"])
@pytest.mark.parametrize("net", NETS)
def test_the_result_is_that_of_the_same_values_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, net: str, data_type: str
) -> None:
    make, data = NETS[net]
    half, wide = halved(make(tmp_path / "in"), tmp_path, data_type)
    expected = quantized(wide, tmp_path / "expected", data)
    assert quantized(half, tmp_path / "whole", data) == expected
    monkeypatch.setattr(segments, "LEAST_BYTES", 1 << 13)
    monkeypatch.setattr(sequential, "whole_bytes", lambda model: 1 << 62)
    assert quantized(half, tmp_path / "parts", data, memory_limit="100GB") == expected


def quantized(source: Path, output: Path, data: Any, **options: Any) -> bytes:
    result = quant_post_static(None, source, output, data_loader=data, verify=False, **options)
    assert len(result.quantized) >= 4
    assert any("float16" in note for note in result.notes) == (source.name == "half")
    return model_bytes(output)


@pytest.mark.parametrize("data_type", ["float16", "bfloat16"])
def test_weights_that_a_program_casts(tmp_path: Path, data_type: str) -> None:
    half, wide = halved(encoder(tmp_path / "in"), tmp_path, data_type, are_outputs=False)
    expected = quantized(wide, tmp_path / "expected", tokens(2))
    assert quantized(half, tmp_path / "out", tokens(2)) == expected


def test_it_is_checked_and_verified_in_float32(tmp_path: Path) -> None:
    half, _ = halved(encoder(tmp_path / "in"), tmp_path, "float16")
    result = quant_post_static(None, half, tmp_path / "out", data_loader=tokens(2))
    assert result.verification is not None
    again = verify(half, tmp_path / "out", data_loader=tokens(2))
    assert again.error_percent == pytest.approx(result.verification.error_percent, rel=1e-6)


def test_a_calibration_is_of_the_half_precision_model(tmp_path: Path) -> None:
    half, wide = halved(decoder(tmp_path / "in"), tmp_path, "float16")
    one, other = (calibrate(source, data_loader=tokens(1)) for source in (half, wide))
    assert one.statistics.keys() == other.statistics.keys()
    assert one.model_fingerprint != other.model_fingerprint
    one.save(tmp_path / "c.npz")
    result = quant_post_static(None, half, tmp_path / "out", calibration=tmp_path / "c.npz")
    assert len(result.quantized) >= 4


@pytest.mark.parametrize("are_outputs", [True, False])
def test_weights_are_converted_when_they_are_needed(tmp_path: Path, are_outputs: bool) -> None:
    half, wide = halved(decoder(tmp_path / "in"), tmp_path, "bfloat16", are_outputs)
    model, expected = load_model(half), load_model(wide)
    assert compute_in_float32(model)
    assert not compute_in_float32(expected)
    assert {name for name, array in expected.parameters.items() if array.ndim == 2} == set(
        model.pending
    )
    for name, array in expected.parameters.items():
        np.testing.assert_array_equal(model.made(name), array)
        assert model.made(name).dtype == np.float32
