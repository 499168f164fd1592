"""The command line: ``pyquant`` and its commands."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .calibrate import calibrate
from .calibration.run import CHECKPOINT_EVERY
from .calibration.source import CalibrationData
from .calibration.state import Calibration
from .calibration.thresholds import ALGORITHMS, AUTO
from .compare import compare
from .comparison.page import save_page
from .deployment import deployed
from .dynamic import DYNAMIC_QUANTIZE_TYPES, GROUP_SIZES, WEIGHT_BITS, quant_post_dynamic
from .errors import CalibrationDataError, PyquantError, SettingError, UnsupportedError
from .program import proto
from .program.folding.fold import fold
from .program.misfusion import keep_apart
from .program.model import Model, load_model, save_model
from .program.output_files import OutputFiles
from .program.predictor import all_cores, run_batch
from .program.quantizable import (
    ACTIVATION_OP_TYPES,
    QUANTIZABLE_OPS,
    WEIGHT_ONLY_OP_TYPES,
    refuse_quantized,
)
from .program.targets.profiles import DEPLOY_BACKENDS
from .program.targets.saturation import ANY, PROCESSORS
from .program.weights import WEIGHT_QUANTIZE_TYPES
from .shown import ShownStream
from .static import quant_post_static
from .static_mode.options import ROUND_TYPES
from .static_mode.placement import HERE
from .verification.kernel_times import KernelTime, kernel_times, shares

_INTERRUPTED = 130  # 128 + SIGINT, as in shells

# Commands pass their options on to pyquant's functions by name. These have other names there.
_PARAMETERS = {
    "model": "model_dir",
    "data": "sample_generator",
    "batches": "batch_nums",
    "op_types": "quantizable_op_type",
    "skip": "skip_tensor_list",
    "full_quantize": "is_full_quantize",
    "test_model": "generate_test_model",
    "lite": "lite_format",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, else 1 or 130 with the reason on stderr."""
    options = vars(_parser().parse_args(arguments))
    run = options.pop("run")
    named = {_PARAMETERS.get(name, name): value for name, value in options.items()}
    try:
        with redirect_stdout(ShownStream(sys.stdout)):
            run(**named)
    except PyquantError as error:
        print(f"pyquant: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"pyquant: {interrupt or 'interrupted'}", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _dynamic(output: Path, **arguments: Any) -> None:
    print(quant_post_dynamic(save_model_dir=output, **arguments))


def _static(output: Path, ray: str | None, isolate: bool, **arguments: Any) -> None:
    arguments |= {"engine": _engine(ray), "isolate": isolate and ray is None}
    result = quant_post_static(None, quantize_model_path=output, **arguments)
    for name, threshold in result.thresholds().items():
        print(f"threshold {threshold:<12.6g} {name}")
    print(result)


def _calibrate(output: Path, ray: str | None, isolate: bool, **arguments: Any) -> None:
    calibration = calibrate(engine=_engine(ray), isolate=isolate and ray is None, **arguments)
    calibration.save(output)
    _print_calibration(output, calibration)


def _merge(output: Path, calibrations: list[Path]) -> None:
    merged = Calibration.merge(map(Calibration.load, calibrations))
    merged.save(output)
    _print_calibration(output, merged)


def _compare(
    float_model: Path,
    int8_model: Path,
    float_params: str | None,
    int8_params: str | None,
    html: Path | None,
    top: int | None,
    **data: Any,
) -> None:
    comparison = compare(
        load_model(float_model, params_filename=float_params),
        load_model(int8_model, params_filename=int8_params),
        **data,
    )
    print(comparison.table(top))
    if html is not None:
        save_page(comparison, html)
        print(f"\npage {html}")


def _run(
    sample_generator: Path,
    batch_size: int,
    batch_nums: int | None,
    threads: int | None,
    output: Path | None,
    kernels: bool,
    **source: Any,
) -> None:
    data = CalibrationData({"sample_generator": str(sample_generator)}, batch_size, batch_nums)
    model = load_model(**source)
    predictor = deployed(model, threads)
    seconds, outputs, times = [], list[Any](), list[KernelTime]()
    for number, feed in enumerate(data.feeds(model)):
        if kernels and not number:
            times = kernel_times(model, feed, threads or all_cores())
        start = time.perf_counter()
        outputs.append(run_batch(predictor, feed, number, str(model.model_path)))
        seconds.append(time.perf_counter() - start)
    if not outputs:
        raise CalibrationDataError(f"{sample_generator}: it yields nothing to run the model on.")
    joined = dict(zip(predictor.get_output_names(), map(_joined, zip(*outputs))))
    for name, array in joined.items():
        print(f"output {name} {array.dtype}{list(array.shape)} {_spread(array)}")
    print(f"{1e3 * median(seconds):.2f} ms a batch, median of {len(seconds)}")
    for one in times:
        name = f"{one.primitive} {one.implementation}"
        print(f"{one.milliseconds:9.3f} ms {one.runs:4} x {name:44} {one.types}")
    if times:
        print(f"kernels of the first batch: {shares(times)}")
    if output is not None:
        with OutputFiles(output.parent) as files, files.open(output) as stream:
            np.savez(stream, **joined)
        print(output)


def _joined(batches: Sequence[Any]) -> Any:
    """Return the outputs of several batches as one; raise UnsupportedError if their sizes vary."""
    arrays = [np.atleast_1d(array) for array in batches]
    try:
        return np.concatenate(arrays)
    except ValueError as error:
        raise UnsupportedError(
            f"the outputs of batches differ in size ({error}). Give samples of one size."
        ) from error


def _spread(array: Any) -> str:
    if not array.size:
        return "empty"
    return f"{array.min():.6g} to {array.max():.6g}, mean {array.mean():.6g}"


def _print_calibration(path: Path, calibration: Calibration) -> None:
    tensors = len(calibration.statistics)
    print(f"{path}: {calibration.batches} batches, histograms of {tensors} activations")


def _engine(address: str | None) -> Any:
    """Connect to a Ray cluster and return its engine; None without an address."""
    if address is None:
        return None
    try:
        import ray
    except ImportError as error:
        raise UnsupportedError(
            f"--ray {address}: Ray is not installed. Install it: pip install 'pyquant[ray]'"
        ) from error
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SettingError(f"--ray {address}: there is no Ray cluster ({error}).") from error
    return ray


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"{text}: expected I/N, such as 0/4 for the first of four")
    return int(number), int(count)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number of at least 1")
    return int(text)


