"""The command line: ``pyquant`` ``inspect``, ``convert``, ``dynamic`` and ``static``."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .calibration.files import samples_in
from .calibration.thresholds import ALGORITHMS
from .dynamic import WEIGHT_BITS, quant_post_dynamic
from .errors import PyquantError
from .program import proto
from .program.model import Model, load_model, save_model
from .program.quantizable import ACTIVATION_OP_TYPES, QUANTIZABLE_OPS, WEIGHT_ONLY_OP_TYPES
from .program.weights import WEIGHT_QUANTIZE_TYPES
from .static import quant_post_static


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 1 with the error on stderr."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except PyquantError as error:
        print(f"pyquant: {error}", file=sys.stderr)
        return 1
    return 0


def _dynamic(options: argparse.Namespace) -> None:
    result = quant_post_dynamic(
        options.model,
        options.output,
        model_filename=options.model_filename,
        params_filename=options.params_filename,
        quantizable_op_type=options.op_types or WEIGHT_ONLY_OP_TYPES,
        weight_bits=options.weight_bits,
        weight_quantize_type=options.weight_quantize_type,
        generate_test_model=options.test_model,
        lite_format=options.lite,
        skip_tensor_list=options.skip,
    )
    print(result)


def _static(options: argparse.Namespace) -> None:
    result = quant_post_static(
        None,
        options.model,
        options.output,
        sample_generator=samples_in(options.data),
        model_filename=options.model_filename,
        params_filename=options.params_filename,
        batch_size=options.batch_size,
        batch_nums=options.batches,
        algo=options.algo,
        hist_percent=options.hist_percent,
        quantizable_op_type=options.op_types or ACTIVATION_OP_TYPES,
        weight_quantize_type=options.weight_quantize_type,
        skip_tensor_list=options.skip,
    )
    for name, threshold in result.thresholds().items():
        print(f"threshold {threshold:<12.6g} {name}")
    print(result)


def _convert(options: argparse.Namespace) -> None:
    model = load_model(options.model, options.model_filename, options.params_filename)
    name = model.model_path.stem
    for path in save_model(model, options.output, f"{name}.pdmodel", f"{name}.pdiparams"):
        print(path)


def _inspect(options: argparse.Namespace) -> None:
    model = load_model(options.model, options.model_filename, options.params_filename)
    _print_tensors("input ", model, [var.name for var in model.feeds])
    _print_tensors("output", model, model.fetches)
    sizes = [array.nbytes for array in model.parameters.values()]
    print(f"parameters {len(sizes)}, {sum(sizes):,} bytes")
    for op_type, count in Counter(op.type for op in model.ops()).most_common():
        print(f"{count:6} {op_type}")
    for op in model.ops():
        if op.type in QUANTIZABLE_OPS:
            inputs, outputs = proto.names(op.inputs), proto.names(op.outputs)
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

    dynamic = commands.add_parser("dynamic", help="weights to int8 or int16, without data")
    _add_model(dynamic)
    _add_quantization(dynamic, WEIGHT_ONLY_OP_TYPES)
    dynamic.add_argument("--weight-bits", type=int, default=8, choices=WEIGHT_BITS)
    dynamic.add_argument("--test-model", action="store_true", help="also write the float twin")
    dynamic.add_argument("--lite", action="store_true", help="Paddle-Lite's form, by attributes")
    dynamic.set_defaults(run=_dynamic)

    static = commands.add_parser("static", help="an int8 model, calibrated over data")
    _add_model(static)
    _add_quantization(static, ACTIVATION_OP_TYPES)
    static.add_argument(
        "--data",
        type=Path,
        required=True,
        help="an .npz file of one array per input, by the input's name, axis 0 being the sample; "
        "an .npy file for a model of one input; or a directory of such files",
    )
    static.add_argument("--batch-size", type=int, default=8, help="samples per batch (8)")
    static.add_argument("--batches", type=int, help="use this many batches at most")
    static.add_argument("--algo", default="abs_max", choices=tuple(ALGORITHMS))
    static.add_argument("--hist-percent", type=float, default=0.9999)
    static.set_defaults(run=_static)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="the model's directory, or its program's path")
    parser.add_argument("--model-filename", help="the program's file, if it cannot be guessed")
    parser.add_argument("--params-filename", help="the combined parameter file, likewise")


def _add_quantization(parser: argparse.ArgumentParser, op_types: Sequence[str]) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, help="directory of the result")
    parser.add_argument("--op-types", nargs="+", choices=op_types, help="op types to quantize")
    parser.add_argument(
        "--weight-quantize-type",
        default="channel_wise_abs_max",
        choices=WEIGHT_QUANTIZE_TYPES,
    )
    parser.add_argument("--skip", nargs="+", metavar="TENSOR", help="keep ops of these in float")
