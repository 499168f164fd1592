"""The ways to quantize a model, with pyquant or a peer, and how to run the results."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

import pyquant
from pyquant.result import file_bytes

from . import nncf_ptq, paddle_ptq
from .predictor import make_predictor, run_batch
from .source import Source

Paths = tuple[Path, Path]
Run = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Method:
    """A way to quantize.

    Attributes:
        quantize: writes the quantized model into a directory; returns its two files.
        run: what runs the result: ``"openvino"``, or Paddle's Predictor with oneDNN, as
            ``"float"`` or ``"int8"``.
        packages: those that it needs beside pyquant.
    """

    quantize: Callable[[Source, Path], Paths]
    run: str
    packages: tuple[str, ...] = ()

    @property
    def absent(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


@dataclass(frozen=True)
class Variant:
    """A model in float, or quantized.

    Attributes:
        name: as printed.
        paths: its two files.
        run: as in `Method`.
        seconds: the time that quantizing took; None for float.
        megabytes: the peak memory of quantizing, if it was measured.
    """

    name: str
    paths: Paths
    run: str
    seconds: float | None = None
    megabytes: float | None = None

    @property
    def bytes(self) -> int:
        """The size of its files."""
        return file_bytes(self.paths)

    def load(self) -> Run:
        """Return a function from the only input to the first output, to run on one thread."""
        if self.run == "openvino":
            return nncf_ptq.Runner(self.paths[0])
        return partial(run_batch, make_predictor(*self.paths, self.run))


def dynamic(source: Source, output: Path, weight_bits: int) -> Paths:
    """Quantize by `pyquant.quant_post_dynamic`: the weights alone."""
    model, params = source.paths
    return _paths(
        pyquant.quant_post_dynamic(
            model.parent, output, model.name, params.name, weight_bits=weight_bits
        )
    )


def static(source: Source, output: Path, **options: Any) -> Paths:
    """Quantize by `pyquant.quant_post_static`."""
    model, params = source.paths
    result = pyquant.quant_post_static(
        None,
        model.parent,
        output,
        data_loader=source.batches(),
        model_filename=model.name,
        params_filename=params.name,
        **options,
    )
    return _paths(result)


EQUALIZED_OPTIONS: Mapping[str, Any] = {"equalize": True}

QDQ_OPTIONS: Mapping[str, Any] = {"deploy_backend": "QDQ", "processors": "vnni"}
"""For Paddle's int8 passes, with int8 convolutions, which are right only with VNNI."""

ACCURATE_OPTIONS: Mapping[str, Any] = {
    **EQUALIZED_OPTIONS,
    "algo": "auto",
    "round_type": "adaround",
}
"""The options that favour accuracy."""

DYNAMIC = "dynamic int8"
INT16 = "dynamic int16"
QDQ = "static QDQ"
ONEDNN = "static OneDNN"
EQUALIZED = "static OneDNN equalized"
ACCURATE = "static OneDNN accurate"
NNCF = "NNCF, by OpenVINO"
PEERS = ("paddle", "nncf")
_PADDLE = ("paddle.static.quantization",)

METHODS: Mapping[str, Method] = {
    DYNAMIC: Method(partial(dynamic, weight_bits=8), "float"),
    INT16: Method(partial(dynamic, weight_bits=16), "float"),
    QDQ: Method(partial(static, **QDQ_OPTIONS), "int8"),
    ONEDNN: Method(static, "float"),
    EQUALIZED: Method(partial(static, **EQUALIZED_OPTIONS), "float"),
    ACCURATE: Method(partial(static, **ACCURATE_OPTIONS), "float"),
    **{
        f"Paddle {algo}": Method(
            partial(paddle_ptq.quantize, algo=algo), "int8", ("paddle.static.quantization",)
        )
        for algo in paddle_ptq.ALGORITHMS
    },
    NNCF: Method(nncf_ptq.quantize, "openvino", ("nncf", "openvino")),
}
PYQUANT = {name: METHODS[name] for name in (QDQ, ONEDNN, EQUALIZED, ACCURATE, DYNAMIC)}


def peer_methods(peers: Collection[str], paddle_algos: Sequence[str]) -> dict[str, Method]:
    """Return the methods of these `PEERS`, Paddle's with each of ``paddle_algos``."""
    names = [f"Paddle {algo}" for algo in paddle_algos] if "paddle" in peers else []
    names += [NNCF] if "nncf" in peers else []
    return {name: METHODS[name] for name in names}


def static_method(options: Mapping[str, Any]) -> Method:
    """Return `pyquant.quant_post_static` with ``options``."""
    return Method(partial(static, **options), "int8")


def parse_option(text: str) -> tuple[str, Any]:
    """Read ``KEY=VALUE``; a value that is no Python literal is a string.

    Raises:
        ValueError: there is no "=".
    """
    key, value = text.split("=", 1)
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return key, value


def float_variant(source: Source) -> Variant:
    """Return the model as it is."""
    return Variant("float", source.paths, "float")


def quantized(name: str, method: Method, source: Source, output: Path) -> Variant:
    """Quantize, into a directory of its own below ``output``."""
    directory = output / name.replace(" ", "-")
    directory.mkdir(parents=True, exist_ok=True)
    for package in method.packages:  # so that the import is not timed
        importlib.import_module(package)
    start = time.perf_counter()
    paths = method.quantize(source, directory)
    return Variant(name, paths, method.run, time.perf_counter() - start)


def _paths(result: pyquant.QuantizationResult) -> Paths:
    assert result.params_path is not None
    return result.model_path, result.params_path