def _convert(output: Path, **source: Any) -> None:
    model = load_model(**source)
    keep_apart(model)
    _save(model, output)


def _fold(output: Path, **source: Any) -> None:
    model = load_model(**source)
    refuse_quantized(model)
    before = sum(1 for _ in model.ops())
    fold(model)
    _save(model, output)
    print(f"{before} ops -> {sum(1 for _ in model.ops())}")


def _save(model: Model, directory: Path) -> None:
    name = model.model_path.stem
    for path in save_model(model, directory, f"{name}.pdmodel", f"{name}.pdiparams"):
        print(path)


def _inspect(**source: Any) -> None:
    model = load_model(**source)
    _print_tensors("input ", model, [var.name for var in model.feeds])
    _print_tensors("output", model, model.fetches)
    sizes = [array.nbytes for array in model.parameters.values()]
    print(f"parameters {len(sizes)}, {sum(sizes):,} bytes")
    for op_type, count in Counter(op.type for op in model.ops()).most_common():
        print(f"{count:6} {op_type}")
    for op in model.ops():
        if op.type in QUANTIZABLE_OPS:
            inputs, outputs = op.reads(), op.writes()
            print(f"{op.type} {' '.join(inputs)} -> {' '.join(outputs)}")


def _print_tensors(title: str, model: Model, names: Sequence[str]) -> None:
    variables = {var.name: var for var in model.program.blocks[0].vars}
    for name in names:
        desc = proto.tensor_desc(variables[name])
        print(f"{title} {name} {proto.dtype_name(desc.data_type)}{list(desc.dims)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyquant", description="Quantize PaddlePaddle inference models after training."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    inspect = commands.add_parser("inspect", help="inputs, outputs, ops and weights of a model")
    _add_model(inspect)
    inspect.set_defaults(run=_inspect)

    convert = commands.add_parser("convert", help="a Paddle 3 .json model as .pdmodel, in float")
    _add_model(convert)
    convert.add_argument("output", type=Path, help="directory of the result")
    convert.set_defaults(run=_convert)

    folding = commands.add_parser("fold", help="a float model with fewer ops and the same outputs")
    _add_model(folding)
    folding.add_argument("output", type=Path, help="directory of the result")
    folding.set_defaults(run=_fold)

    dynamic = commands.add_parser("dynamic", help="weights to 4, 8 or 16 bits, without data")
    _add_model(dynamic)
    _add_quantization(dynamic, WEIGHT_ONLY_OP_TYPES, DYNAMIC_QUANTIZE_TYPES, None)
    dynamic.add_argument("--weight-bits", type=int, default=8, choices=WEIGHT_BITS)
    dynamic.add_argument(
        "--group-size",
        type=int,
        choices=GROUP_SIZES,
        help="give every so many inputs of a channel a step of their own (whole channels; 64 with "
        "4 bits)",
    )
    dynamic.add_argument("--test-model", action="store_true", help="also write the float twin")
    dynamic.add_argument("--lite", action="store_true", help="Paddle-Lite's form, by attributes")
    dynamic.set_defaults(run=_dynamic)

    static = commands.add_parser("static", help="an int8 model, calibrated over data")
    _add_model(static)
    _add_quantization(static, ACTIVATION_OP_TYPES, WEIGHT_QUANTIZE_TYPES, WEIGHT_QUANTIZE_TYPES[0])
    _add_data(static.add_mutually_exclusive_group(required=True), static)
    static.add_argument("--algo", default="mse", choices=(*ALGORITHMS, AUTO))
    static.add_argument("--round-type", default="round", choices=ROUND_TYPES)
    static.add_argument(
        "--equalize",
        action=argparse.BooleanOptionalAction,
        help="even out the channels of activations wherever that halves the cost of int8 (only "
        "where int8 costs much)",
    )
    static.add_argument(
        "--no-bias-correction",
        dest="bias_correction",
        action="store_false",
        help="do not adjust the biases for the mean error that rounding the weights causes",
    )
    static.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not run the result, nor keep ops in float that err too much",
    )
    static.add_argument(
        "--plan-for",
        choices=[HERE],
        help="keep ops in float where that is faster on this machine, as measured (by rules alone)",
    )
    static.add_argument("--hist-percent", type=float, default=0.9999)
    static.set_defaults(run=_static)

    calibrate = commands.add_parser("calibrate", help="statistics over data, for static and merge")
    _add_model(calibrate)
    calibrate.add_argument("-o", "--output", type=Path, required=True, help="an .npz file")
    _add_ops(calibrate, ACTIVATION_OP_TYPES)
    _add_data(calibrate, calibrate)
    calibrate.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="take only every N-th batch, from the I-th on, counted from 0",
    )
    calibrate.set_defaults(run=_calibrate)

    run = commands.add_parser("run", help="the outputs of a model, quantized or not, and its time")
    _add_model(run)
    _add_samples(run, run, required=True)
    run.add_argument("--threads", type=_positive, metavar="N", help="of the CPU (all)")
    run.add_argument("-o", "--output", type=Path, help="also write the outputs, an .npz file")
    run.add_argument(
        "--kernels", action="store_true", help="also show which oneDNN kernels ran, and their times"
    )
    run.set_defaults(run=_run)

    merge = commands.add_parser("merge", help="join several calibrations of a model")
    merge.add_argument("calibrations", type=Path, nargs="+", help="what calibrate wrote")
    merge.add_argument("-o", "--output", type=Path, required=True, help="an .npz file")
    merge.set_defaults(run=_merge)

    compare = commands.add_parser(
        "compare", help="a float model and its quantized one, tensor by tensor, over data"
    )
    compare.add_argument(
        "float_model", type=Path, metavar="FLOAT", help="its directory, or its program's path"
    )
    compare.add_argument(
        "int8_model", type=Path, metavar="INT8", help="likewise, what static or dynamic wrote"
    )
    for side in ("float", "int8"):
        compare.add_argument(
            f"--{side}-params", metavar="NAME", help="its parameter file, if it cannot be guessed"
        )
    _add_samples(compare, compare, required=True)
    compare.add_argument("--html", type=Path, metavar="FILE", help="also write an illustrated page")
    compare.add_argument(
        "--top", type=_positive, metavar="N", help="print the N worst lines of each table only"
    )
    compare.set_defaults(run=_compare)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="the model's directory, or its program's path")
    parser.add_argument("--model-filename", help="the program's file, if it cannot be guessed")
    parser.add_argument("--params-filename", help="the combined parameter file, likewise")


