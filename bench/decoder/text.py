"""Texts of several kinds, and their tokens."""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from gguf import GGUFReader
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from .model import weights_path

TOKENS = 128
_SEED = 1
_PASSAGE = 600  # characters, which are more than `TOKENS` tokens in each language
_CONTROL = 3  # the type of tokens that no text holds

Texts = NDArray[np.int64]


def texts(calibration: int, test: int) -> tuple[Texts, Texts]:
    """Choose distinct docstrings of the standard library, and cut them to `TOKENS` tokens.

    Args:
        calibration: how many to calibrate on.
        test: how many others to test on.

    Returns:
        Their tokens, each int64[texts, TOKENS].

    Raises:
        ValueError: there are not that many docstrings of this length.
    """
    tokens = chosen_texts("docstrings", calibration + test)
    return tokens[test:], tokens[:test]


def chosen_texts(corpus: str, count: int) -> Texts:
    """Choose texts of one of `CORPORA`; otherwise as `texts`."""
    coder = tokenizer()
    found = sorted(set(CORPORA[corpus]()))
    chosen = []
    for index in np.random.default_rng(_SEED).permutation(len(found)):
        ids = coder.encode(found[index]).ids[:TOKENS]
        if len(ids) == TOKENS:
            chosen.append(ids)
        if len(chosen) == count:
            break
    else:
        raise ValueError(f"{corpus}: {count} texts are asked for; there are {len(chosen)}.")
    return np.array(chosen, np.int64)


def tokenizer() -> Any:
    """Return the tokenizer of the model, whose words are in the file of its weights."""
    fields = GGUFReader(weights_path()).fields
    words, types, merges = (
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges")
    )
    pairs = [tuple(merge.split(" ")) for merge in merges]
    coder = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, pairs))
    coder.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    coder.decoder = decoders.ByteLevel()
    control = [word for word, kind in zip(words, types) if kind == _CONTROL]
    coder.add_special_tokens([AddedToken(word, special=True) for word in control])
    return coder


def _docstrings() -> Iterator[str]:
    """Yield the docstrings of the modules that lie in no package, and of what they define."""
    for source in _modules():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                docstring = ast.get_docstring(node)
                if docstring:
                    yield docstring


def _functions() -> Iterator[str]:
    """Yield the functions of these modules that have no docstring, as they are written."""
    for source in _modules():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and not ast.get_docstring(node):
                yield ast.get_source_segment(source, node, padded=True) or ""


def _modules() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        yield path.read_text("utf-8")


def _conversations(language: str) -> Iterator[str]:
    """Yield passages of the conversations of chatterbot-corpus, each line what one of two says."""
    spec = importlib.util.find_spec("chatterbot_corpus")
    if spec is None or spec.origin is None:
        raise SystemExit("Conversations are missing: pip install --no-deps chatterbot-corpus")
    for path in sorted((Path(spec.origin).parent / "data" / language).glob("*.yml")):
        passage = ""
        for conversation in yaml.safe_load(path.read_text("utf-8"))["conversations"]:
            passage += "".join(f"{line}\n" for line in conversation)
            if len(passage) >= _PASSAGE:
                yield passage
                passage = ""


CORPORA: Mapping[str, Callable[[], Iterator[str]]] = {
    "docstrings": _docstrings,
    "code": _functions,
    "dialogue": partial(_conversations, "english"),
    "Italian dialogue": partial(_conversations, "italian"),
}
"""Docstrings and code of the standard library, which comes with every Python, and conversations."""
