"""Dynamic mode on a large model against a copy of its parameter file: python -m bench.big_weights.

The model is a decoder of Llama's shapes with random weights, written layer by layer. Copying and
quantizing take turns on a file in the page cache. Quantizing runs in a process of its own, whose
peak memory is measured.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import pyquant
from pyquant.program import proto
from pyquant.program.model import Model
from pyquant.program.op import make_op
from pyquant.program.parameters import DerivedTensor

from .report import Report, add_report

_DTYPES: dict[str, np.dtype[Any]] = {
    "fp32": np.dtype("<f4"),
    "fp16": np.dtype("<f2"),
    "bf16": np.dtype("<u2"),
}
_ROWS_AT_ONCE = 256


def main() -> None:
    """Print how fast copying and quantizing are, and how much memory quantizing takes."""
    options = _options()
    if options.quantize is not None:
        _quantize_here(options.quantize, options)
        return
    source = options.directory / f"{options.dtype}-{options.gigabytes}"
    if not (source / "model.pdmodel").exists():
        write_decoder(source, int(options.gigabytes * 1e9), options.dtype)
    parameters = source / "model.pdiparams"
    gigabytes = parameters.stat().st_size / 1e9
    copies, times, peaks, loads = [], [], [], []
    for _ in range(options.rounds + 1):
        _let_the_disk_rest()
        start = time.perf_counter()
        shutil.copyfile(parameters, options.directory / "copy")
        copies.append(time.perf_counter() - start)
        (options.directory / "copy").unlink()
        _let_the_disk_rest()
        seconds, peak, loaded = _quantize_in_process(source, options)
        times.append(seconds)
        peaks.append(peak)
        loads.append(loaded)
    copy, quantize = median(copies[1:]), median(times[1:])
    row = [f"{gigabytes:.2f}", f"{options.dtype} to int{options.bits}"]
    row += [f"{gigabytes / copy:.2f}", f"{gigabytes / quantize:.2f}", f"{copy / quantize:.2f}"]
    Report(options.report).table(_HEADER, [[*row, f"{max(peaks):.0f}", f"{max(loads):.0f}"]])


_HEADER = (
    "GB of parameters", "weights", "copy GB/s", "quantize GB/s", "of the copy's speed", "peak MB",
    "MB before it begins",
)  # fmt: skip


def write_decoder(
    directory: Path,
    size: int,
    dtype: str,
    hidden: int = 4096,
    inner: int = 11008,
    words: int = 32000,
) -> None:
    """Write a decoder of about ``size`` bytes of parameters, as ``model.pdmodel``.

    Each layer has the projections q, k, v and o, and a gated feed-forward network, each behind a
    normalization; the tokens are an input.
    """
    itemsize = _DTYPES[dtype].itemsize
    layer = (4 * hidden * hidden + 3 * hidden * inner) * itemsize
    layers = max(1, round((size - 2 * words * hidden * itemsize) / layer))
    decoder = _Decoder(hidden, dtype)
    x = decoder.embed(words)
    for index in range(layers):
        x = decoder.layer(x, f"layer{index}", inner)
    decoder.fetch(decoder.multiply(decoder.normalize(x, "last"), "head", hidden, words))
    model = Model(decoder.program, decoder.parameters, Path("new"), None, (), None, decoder.derived)
    pyquant.save_model(model, directory, "model.pdmodel", "model.pdiparams")


class _Decoder:
    def __init__(self, hidden: int, dtype: str) -> None:
        self.program = proto.ProgramDesc()
        self.parameters: dict[str, Any] = {}
        self.derived: dict[str, DerivedTensor] = {}
        self._block = self.program.blocks.add(idx=0, parent_idx=-1)
        self._hidden = hidden
        self._dtype = _DTYPES[dtype]
        self._type = proto.paddle_dtype(self._dtype)
        for name, kind in (("feed", proto.FEED_LIST), ("fetch", proto.FETCH_LIST)):
            proto.add_list_var(self._block, name, kind)

    def embed(self, words: int) -> str:
        proto.add_var(self._block, "tokens", proto.paddle_dtype(np.dtype("<i8")), [-1, -1])
        self._add("feed", {"X": ["feed"]}, {"Out": ["tokens"]}, {"col": 0})
        table = self._weight("embedding", (words, self._hidden))
        inputs = {"Ids": "tokens", "W": table}
        return self._op("lookup_table_v2", inputs, "embedded", self._hidden)

    def layer(self, x: str, name: str, inner: int) -> str:
        hidden = self._hidden
        normal = self.normalize(x, f"{name}.attention")
        q, k, v = (self.multiply(normal, f"{name}.{part}", hidden, hidden) for part in "qkv")
        scores = self._op("matmul_v2", {"X": q, "Y": k}, f"{name}.scores", -1, trans_y=True)
        shares = self._op("softmax", {"X": scores}, f"{name}.shares", -1, axis=-1)
        mixed = self._op("matmul_v2", {"X": shares, "Y": v}, f"{name}.mixed", hidden)
        x = self._sum(x, self.multiply(mixed, f"{name}.o", hidden, hidden))
        normal = self.normalize(x, f"{name}.feed_forward")
        gate = self.multiply(normal, f"{name}.gate", hidden, inner)
        gate = self._op("silu", {"X": gate}, f"{gate}.silu", inner)
        up = self.multiply(normal, f"{name}.up", hidden, inner)
        gated = self._op("elementwise_mul", {"X": gate, "Y": up}, f"{name}.gated", inner, axis=-1)
        return self._sum(x, self.multiply(gated, f"{name}.down", inner, hidden))

    def normalize(self, x: str, name: str) -> str:
        scale = f"{name}.scale"
        self._declare(scale, (self._hidden,)).persistable = True
        ones = np.ones(self._hidden, np.float32)
        is_bfloat16 = self._dtype == np.uint16
        self.parameters[scale] = (
            (ones.view(np.uint32) >> 16).astype(np.uint16)
            if is_bfloat16
            else ones.astype(self._dtype)
        )
        output = f"{name}.normal"
        for part, width in ((output, self._hidden), (f"{name}.mean", 1), (f"{name}.variance", 1)):
            self._declare(part, (-1, -1, width))
        outputs = {"Y": [output], "Mean": [f"{name}.mean"], "Variance": [f"{name}.variance"]}
        attributes = {"epsilon": 1e-5, "begin_norm_axis": 2}
        self._add("layer_norm", {"X": [x], "Scale": [scale]}, outputs, attributes)
        return output

    def multiply(self, x: str, name: str, rows: int, columns: int) -> str:
        weight = self._weight(f"{name}.w", (rows, columns))
        return self._op("matmul_v2", {"X": x, "Y": weight}, name, columns, trans_y=False)

    def fetch(self, name: str) -> None:
        self._add("fetch", {"X": [name]}, {"Out": ["fetch"]}, {"col": 0})

    def _sum(self, x: str, y: str) -> str:
        return self._op("elementwise_add", {"X": x, "Y": y}, f"{y}.sum", self._hidden, axis=-1)

    def _op(
        self, op_type: str, inputs: dict[str, str], name: str, width: int, **attributes: Any
    ) -> str:
        self._declare(name, (-1, -1, width))
        given = {slot: [value] for slot, value in inputs.items()}
        self._add(op_type, given, {"Out": [name]}, attributes)
        return name

    def _weight(self, name: str, shape: tuple[int, int]) -> str:
        self._declare(name, shape).persistable = True
        self.derived[name] = DerivedTensor(shape, self._dtype, lambda: self._random(shape))
        return name

    def _random(self, shape: tuple[int, int]) -> Iterator[Any]:
        generator = np.random.default_rng(shape[1])
        values = generator.standard_normal((_ROWS_AT_ONCE, shape[1]), np.float32)
        values /= np.float32(shape[0] ** 0.5)
        if self._dtype == np.uint16:
            rows = (values.view(np.uint32) >> 16).astype(np.uint16)
        else:
            rows = values.astype(self._dtype)
        for start in range(0, shape[0], _ROWS_AT_ONCE):
            yield rows[: shape[0] - start]

    def _declare(self, name: str, dims: tuple[int, ...]) -> Any:
        return proto.add_var(self._block, name, self._type, dims)

    def _add(self, op_type: str, inputs: Any, outputs: Any, attributes: Any) -> None:
        self._block.ops.append(make_op(op_type, inputs, outputs, attributes).desc)


def _let_the_disk_rest() -> None:
    """Wait, so that the file system's pending work for one run does not slow the next."""
    os.sync()
    time.sleep(2)


def _quantize_in_process(source: Path, options: argparse.Namespace) -> tuple[float, float, float]:
    command = [sys.executable, "-m", "bench.big_weights", "--quantize", str(source)]
    command += ["--directory", str(options.directory), "--bits", str(options.bits)]
    if options.group_size is not None:
        command += ["--group-size", str(options.group_size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak, loaded = map(float, done.stdout.split()[-3:])
    return seconds, peak, loaded


def _quantize_here(source: Path, options: argparse.Namespace) -> None:
    loaded = _peak_megabytes()
    into = options.directory / "quantized"
    start = time.perf_counter()
    pyquant.quant_post_dynamic(
        source, into, weight_bits=options.bits, group_size=options.group_size
    )
    seconds = time.perf_counter() - start
    shutil.rmtree(into)
    print(seconds, _peak_megabytes(), loaded)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.big_weights", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=8)
    parser.add_argument("--dtype", default="bf16", choices=_DTYPES)
    parser.add_argument("--bits", type=int, default=8, choices=(4, 8, 16))
    parser.add_argument("--group-size", type=int, help="inputs that share a step (64 with 4 bits)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path("big-weights"))
    parser.add_argument("--quantize", type=Path, help=argparse.SUPPRESS)
    add_report(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
