"""Int8 against float in the runtimes that Paddle models are deployed on: python -m bench.runtimes.

Each runtime is a row of `RUNTIMES`: how a float model and its variants in int8 are written for it,
and how it runs a file. All variants of a network run in turns, on one thread; a speed is that of
the float model in the same runtime, divided: the folded one for ONNX Runtime, while OpenVINO folds
for itself. The error is the relative rms of all outputs
against the float model's, on data that calibration did not see. "10 %" is the `max_error` that
pyquant's check bears, on data of the calibration; it is 5 % otherwise.

PP-OCRv4 and MiniLM are those of `bench.zoo`; mobilenet_v2 and resnet18 have random weights, so
their errors are not those of trained networks.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyquant

from .networks import export, vision_network
from .report import Report, add_report
from .timing import median_seconds

Array = NDArray[Any]
Feed = dict[str, Array]
Run = Callable[[Feed], list[Array]]
FLOAT = "float"


@dataclass(frozen=True)
class Task:
    """A float model, and its data."""

    program: Path
    calibration: Sequence[Feed]
    test: Sequence[Feed]


@dataclass(frozen=True)
class Runtime:
    """A runtime.

    Attributes:
        name: as the table has it.
        variants: by name, what writes one into a directory and returns its file. The others are
            measured against `FLOAT`.
        load: returns what runs a file, on one thread.
    """

    name: str
    variants: Mapping[str, Callable[[Task, Path], Path]]
    load: Callable[[Path], Run]


def onnx_float(task: Task, directory: Path) -> Path:
    """Write the folded float model for ONNX Runtime."""
    model = pyquant.load_model(task.program)
    pyquant.fold(model)
    return pyquant.save_onnx(model, directory / "float.onnx")[0]


def _onnx_int8(task: Task, directory: Path, **settings: Any) -> Path:
    settings = {"deploy_backend": "ONNX", "data_loader": task.calibration, **settings}
    result = pyquant.quant_post_static(None, task.program, directory, **settings)
    return result.model_path


def by_quantize_static(task: Task, directory: Path, reduce_range: bool) -> Path:
    """Quantize the float model by ONNX Runtime's own tool."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds: Iterator[Feed] = iter(task.calibration)

        def get_next(self) -> Feed | None:
            return next(self._feeds, None)

    prepared = directory / "prepared.onnx"
    quant_pre_process(onnx_float(task, directory), prepared, skip_symbolic_shape=True)
    path = directory / "model.onnx"
    options = {"per_channel": True, "reduce_range": reduce_range}
    quantize_static(prepared, path, Reader(), quant_format=QuantFormat.QDQ, **options)
    return path


def run_by_onnx_runtime(path: Path) -> Run:
    """Return what runs a file in ONNX Runtime, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    return lambda feed: list(session.run(None, feed))


def openvino_float(task: Task, directory: Path) -> Path:
    """Write the float model as a ``.pdmodel``, which OpenVINO reads."""
    model = pyquant.load_model(task.program)
    return pyquant.save_model(model, directory, "float.pdmodel", "float.pdiparams")[0]


def _openvino_int8(task: Task, directory: Path, **settings: Any) -> Path:
    settings = {"deploy_backend": "OpenVINO", "data_loader": task.calibration, **settings}
    result = pyquant.quant_post_static(None, task.program, directory, **settings)
    return result.model_path


def _nncf(task: Task, directory: Path, **settings: Any) -> Path:
    """Quantize the float model by NNCF, with its default preset."""
    import nncf
    import openvino

    model = openvino.Core().read_model(openvino_float(task, directory))
    path = directory / "model.xml"
    data = nncf.Dataset(task.calibration)
    openvino.save_model(nncf.quantize(model, data, **settings), path, compress_to_fp16=False)
    return path


def nncf_transformer(task: Task, directory: Path) -> Path:
    """Quantize the float model by NNCF, with SmoothQuant, as for transformers."""
    import nncf

    return _nncf(task, directory, model_type=nncf.ModelType.TRANSFORMER)


def run_by_openvino(path: Path) -> Run:
    """Return what runs a file in OpenVINO, on one thread."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda feed: [np.array(value) for value in compiled(feed).values()]


