"""Quantize PP-OCRv4 recognition in both modes and show what it costs and gains.

`python -m bench.ocr` renders lines of text, calibrates on some, and reads others.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pyquant

from ..methods import QDQ_OPTIONS, Variant, float_variant, peer_methods, quantized
from ..paddle_ptq import ALGORITHMS
from ..report import Report, add_report
from ..source import Source, forward
from ..task import measured
from .recognizer import recognition_task

_ROUNDS = 9


def main() -> None:
    """Quantize in both modes, and print the comparison."""
    options = _options()
    task = recognition_task(options.calibration_lines, options.test_lines)
    source = task.source
    forward_seconds = _forward_seconds(source)
    dynamic = pyquant.quant_post_dynamic(source.paths[0].parent, options.output / "dynamic")
    static = _static(source, options, "static")
    qdq = _static(source, options, "qdq", deploy_backend="QDQ")
    qdq_vnni = _static(source, options, "qdq-vnni", **QDQ_OPTIONS)
    print(f"\n== dynamic (weights alone)\n{dynamic}")
    print(f"\n== static, algo {options.algo}, {len(source.images)} lines\n{static}")
    _print_thresholds(static)
    total = sum(static.seconds.values())
    print(
        f"\n== the whole static quantization took {total:.2f} s; the forward over the same "
        f"lines takes {forward_seconds:.2f} s: ratio {total / forward_seconds:.2f}"
    )
    variants = [
        float_variant(source),
        _variant("dynamic int8", dynamic, "float"),
        _variant("static int8", static, "float"),
        _variant("static QDQ", qdq, "int8"),
        _variant("static QDQ, for VNNI", qdq_vnni, "int8"),
    ]
    for name, method in peer_methods(["paddle"], options.paddle).items():
        variants.append(quantized(name, method, source, options.output))
    print(f"\n== {options.test_lines} lines that calibration did not see, one thread, oneDNN")
    Report(options.report).table(*measured(task, variants, _ROUNDS))
    _print_use(static)


def _static(
    source: Source, options: argparse.Namespace, name: str, **more: Any
) -> pyquant.QuantizationResult:
    return pyquant.quant_post_static(
        None,
        source.paths[0].parent,
        options.output / name,
        data_loader=source.batches(),
        **{"algo": options.algo, **more},
    )


def _forward_seconds(source: Source) -> float:
    start = time.perf_counter()
    forward(source)
    return time.perf_counter() - start


def _variant(name: str, result: pyquant.QuantizationResult, run: str) -> Variant:
    return Variant(name, _result_paths(result), run, sum(result.seconds.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.ocr", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("quantized-ocr"))
    parser.add_argument("--calibration-lines", type=int, default=32)
    parser.add_argument("--test-lines", type=int, default=300)
    parser.add_argument("--algo", default="mse")
    parser.add_argument(
        "--paddle", nargs="*", default=[], choices=ALGORITHMS, help="compare Paddle's own PTQ"
    )
    add_report(parser)
    return parser.parse_args()


def _result_paths(result: pyquant.QuantizationResult) -> tuple[Path, Path]:
    assert result.params_path is not None
    return result.model_path, result.params_path


def _print_thresholds(result: pyquant.QuantizationResult) -> None:
    print("\n== activation thresholds")
    for tensor in result.quantized:
        if tensor.kind == "activation":
            print(f"{tensor.threshold:10.4f}  {tensor.name}  ({', '.join(tensor.op_types)})")


def _print_use(result: pyquant.QuantizationResult) -> None:
    model_path, params_path = _result_paths(result)
    print(
        "\n== to run the static model as int8\n"
        f'config = paddle.inference.Config("{model_path}", "{params_path}")\n'
        "config.enable_mkldnn()\n"
        "config.enable_memory_optim()"
    )


if __name__ == "__main__":
    main()
