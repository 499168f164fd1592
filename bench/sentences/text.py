"""English sentences that come with every Python, and their tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .model import model_dir

BATCH = 8
_SEED = 1
_LONGEST = 256  # tokens, as in sentence_bert_config.json
_PADDED_TO = 16
_BETWEEN_SENTENCES = re.compile(r"(?<=[a-z)\"][.?!]) (?=[A-Z])")
_SENTENCE = re.compile(r"[A-Z][\w\u2019'\"`()*,;: -]{15,}[.?!]")
_FOOTNOTE = re.compile(r" ?\[\d+\]")

Batch = dict[str, NDArray[np.int64]]


def sentences(calibration: int, test: int) -> tuple[list[str], list[str]]:
    """Choose distinct sentences of the Python language reference, which ``pydoc`` contains.

    Args:
        calibration: how many to calibrate on.
        test: how many others to test on.

    Returns:
        The two lists.

    Raises:
        ValueError: there are not that many.
    """
    found = sorted(set(_all_sentences(topics.values())))
    if calibration + test > len(found):
        raise ValueError(f"{calibration} + {test} sentences are asked for; there are {len(found)}.")
    order = np.random.default_rng(_SEED).permutation(len(found))
    chosen = [found[index] for index in order[: calibration + test]]
    return chosen[:calibration], chosen[calibration:]


def batches(texts: Sequence[str], batch: int = BATCH) -> list[Batch]:
    """Return the tokens of ``texts`` in batches, sorted by length so that there is little padding.

    Returns:
        The model's inputs for each batch: ``ids`` and ``mask``, int64[batch, tokens]. The length is
        a multiple of `_PADDED_TO`, because Paddle prepares its kernels for every new shape.
    """
    tokenizer: Any = Tokenizer.from_file(str(model_dir() / "tokenizer.json"))
    tokenizer.enable_truncation(_LONGEST)
    by_length = sorted(texts, key=lambda text: len(tokenizer.encode(text)))
    tokenizer.enable_padding(pad_to_multiple_of=_PADDED_TO)
    made = []
    for start in range(0, len(texts), batch):
        encoded = tokenizer.encode_batch(by_length[start : start + batch])
        made.append(
            {
                "ids": np.array([one.ids for one in encoded], np.int64),
                "mask": np.array([one.attention_mask for one in encoded], np.int64),
            }
        )
    return made


def _all_sentences(pages: Iterable[str]) -> Iterator[str]:
    for page in pages:
        for paragraph in page.split("\n\n"):
            if not paragraph.startswith(" " * 5):  # otherwise it is an example or a grammar
                prose = _FOOTNOTE.sub("", " ".join(paragraph.split()))
                yield from filter(_SENTENCE.fullmatch, _BETWEEN_SENTENCES.split(prose))
