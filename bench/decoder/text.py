"""Docstrings of the standard library, which comes with every Python, and their tokens."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from .model import weights_path

TOKENS = 128
_SEED = 1
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
    coder = tokenizer()
    found = sorted(set(_docstrings()))
    chosen = []
    for index in np.random.default_rng(_SEED).permutation(len(found)):
        ids = coder.encode(found[index]).ids[:TOKENS]
        if len(ids) == TOKENS:
            chosen.append(ids)
        if len(chosen) == calibration + test:
            break
    else:
        raise ValueError(f"{calibration} + {test} texts are asked for; there are {len(chosen)}.")
    tokens = np.array(chosen, np.int64)
    return tokens[test:], tokens[:test]


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
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                docstring = ast.get_docstring(node)
                if docstring:
                    yield docstring
