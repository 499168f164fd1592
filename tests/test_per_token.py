"""Per-token quantization: activations whose positions differ in magnitude."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
import static_runs
from comparisons import find
from paddle_run import run
from programs import STRAIGHT, Net
from static_runs import error_of, model_bytes

from pyquant import compare, load_model, quant_post_static, save_model
from pyquant.calibration.channel_factors import FactorSearch
from pyquant.calibration.output_error import Reader
from pyquant.calibration.samples import ActivationSample
from pyquant.calibration.statistic import ActivationHistogram
from pyquant.program.folding.cross_layer_equalization import find_neighbours
from pyquant.program.graph import Graph
from pyquant.program.op import Op
from pyquant.program.per_token import rounded_per_token
from pyquant.program.ranges import Grid
from pyquant.verification.effects import Rounding, effects_of_rounding

pytestmark = pytest.mark.usefixtures("int8_of_any_size")

# Positions of three samples, some a thousand times as large as others, with few large values, as
# products of gated units have them, and one of zeros.
DATA = programs.random((3, 8, 32)) * np.logspace(-2, 1, 24, dtype=np.float32).reshape(3, 8, 1)
DATA[:, :, 5::16] *= 40
DATA[:, ::2] = np.roll(DATA[:, ::2], 7, axis=-1)
DATA[1, 3] = 0


def product(outputs: int = 16) -> Net:
    return Net([3, 8, 32]).matmul(outputs, **STRAIGHT)


def with_bias() -> Net:
    return product().constant("elementwise_add", np.linspace(-1, 1, 16), 2)


def of_rows() -> Net:
    return Net([24, 32]).matmul(16, **STRAIGHT)


def read_twice() -> Net:
    net = product()
    first, net.last, net.dims = net.last, "x", [3, 8, 32]
    net.matmul(16, **STRAIGHT)
    return net.then("elementwise_mul", {"X": first, "Y": net.last}, "Out", {"axis": -1})


NETS = {
    "product": product,
    "bias": with_bias,
    "rows": of_rows,
    "read twice": read_twice,
}


def quantized(directory: Path, net: Net, **options: Any) -> Any:
    net.end().save(directory / "float")
    return static_runs.quantized(directory, [data_of(net)], **options)


def data_of(net: Net) -> Any:
    return DATA if len(net.dims) == 3 else DATA.reshape(24, 32)


def divided(directory: Path) -> set[str]:
    """Return the activations whose positions an int8 model divides."""
    written = [name for op in load_model(directory / "int8").ops() for name in op.writes()]
    return {name for name in written if name.endswith(".maxima")}


@pytest.mark.parametrize("name", NETS)
def test_small_positions_keep_their_precision(tmp_path: Path, name: str) -> None:
    net = NETS[name]()
    quantized(tmp_path, net)
    assert len(divided(tmp_path)) == 1
    assert worst_position(tmp_path, data_of(net)) < 0.05
    quantized(tmp_path, NETS[name](), equalize=False)
    assert not divided(tmp_path)
    assert worst_position(tmp_path, data_of(net)) > 0.2


def worst_position(directory: Path, data: Any) -> float:
    """Return the greatest relative error of a position of the first output."""
    expected, found = (run(directory / which, {"x": data})[0] for which in ("float", "int8"))
    errors, powers = (np.square(part).mean(-1) for part in (found - expected, expected))
    return float(np.sqrt(errors / np.maximum(powers, 1e-6)).max())


def test_values_beyond_the_data_are_not_clipped(tmp_path: Path) -> None:
    quantized(tmp_path, product())
    assert error_of(tmp_path, 100 * DATA, "float") < 0.02


def test_positions_of_one_magnitude_share_a_scale(tmp_path: Path) -> None:
    product().end().save(tmp_path / "float")
    static_runs.quantized(tmp_path, [np.sign(DATA) + DATA / 10000])
    assert not divided(tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"scale_dict": {"x": 20.0}}, {"deploy_backend": "QDQ"}, {"algo": "avg"}],
)
def test_what_settings_rule_out(tmp_path: Path, options: Any) -> None:
    """A threshold that is given is for undivided values; other forms have no such ops."""
    quantized(tmp_path, product(), **options)
    assert not divided(tmp_path)


def test_an_activation_behind_the_product_leaves_one_scale(tmp_path: Path) -> None:
    """The kernel applies it before the outputs could be multiplied."""
    quantized(tmp_path, product().act("gelu"))
    assert not divided(tmp_path)


def test_the_run_is_what_the_program_says(tmp_path: Path) -> None:
    with_bias().end().save(tmp_path / "float")
    result = quant_post_static(
        None, tmp_path / "float", tmp_path / "int8", data_loader=[DATA], max_error=2
    )
    assert divided(tmp_path)
    assert result.verification is not None
    assert not result.verification.departs
    assert not result.kept_float
    assert any("per token" in note for note in result.notes)


def test_the_files_do_not_depend_on_how_the_data_is_split(tmp_path: Path) -> None:
    with_bias().end().save(tmp_path / "float")
    written = set()
    for batches in ([DATA], [DATA[:1], DATA[1:]], [DATA[2:], DATA[:2]]):
        static_runs.quantized(tmp_path, batches)
        written.add(model_bytes(tmp_path / "int8"))
    assert len(written) == 1


@pytest.mark.parametrize("name", ["bias", "read twice"])
def test_compare_divides_the_float_model_likewise(tmp_path: Path, name: str) -> None:
    quantized(tmp_path, NETS[name]())
    comparison = compare(tmp_path / "float", tmp_path / "int8", data_loader=[DATA])
    assert {tensor.note for tensor in comparison.tensors} == {""}
    activation = find(comparison, "x", "activation")
    assert activation.equalized
    assert activation.badness > (1, 30)
    assert min(tensor.badness for tensor in comparison.tensors) > (1, 30)


def gated() -> tuple[Net, str]:
    """Return a gated unit, and the name of its output, which a product reads."""
    net = Net([3, 8, 32]).matmul(48, **STRAIGHT).act("sigmoid")
    gate, net.last, net.dims = net.last, "x", [3, 8, 32]
    up = net.matmul(48, **STRAIGHT).last
    name = net.then("elementwise_mul", {"X": gate, "Y": up}, "Out", {"axis": -1}).last
    return net.matmul(16, **STRAIGHT), name


def test_the_linear_factor_of_a_gated_unit_takes_factors_in(tmp_path: Path) -> None:
    net, name = gated()
    source = net.end().save(tmp_path / "float")
    model = load_model(source)
    neighbours = find_neighbours(Graph(model), name, ())
    assert neighbours is not None
    assert neighbours.writer is not None
    assert neighbours.writer.input("Y") == "w2"
    factors = np.linspace(1, 9, 48, dtype=np.float32)
    expected = run(source, {"x": DATA})[0]
    neighbours.take(model, factors)
    model.settle()
    save_model(model, tmp_path / "divided", "m.pdmodel", "m.pdiparams")
    found = run(tmp_path / "divided", {"x": DATA})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert find_neighbours(Graph(model), name, {neighbours.tensors[1]}) is None


def searched(rows: Any, weight: Any, abs_max: Any = None) -> FactorSearch:
    abs_max = np.abs(rows).max(axis=0) if abs_max is None else abs_max
    statistic, sample = ActivationHistogram(), ActivationSample(abs_max, rows)
    statistic.observe(rows)
    op = product(weight.shape[1]).block.ops[-1]
    reader = Reader(Op(op), weight)
    return FactorSearch(sample, statistic, [reader], lambda _: GRID, 127)


GRID = Grid(127, 0, False)


def test_balanced_factors_leave_less_error() -> None:
    """One channel is fifty times as large as the others."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((256, 32)).astype(np.float32)
    rows[:, 3] *= 50
    weight = rng.standard_normal((32, 16)).astype(np.float32)
    search = searched(rows, weight)
    plain = search.per_token(GRID, [], 1.0)
    found = search.per_token(GRID, [search.balanced], 1.0)
    assert plain.factors is None
    assert found.factors is not None
    assert found.error < plain.error / 2
    assert found.factors.argmax() == 3
    assert search.per_token(GRID, [search.balanced], plain.error / found.error).factors is None


