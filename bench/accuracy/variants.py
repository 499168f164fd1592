"""A network in float and quantized in several ways, each ready to run."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

import pyquant
from pyquant.result import file_bytes

from ..networks import export
from ..paddle_ptq import quantize as paddle_quantize
from ..predictor import make_predictor, run_batch

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """A model that runs.

    Attributes:
        name: as printed.
        run: gives the scores, float32[n, classes], of float32[n, 3, h, w].
        bytes: of its files.
        seconds: what quantizing took; None for float.
    """

    name: str
    run: Callable[[NDArray[Any]], NDArray[Any]]
    bytes: int
    seconds: float | None = None


@dataclass(frozen=True)
class Source:
    """An exported float model and what calibrates it.

    Attributes:
        model_path: the program.
        params_path: its parameters.
        images: float32[n, 3, h, w].
        batch: how many of them are run at a time.
    """

    model_path: Path
    params_path: Path
    images: NDArray[Any]
    batch: int

    def batches(self) -> list[NDArray[Any]]:
        """Return the images as batches."""
        return [self.images[i : i + self.batch] for i in range(0, len(self.images), self.batch)]


def exported(network: Any, images: NDArray[Any], batch: int, directory: Path) -> Source:
    """Write ``network`` as Paddle exports it, to be calibrated on ``images``."""
    export(network, directory / "model", list(images.shape[1:]))
    model = pyquant.load_model(directory)
    assert model.params_path is not None
    return Source(model.model_path, model.params_path, images, batch)


def float_variant(source: Source) -> Variant:
    """Return the model as it is, run by oneDNN."""
    return _by_paddle("fp32", source.model_path, source.params_path, "float", None)


def dynamic_variants(source: Source, output: Path) -> Iterator[Variant]:
    """Quantize the weights alone, to int8 and to int16."""
    for bits in (8, 16):
        start = time.perf_counter()
        result = pyquant.quant_post_dynamic(
            source.model_path.parent, output / f"dynamic{bits}", weight_bits=bits
        )
        seconds = time.perf_counter() - start
        yield _by_paddle(f"dynamic int{bits}", *_paths(result), "float", seconds)


def static_variants(
    source: Source, all_options: Sequence[Options], output: Path
) -> Iterator[Variant]:
    """Quantize once with each of the options of `pyquant.quant_post_static`."""
    for number, options in enumerate(all_options):
        start = time.perf_counter()
        result = pyquant.quant_post_static(
            None,
            source.model_path.parent,
            output / f"static{number}",
            data_loader=source.batches(),
            **options,
        )
        seconds = time.perf_counter() - start
        named = " ".join(f"{key}={value}" for key, value in options.items())
        yield _by_paddle(f"static int8 {named}".rstrip(), *_paths(result), "int8", seconds)


def paddle_variants(source: Source, algos: Sequence[str], output: Path) -> Iterator[Variant]:
    """Quantize by Paddle's own PTQ, once with each algorithm."""
    samples = [{"image": image} for image in source.images]
    for algo in algos:
        model_path, params_path, seconds = paddle_quantize(
            source.model_path, source.params_path, samples, source.batch, algo, output / algo
        )
        yield _by_paddle(f"Paddle PTQ {algo}", model_path, params_path, "int8", seconds)


def nncf_variant(source: Source, output: Path) -> Variant:
    """Quantize by NNCF; OpenVINO runs it, on one thread."""
    import nncf
    import openvino

    start = time.perf_counter()
    core = openvino.Core()
    data = nncf.Dataset(source.batches())
    model = nncf.quantize(
        core.read_model(source.model_path), data, subset_size=len(source.batches())
    )
    path = output / "nncf.xml"
    openvino.save_model(model, path)
    seconds = time.perf_counter() - start
    compiled = core.compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": 1})
    size = file_bytes((path, path.with_suffix(".bin")))
    return Variant("NNCF, by OpenVINO", partial(_run_openvino, compiled), size, seconds)


def _by_paddle(
    name: str, model_path: Path, params_path: Path, run: str, seconds: float | None
) -> Variant:
    predictor = make_predictor(model_path, params_path, run)
    size = file_bytes((model_path, params_path))
    return Variant(name, partial(run_batch, predictor), size, seconds)


def _run_openvino(compiled: Any, images: NDArray[Any]) -> Any:
    return compiled(images)[0]


def _paths(result: pyquant.QuantizationResult) -> tuple[Path, Path]:
    assert result.params_path is not None
    return result.model_path, result.params_path


def parse_option(text: str) -> tuple[str, Any]:
    """Read ``KEY=VALUE``; a value that is not Python's notation of one is a string.

    Raises:
        ValueError: there is no "=".
    """
    key, value = text.split("=", 1)
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return key, value
