"""PaddleSlim's users change one import: its calls work, or say what to do."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from paddleslim_signatures import ALIASES, OTHERS, POSITIONAL

import pyquant


@pytest.mark.parametrize("name", POSITIONAL)
def test_positional_arguments_are_those_of_paddleslim(name: str) -> None:
    ours = list(inspect.signature(getattr(pyquant, name)).parameters)
    assert ours[: len(POSITIONAL[name])] == [*POSITIONAL[name]]


def test_old_names() -> None:
    for old, new in ALIASES.items():
        assert getattr(pyquant, old) is getattr(pyquant, new)


def test_a_positional_call(tmp_path: Path, source: Path) -> None:
    filenames = ("m.pdmodel", "m.pdiparams", "model.pdmodel", "model.pdiparams")
    result = pyquant.quant_post_only_weight(
        str(source), str(tmp_path / "out"), *filenames, ["conv2d", "mul"], 8, True
    )
    assert result.test_model_path == tmp_path / "out" / "test_model" / "model.pdmodel"
    assert {one.op_types for one in result.quantized} == {("conv2d",)}


@pytest.mark.parametrize("name", OTHERS)
def test_what_pyquant_lacks_says_what_to_use(name: str) -> None:
    with pytest.raises(pyquant.UnsupportedError, match=rf"^{name} .*call quant_post_(static|dyn)"):
        getattr(pyquant, name)(None, "model", key=1)


@pytest.mark.parametrize(
    ("argument", "said"),
    [({"onnx_format": False}, "Leave it out"), ({"weight_bits": 16}, "quant_post_dynamic")],
)
def test_values_without_a_counterpart_say_what_to_do(
    tmp_path: Path, source: Path, argument: dict[str, int], said: str
) -> None:
    with pytest.raises(pyquant.UnsupportedError, match=said):
        pyquant.quant_post_static(None, source, tmp_path, data_loader=[], **argument)