def test_huge_positions_count_as_much_as_others() -> None:
    """One position of 256 is a thousand times as large as the others, in a channel of its own."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((256, 32)).astype(np.float32)
    rows[7, 3] = 3000
    weight = rng.standard_normal((32, 16)).astype(np.float32)
    for sample in (rows, np.delete(rows, 7, axis=0)):
        search = searched(sample, weight, np.abs(rows).max(axis=0))
        factors = search.per_token(GRID, [search.balanced], 1.0).factors
        factors = np.ones(32, np.float32) if factors is None else factors
        step = np.abs(weight * factors[:, None]).max(axis=0) / 127
        rounded = np.rint(weight * factors[:, None] / step) * step
        found = rounded_per_token(GRID, rows / factors) @ rounded
        errors = np.square(found - rows @ weight).mean(axis=1)
        shares = errors / np.square(rows @ weight).mean(axis=1)
        assert np.sqrt(shares).max() < 0.04
        assert search.with_one_scale(1.0).error > 100 * shares.mean()


def test_what_products_write_is_changed_in_place_of_what_they_read(tmp_path: Path) -> None:
    net = product().act("sigmoid").matmul(4, **STRAIGHT)
    source, feed = net.end().save(tmp_path / "in"), {"x": DATA}
    model = load_model(source)
    weight = np.rint(model.parameters["w2"] * 4) / np.float32(4)
    name, output = (op.writes()[0] for op in list(model.ops())[-3:-1])

    def halves(values: Any) -> Any:
        return np.rint(values * 2) / np.float32(2)

    rounding = Rounding(halves, False, {output: lambda values: values @ weight})
    found = effects_of_rounding(model, {name: rounding}, feed)
    hidden = 1 / (1 + np.exp(-np.clip(DATA @ model.parameters["w1"], -80, 80)))
    expected, changed = hidden @ model.parameters["w2"], halves(hidden) @ weight
    power = np.square(changed - expected).mean() / expected.var()
    assert found[name] == pytest.approx(power, rel=0.05)
    assert effects_of_rounding(model, {name: Rounding(halves, False)}, feed)[name] < found[name]
