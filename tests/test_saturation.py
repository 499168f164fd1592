"""Weights as integers that saturate on no processor: their values, and runs with them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle_run
import programs
import pytest
import static_runs
from programs import CONV, Net

from pyquant import SettingError, load_model, save_model
from pyquant.program import proto
from pyquant.program.op import make_op
from pyquant.program.quantizable import WeightedOp
from pyquant.program.targets.onednn.simulation import simulate
from pyquant.program.targets.saturation import without_saturation
from pyquant.program.weights import QuantizedWeight

HELPERS = str(Path(paddle_run.__file__).parent)
_FLAGS = Path("/proc/cpuinfo").read_text()
INSTRUCTION_SETS = [
    name
    for name, flag in (
        ("SSE41", "sse4_1"),
        ("AVX2", "avx2"),
        ("AVX512_CORE", "avx512bw"),
        ("AVX512_CORE_VNNI", "avx512_vnni"),
    )
    if flag in _FLAGS
]


def image(channels: int, outputs: int, attributes: dict[str, Any]) -> Callable[[], Net]:
    depthwise = attributes.get("groups", 1) == channels == outputs
    op_type = "depthwise_conv2d" if depthwise else "conv2d"
    return lambda: Net([2, channels, 9, 9]).conv(outputs, {**CONV, **attributes}, op_type)


def rows(inputs: int) -> Callable[[], Net]:
    return lambda: Net([4, inputs]).matmul(24).constant("elementwise_add", np.linspace(-1, 1, 24))


NETS: dict[str, Callable[[], Net]] = {
    "3x3": image(16, 24, {}),
    "3x3, bordered": image(16, 48, {}),
    "unpadded": image(16, 24, {"paddings": [0, 0]}),
    "three inputs": image(3, 16, {}),
    "five inputs": image(5, 16, {}),
    "groups of three": image(6, 8, {"groups": 2}),
    "groups of eight": image(16, 16, {"groups": 2}),
    "one input each": image(4, 8, {"groups": 4}),
    "depthwise": image(16, 16, {"groups": 16}),
    "depthwise, a rest": image(6, 6, {"groups": 6}),
    "rows": rows(32),
    "rows of an odd number": rows(33),
}


def with_extreme_weights(net: Net) -> Net:
    """Give all weights of a channel one sign and nearly the same magnitude."""
    for name in [name for name in net.parameters if name.startswith("w")]:
        shape = net.parameters[name].shape
        values = np.where(np.arange(np.prod(shape)) % 3, 1, 0.9).reshape(shape)
        net.parameters[name] = values.astype(np.float32)
    return net


def extremes(dims: list[int], signed: bool) -> Any:
    """Values at the ends of the integers' range, most at the upper end."""
    values = (programs.random(tuple(dims), 5) > -1).astype(np.float32)
    return values * 2 - 1 if signed else values


def quantized(name: str, directory: Path, signed: bool, **options: Any) -> tuple[Any, Any]:
    """Quantize a net with extreme weights on extreme data; return the result and the data."""
    net = NETS[name]()
    dims = list(proto.tensor_desc(next(v for v in net.block.vars if v.name == "x")).dims)
    data = extremes([4, *dims[1:]], signed)
    with_extreme_weights(net).end().save(directory / "float")
    given: dict[str, Any] = {"deploy_backend": "OneDNN", "algo": "abs_max", **options}
    result = static_runs.quantized(directory, [data], is_full_quantize=True, **given)
    assert result.kept_float == []
    np.save(directory / "int8" / "data.npy", data)
    return result, data


def simulated(directory: Path, data: Any) -> Any:
    """Return what the integers of the int8 program compute from the data."""
    model = simulate(load_model(directory / "int8"))
    paths = save_model(model, directory / "simulated", "m.pdmodel", "m.pdiparams")
    return paddle_run.predict(*paths[:2], {"x": data})[0]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """For each net and sign: the path of the int8 program, and what its integers compute."""
    made = {}
    for name in NETS:
        for signed in (False, True):
            directory = tmp_path_factory.mktemp("net")
            _, data = quantized(name, directory, signed)
            made[f"{name}, signed={signed}"] = directory / "int8", simulated(directory, data)
    return made


_RUN = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
import paddle_run
found = {}
for number, directory in enumerate(sys.argv[2:]):
    data = np.load(Path(directory) / "data.npy")
    (found[str(number)],) = paddle_run.run(Path(directory), {"x": data}, "float")