def _add_quantization(
    parser: argparse.ArgumentParser,
    op_types: Sequence[str],
    kinds: Sequence[str],
    kind: str | None,
) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory of the result")
    _add_ops(parser, op_types)
    parser.add_argument("--weight-quantize-type", default=kind, choices=kinds)


def _add_ops(parser: argparse.ArgumentParser, op_types: Sequence[str]) -> None:
    parser.add_argument(
        "--op-types", nargs="+", default=op_types, choices=op_types, help="op types to quantize"
    )
    parser.add_argument("--skip", nargs="+", metavar="TENSOR", help="keep ops of these in float")


def _add_data(source: argparse._ActionsContainer, parser: argparse.ArgumentParser) -> None:
    """Add the options of calibration data; ``source`` gets those of which one is required."""
    _add_samples(source, parser, required=source is parser)
    if source is not parser:
        source.add_argument("--calibration", type=Path, help="what calibrate or merge wrote")
    parser.add_argument(
        "--deploy-backend",
        choices=[name for name in DEPLOY_BACKENDS if name is not None],
        help="where the model will run (a CPU, by oneDNN's int8 ops)",
    )
    parser.add_argument(
        "--processors",
        default=ANY,
        choices=PROCESSORS,
        help="choose integers that are right on all processors, or only on those with VNNI (any)",
    )
    parser.add_argument(
        "--full-quantize",
        action="store_true",
        help="quantize all that can run as int8 there, even if that loses accuracy or time",
    )
    parser.add_argument(
        "--no-optimize",
        dest="optimize_model",
        action="store_false",
        help="do not fold the model first",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="keep the calibration here while it runs; resume from it if it exists",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=int,
        default=CHECKPOINT_EVERY,
        metavar="N",
        help=f"save it after every N batches ({CHECKPOINT_EVERY})",
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="run the data on a Ray cluster ('local' starts one here)"
    )
    parser.add_argument(
        "--no-isolate",
        dest="isolate",
        action="store_false",
        help="run the model in this process, which it may end, instead of one of its own",
    )


def _add_samples(
    source: argparse._ActionsContainer, parser: argparse.ArgumentParser, required: bool
) -> None:
    source.add_argument(
        "--data",
        type=Path,
        required=required,
        help="an .npz file of one array per input, by the input's name, axis 0 being the sample; "
        "an .npy file for a model of one input; or a directory of such files",
    )
    parser.add_argument("--batch-size", type=int, default=8, help="samples per batch (8)")
    parser.add_argument("--batches", type=int, help="use at most this many batches")
