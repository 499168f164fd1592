"""What the docs show works: examples of docstrings, all that can be pasted, names and JSON keys."""

from __future__ import annotations

import dataclasses
import doctest
import importlib.util
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import programs
import pytest
from PIL import Image

import pyquant
from pyquant import images, kernels
from pyquant.cli import main

pytestmark = pytest.mark.any_isa

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SAMPLES = programs.random((16, 3, 32, 32), 9)
BATCHES = [SAMPLES[:8], SAMPLES[8:]]  # as the command line makes them

CLASSES = ["Calibration", "Comparison", "QuantizationResult"]
FUNCTIONS = [
    name
    for name in pyquant.__all__
    if inspect.isfunction(getattr(pyquant, name)) and name == getattr(pyquant, name).__name__
]


@pytest.mark.parametrize("module", [images, kernels])
def test_examples_of_modules(module: object) -> None:
    results = doctest.testmod(module)  # type: ignore[arg-type]
    assert results.attempted
    assert not results.failed


def test_examples_of_the_public_calls(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a directory that holds the float model "float"; each goes on from the one before."""
    shutil.copytree(source, tmp_path / "float")
    monkeypatch.chdir(tmp_path)
    known = {"pyquant": pyquant, "batches": np.split(programs.random((6, 3, 8, 8), 9), 2)}
    for name in sorted([*FUNCTIONS, *CLASSES], key="quant_post_static".__ne__):
        finder = doctest.DocTestFinder(recurse=False)
        (example,) = finder.find(getattr(pyquant, name), name, globs=known)
        results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
        assert results.attempted, f"{name} has no example"
        assert not results.failed


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the blocks of a page that can be run, as language and text."""
    return re.findall(r"^```(python|sh)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def makes_a_model(code: str) -> bool:
    return "paddle.jit.save" in code


def test_the_quickstarts_work_when_pasted(tmp_path: Path) -> None:
    codes = {code for page in PAGES for _, code in blocks(page) if makes_a_model(code)}
    (code,) = codes  # that of README.md and that of the site are the same
    environment = {key: value for key, value in os.environ.items() if "pir" not in key}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "int8" / "model.pdmodel").is_file()


@pytest.fixture(scope="session")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of files with the names that the docs use."""
    directory = tmp_path_factory.mktemp("docs")
    net = programs.Net([-1, 3, -1, -1]).conv(64).act("relu").conv(10)
    pooling = {**programs.POOLING, "pooling_type": "avg", "global_pooling": True}
    net.then("pool2d", {"X": net.last}, "Out", pooling).end().save(directory / "float")
    pyquant.quant_post_static(None, directory / "float", directory / "int8", data_loader=BATCHES)
    for name in ("FLOAT", "MODEL", "MODEL_DIR", "decoder"):
        shutil.copytree(directory / "float", directory / name)
    shutil.copytree(directory / "int8", directory / "INT8")
    for name, suffix in product(("PADDLE3", "model"), (".json", ".pdiparams")):
        shutil.copy(DATA / f"small{suffix}", directory / f"{name}{suffix}")
    for name in ("samples", "tokens"):
        np.savez(directory / f"{name}.npz", x=SAMPLES)
    for name in ("DATA", "SAMPLES", "samples"):
        (directory / name).mkdir()
        for number, batch in enumerate(BATCHES):
            np.savez(directory / name / f"{number}.npz", x=batch)
    (directory / "pictures").mkdir()
    Image.new("RGB", (64, 48), "teal").save(directory / "pictures" / "a.png")
    return directory


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda one: one.stem)
def test_blocks_of_the_docs_run(
    page: Path, named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python and `pyquant` lines, in their order; not the rest, nor what needs a Ray cluster."""
    shutil.copytree(named, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PADDLE_TRAINER_ID", "0")
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "1")
    import paddle

    known = {"pyquant": pyquant, "paddle": paddle, "batches": BATCHES}
    known |= {"images": SAMPLES, "labels": np.arange(16) % 10}
    for language, text in blocks(page):
        if language == "sh":
            for words in commands(text):
                assert main(words) == 0, words
        elif not makes_a_model(text) and "import ray" not in text:
            exec(compile(text, str(page), "exec"), known)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of pyquant's commands in a block, with their file patterns expanded."""
    for line in text.splitlines():
        program, *words = shlex.split(line, comments=True) or [""]
        if program == "pyquant" and "--ray" not in words:
            paths = {word: sorted(map(str, Path().glob(word))) for word in words if "*" in word}
            words = [one for word in words for one in paths.get(word, [word])]
            # tests/test_isolation.py has processes of their own, which take seconds to start.
            here = ["--no-isolate"] if words[0] in ("static", "calibrate") else []
            yield [*words, *here]


@pytest.mark.parametrize("page", PAGES, ids=lambda one: one.stem)
def test_names_in_the_text_of_the_docs_exist(page: Path) -> None:
    """Of pyquant, of the benches, and of their options."""
    sources = [*ROOT.glob("pyquant/cli/*.py"), *ROOT.glob("bench/**/*.py")]
    options = re.findall(r'"(--[a-z][a-z-]+)"', "".join(path.read_text() for path in sources))
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`([^`]+)`", prose):
        for name in re.findall(r"^pyquant\.(\w+)", span):
            assert hasattr(pyquant, name) or name == "json"
        for module in re.findall(r"^python -m (bench[.\w]*)", span):
            assert importlib.util.find_spec(module) is not None
        if span.startswith(("--", "dynamic ", "pyquant ", "python -m bench", "static ")):
            assert {*re.findall(r"--[a-z][a-z-]+", span)} <= {"--help", *options}


@pytest.mark.parametrize("name", ["QuantizationResult", "Verification", "Comparison"])
def test_the_keys_of_json_are_documented(name: str) -> None:
    (row,) = re.findall(
        rf"^.*\[`{name}`\].*$", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE
    )
    for field in dataclasses.fields(getattr(pyquant, name)):
        assert f"`{field.name}`" in row