np.savez("found.npz", **found)
"""


def run_by(instruction_set: str, directories: list[Path], where: Path) -> list[Any]:
    """Run int8 programs in a process of their own: oneDNN reads the instruction set only once."""
    subprocess.run(
        [sys.executable, "-c", _RUN, HELPERS, *map(str, directories)],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": instruction_set},
        cwd=where,
        check=True,
        capture_output=True,
    )
    found = np.load(where / "found.npz")
    return [found[str(number)] for number in range(len(directories))]


@pytest.mark.any_isa
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_no_processor_saturates(
    cases: dict[str, tuple[Path, Any]], instruction_set: str, tmp_path: Path
) -> None:
    outputs = run_by(instruction_set, [directory for directory, _ in cases.values()], tmp_path)
    errors = {
        name: paddle_run.relative_error(output, expected)
        for output, (name, (_, expected)) in zip(outputs, cases.items())
    }
    assert {name: error for name, error in errors.items() if error > 1e-5} == {}


@pytest.mark.any_isa
@pytest.mark.skipif("AVX2" not in INSTRUCTION_SETS, reason="to be seen without VNNI")
def test_what_is_for_vnni_saturates_elsewhere(tmp_path: Path) -> None:
    """So the test above would detect saturation."""
    result, data = quantized("unpadded", tmp_path, False, processors="vnni")
    assert {tensor.bits for tensor in result.quantized} == {8}
    np.save(result.model_path.with_name("data.npy"), data)
    subprocess.run(
        [
            sys.executable,
            "-c",
            _RUN,
            HELPERS,
            str(result.model_path.parent),
        ],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    model = load_model(result.model_path.parent)
    paths = save_model(simulate(model), tmp_path / "simulated", "m.pdmodel", "m.pdiparams")
    (expected,) = paddle_run.predict(*paths[:2], {"x": data})
    assert paddle_run.relative_error(np.load(tmp_path / "found.npz")["0"], expected) > 0.1


def weight(values: Any, axis: int = 0, **fields: Any) -> QuantizedWeight:
    return QuantizedWeight("w", np.asarray(values, np.float32), axis, 8, Path("m"), **fields)


def neighbours(integers: Any) -> list[Any]:
    """Return the integers in every order in which kernels may add neighbours along axis 1.

    If the number of inputs is odd, the last one of a tap may pair with the first of the next tap.
    """
    if integers.ndim == 2 or integers.shape[1] % 2 == 0:
        return [integers]
    by_rows = np.moveaxis(integers, 1, -1)
    outputs, height = by_rows.shape[:2]
    rows = by_rows.reshape(outputs, height, -1).swapaxes(1, 2)
    by_columns = by_rows.swapaxes(1, 2)
    return [integers, rows, *(every.reshape(outputs, -1) for every in (by_rows, by_columns))]


@pytest.mark.parametrize("shape", [(8, 16, 3, 3), (8, 3, 3, 3), (8, 1, 5, 5), (64, 24)])
def test_neighbours_of_one_sign_add_up_to_128_at_most(shape: tuple[int, ...]) -> None:
    axis = 0 if len(shape) > 2 else 1
    values = programs.random(shape, 3)
    plain, paired = (weight(values, axis, fits_in_pairs=fits) for fits in (False, True))
    for order in neighbours(paired.integers if axis == 0 else paired.integers.T):
        pairs = order[:, : order.shape[1] // 2 * 2].astype(int)
        assert np.abs(pairs[:, ::2] + pairs[:, 1::2]).max(initial=0) <= 128
    assert np.abs(paired.integers).max() <= 127
    assert (plain.threshold <= paired.threshold).all()
    assert (paired.threshold <= 2 * plain.threshold).all()
    assert (plain.threshold < paired.threshold).any()


def test_channels_that_need_no_care_keep_their_threshold() -> None:
    values = np.array([[1.0, -0.9, 0.5, 0.5], [1.0, 0.9, 0.5, 0.5], [1.0, 0.0, -0.2, -0.8]])
    found = weight(values.reshape(3, 4, 1, 1), fits_in_pairs=True).threshold
    np.testing.assert_allclose(found, [1.0, 1.9, 1.0], rtol=1e-6)


def test_processors_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"processors: 'avx2'.*any.*vnni"):
        quantized("rows", tmp_path, False, processors="avx2")


@pytest.mark.parametrize("zero_point", [1, 128, 200, 255])
@pytest.mark.parametrize("inputs", [16, 17])
def test_what_reads_zero_points_alone_fits_in_pairs(zero_point: int, inputs: int) -> None:
    plain = weight(np.abs(programs.random((8, inputs, 3, 3), 3)), fits_in_pairs=True)
    whole = plain.with_sums_of_zero(zero_point)
    integers = whole.integers.astype(int)
    assert not integers.sum(axis=1).any()
    np.testing.assert_array_equal(integers[:, :inputs], plain.integers)
    pairs = integers.reshape(8, -1, 2, 3, 3)[:, (inputs + 1) // 2 :]
    assert np.abs(pairs.sum(axis=2)).max() * zero_point <= 2**15 - 1
    if inputs % 2:  # the neighbour of the last original input adds nothing
        assert not integers[:, inputs].any()
    assert whole.stored.shape[1] == inputs + plain.inputs_for_sums_of_zero(zero_point)


def test_taps_that_add_up_to_zero_need_no_more_inputs() -> None:
    assert weight(np.zeros((8, 16, 3, 3))).inputs_for_sums_of_zero(128) == 0


@pytest.mark.parametrize(
    ("algorithm", "fits"), [("EXPLICIT", False), ("VALID", True), ("SAME", True)]
)
def test_large_convolutions_without_padding_may_be_inner_products(
    algorithm: str, fits: bool
) -> None:
    """OneDNN does not halve the weights of inner products, whatever type they read."""
    attributes = {"paddings": [3, 3], "padding_algorithm": algorithm}
    desc = make_op("conv2d", {}, {}, attributes)
    op = WeightedOp(0, 0, "conv2d", "x", "w", 0, "y")
    found = without_saturation(weight(programs.random((8, 4, 7, 7))), op, desc, False)
    assert (found.bits, found.fits_in_pairs) == (7, fits)