RUNTIMES = (
    Runtime(
        "ONNX Runtime",
        {
            FLOAT: onnx_float,
            "pyquant": _onnx_int8,
            "pyquant, 10 %": partial(_onnx_int8, max_error=10),
            "pyquant, VNNI": partial(_onnx_int8, processors="vnni"),
            "pyquant, unchecked": partial(_onnx_int8, verify=False),
            "quantize_static": partial(by_quantize_static, reduce_range=False),
            "quantize_static, reduce_range": partial(by_quantize_static, reduce_range=True),
        },
        run_by_onnx_runtime,
    ),
    Runtime(
        "OpenVINO",
        {
            FLOAT: openvino_float,
            "pyquant": _openvino_int8,
            "pyquant, 10 %": partial(_openvino_int8, max_error=10),
            "pyquant, VNNI": partial(_openvino_int8, processors="vnni"),
            "pyquant, unchecked": partial(_openvino_int8, verify=False),
            "NNCF": _nncf,
            "NNCF, transformer": nncf_transformer,
        },
        run_by_openvino,
    ),
)


def _of_zoo(name: str, directory: Path, cache: Path | None) -> Task:
    from .zoo.networks import NETWORKS

    network = NETWORKS[name]
    known = cache / name / "model.json" if cache else None
    program = known if known and known.exists() else network.make(directory)[0]

    def none(_: Feed) -> list[Array]:
        raise AssertionError("these networks need no float outputs for their data")

    data = network.data(none)
    return Task(program, data.calibration, data.test[:_TEST_BATCHES])


_TEST_BATCHES = 8


def _of_vision(name: str, directory: Path, cache: Path | None) -> Task:
    import paddle

    paddle.disable_static()
    paddle.seed(0)
    export(vision_network(name), directory / "model", [3, 224, 224])
    generator = np.random.default_rng(0)
    feeds = [
        {"image": generator.standard_normal((2, 3, 224, 224)).astype(np.float32)} for _ in range(8)
    ]
    return Task(directory / "model.json", feeds[:4], feeds[4:])


NETWORKS: Mapping[str, Callable[[str, Path, Path | None], Task]] = {
    "ppocrv4-rec": _of_zoo,
    "ppocrv4-det": _of_zoo,
    "ppocr-cls": _of_zoo,
    "minilm": _of_zoo,
    "mobilenet_v2": _of_vision,
    "resnet18": _of_vision,
}


def main() -> None:
    """Print a table: a row for each network, runtime and variant."""
    parser = argparse.ArgumentParser(description="Int8 against float in other runtimes.")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--cache", type=Path, help="models that bench.zoo has made")
    parser.add_argument("--runtimes", nargs="+", default=[one.name for one in RUNTIMES])
    parser.add_argument("--rounds", type=int, default=9)
    add_report(parser)
    options = parser.parse_args()
    header = ("network", "runtime", "form", "x as fast as float", "error %")
    Report(options.report).table(header, _rows(options))


def _rows(options: argparse.Namespace) -> Iterator[Sequence[str]]:
    for name in options.networks:
        with tempfile.TemporaryDirectory() as temporary:
            directory = Path(temporary)
            task = NETWORKS[name](name, directory, options.cache)
            for runtime in (one for one in RUNTIMES if one.name in options.runtimes):
                yield from _measured(name, runtime, task, directory, options.rounds)


def _measured(
    name: str, runtime: Runtime, task: Task, directory: Path, rounds: int
) -> Iterator[Sequence[str]]:
    runs, failures = dict[str, Run](), dict[str, str]()
    for at, (variant, write) in enumerate(runtime.variants.items()):
        into = directory / runtime.name / str(at)
        into.mkdir(parents=True)
        try:
            runs[variant] = runtime.load(write(task, into))
            runs[variant](task.test[0])
        except Exception as error:  # what another's tool raises is a line of the table
            runs.pop(variant, None)
            failures[variant] = f"{type(error).__name__}: {' '.join(str(error).split())[:_SHOWN]}"
    seconds = median_seconds(
        {variant: partial(run, task.test[0]) for variant, run in runs.items()}, rounds
    )
    expected = [runs[FLOAT](feed) for feed in task.test]
    for variant in runtime.variants:
        if variant in failures:
            yield name, runtime.name, variant, failures[variant], ""
            continue
        found = [runs[variant](feed) for feed in task.test]
        speed = seconds[FLOAT] / seconds[variant]
        percent = 100 * _error(expected, found)
        yield name, runtime.name, variant, f"{speed:.2f}", f"{percent:.2f}"


_SHOWN = 100  # characters of an error


def _error(expected: Sequence[list[Array]], found: Sequence[list[Array]]) -> float:
    """Return the rms of the differences as a share of the rms around the mean."""
    pairs = zip(*(zip(*one) for one in (expected, found)))
    worst = 0.0
    for references, outputs in pairs:
        reference, output = (
            np.concatenate([one.reshape(-1) for one in many]).astype(np.float64)
            for many in (references, outputs)
        )
        worst = max(worst, float(np.sqrt(((output - reference) ** 2).mean() / reference.var())))
    return worst


if __name__ == "__main__":
    main()
