"""Decoders whose key-value caches are inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoders import HIDDEN, WORDS, cached_decoder
from programs import random
from static_runs import model_bytes

import pyquant
from pyquant.calibration import sequential
from pyquant.program import segments
from pyquant.program.model import load_model
from pyquant.program.predictor import Optimization, make_predictor, run_outputs

Feed = dict[str, Any]


def feeds(batches: int, texts: int = 2) -> list[Feed]:
    """Return steps of one token, and of several, behind caches of several lengths."""
    generator, found = np.random.default_rng(0), []
    for batch in range(batches):
        feed: Feed = {"tokens": generator.integers(1, WORDS, (texts, 1 + 4 * (batch % 2)))}
        for layer in range(2):
            for part in "kv":
                cache = random((texts, 5 + batch, HIDDEN), seed=10 * batch + layer)
                feed[f"layer{layer}.{part}.past"] = cache
        found.append(feed)
    return found


def test_caches_stay_float_and_exact(tmp_path: Path) -> None:
    """All products are int8, those in front of the caches among them."""
    source = cached_decoder(tmp_path / "in")
    result = pyquant.quant_post_static(None, source, tmp_path / "out", data_loader=feeds(6))
    assert {tensor.name for tensor in result.quantized} >= {"layer0.k.w", "layer1.v.w", "scores.w"}
    assert result.verification is not None
    assert result.verification.error_percent < 10
    reference = make_predictor(load_model(source), Optimization.NONE, 1)
    predictor = pyquant.make_predictor(tmp_path / "out")
    for feed in feeds(3, texts=1):
        expected, found = run_outputs(reference, feed), run_outputs(predictor, feed)
        assert [array.dtype for array in found] == [np.float32] * 5
        near = np.sqrt(np.mean((found[0] - expected[0]) ** 2) / np.var(expected[0]))
        assert near < 0.1
        for past, known, exact in zip(list(feed.values())[1:], found[1:], expected[1:]):
            np.testing.assert_array_equal(known[:, : past.shape[1]], past)
            np.testing.assert_allclose(known, exact, rtol=0, atol=0.15)


def test_segments_pass_caches_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "LEAST_BYTES", 1 << 13)
    source, given = cached_decoder(tmp_path / "in"), {"data_loader": feeds(3), "verify": False}
    assert len(segments.cut(load_model(source))) > 2
    pyquant.quant_post_static(None, source, tmp_path / "whole", **given)
    monkeypatch.setattr(sequential, "whole_bytes", lambda model: 1 << 62)
    pyquant.quant_post_static(None, source, tmp_path / "parts", memory_limit="100GB", **given)
    assert model_bytes(tmp_path / "parts") == model_bytes(tmp_path / "whole")


def test_a_cache_of_no_tokens_is_run(tmp_path: Path) -> None:
    source = cached_decoder(tmp_path / "in")
    pyquant.quant_post_static(None, source, tmp_path / "out", data_loader=feeds(3), verify=False)
    feed = feeds(1)[0]
    empty = {name: array if name == "tokens" else array[:, :0] for name, array in feed.items()}
    found = run_outputs(pyquant.make_predictor(tmp_path / "out"), empty)
    assert found[0].shape == (2, 1, WORDS)
    assert np.isfinite(found[0]).all()
