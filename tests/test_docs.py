"""What the docs show works: examples of docstrings, the quickstart, and the keys of JSON."""

from __future__ import annotations

import dataclasses
import doctest
import re
import shutil
import subprocess
import sys
from pathlib import Path

import programs
import pytest

import pyquant
from pyquant import images

pytestmark = pytest.mark.any_isa

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("module", [images])
def test_examples_of_docstrings(module: object) -> None:
    results = doctest.testmod(module)  # type: ignore[arg-type]
    assert results.attempted
    assert not results.failed


def test_examples_of_the_public_calls(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a directory that holds the float model "float"; each goes on from the one before."""
    shutil.copytree(source, tmp_path / "float")
    monkeypatch.chdir(tmp_path)
    known = {"pyquant": pyquant, "batches": [programs.random((6, 3, 8, 8), 9)]}
    calls = ("quant_post_static", "quant_post_dynamic", "compare", "verify", "make_predictor")
    for name in (*calls, "calibrate"):
        (example,) = doctest.DocTestFinder().find(getattr(pyquant, name), name, globs=known)
        results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
        assert results.attempted
        assert not results.failed


def block(text: str, heading: str) -> str:
    """Return the first Python block below a heading."""
    found = re.search(rf"^## {heading}\n.*?^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def test_the_quickstart_works_when_pasted(tmp_path: Path) -> None:
    code = block((ROOT / "README.md").read_text(), "Quickstart")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert (tmp_path / "int8" / "model.pdmodel").is_file()


@pytest.mark.parametrize("name", ["QuantizationResult", "Verification", "Comparison"])
def test_the_keys_of_json_are_documented(name: str) -> None:
    (row,) = re.findall(
        rf"^.*\[`{name}`\].*$", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE
    )
    for field in dataclasses.fields(getattr(pyquant, name)):
        assert f"`{field.name}`" in row
