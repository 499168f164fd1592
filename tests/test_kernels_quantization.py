"""quantize and dequantize against numpy, and against Paddle's operators."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyquant import _native, kernels

pytestmark = pytest.mark.any_isa


def levels_of(bits):
    return 2 ** (bits - 1) - 1


def broadcast(threshold, axis, ndim):
    threshold = np.asarray(threshold, np.float32)
    if axis is None:
        return threshold
    return threshold.reshape([-1 if i == axis % ndim else 1 for i in range(ndim)])


def slow_quantize(x, threshold, axis, bits):
    """Paddle's float32 operations in its order."""
    scale = broadcast(threshold, axis, x.ndim)
    levels, one = np.float32(levels_of(bits)), np.float32(1)
    with np.errstate(all="ignore"):
        guarded = one / (scale + np.float32(1e-6))
        inverse = np.where(scale <= np.float32(1e-30), guarded, one / scale)
        scaled = levels * inverse * x.astype(np.float32)
    return np.clip(
        np.nan_to_num(np.rint(scaled), posinf=np.inf, neginf=-np.inf), -levels - 1, levels
    )


def slow_dequantize(q, threshold, axis, bits):
    with np.errstate(over="ignore"):
        scaled = q.astype(np.float32) * broadcast(threshold, axis, q.ndim)
    return scaled / np.float32(levels_of(bits))


def check(x, threshold, axis, bits, **options):
    q = kernels.quantize(x, threshold, axis, bits, **options)
    assert q.dtype == (np.int8 if bits <= 8 else np.int16)
    np.testing.assert_array_equal(q, slow_quantize(x, threshold, axis, bits))
    values = kernels.dequantize(q, threshold, axis, bits, **options)
    assert values.dtype == np.float32
    assert values.tobytes() == slow_dequantize(q, threshold, axis, bits).tobytes()


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=70),
    st.floats(0, width=32, allow_infinity=False),
    st.integers(2, 16),
)
@settings(deadline=None)
def test_any_values(values, threshold, bits):
    check(np.array(values, np.float32), threshold, None, bits)


@given(st.integers(2, 16), st.floats(2.0**-10, 1024.0, width=32))
@settings(deadline=None)
def test_halves_between_levels(bits, threshold):
    halves = np.arange(-2 * levels_of(bits) - 6, 2 * levels_of(bits) + 7) / np.float32(2)
    check(halves.astype(np.float32), np.float32(levels_of(bits)), None, bits)
    check((halves * threshold / levels_of(bits)).astype(np.float32), threshold, None, bits)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize(
    "shape",
    [
        (7,),
        (3, 5),
        (40, 100),
        (6, 3, 3, 3),
        (2, 4, 90),
        (300, 3),
        (4, 700),
        (1, 1),
        (90000, 5),
        (17, 3001),
        (70, 51, 9),
        (3, 300, 63),
    ],
)
def test_channels(shape, bits, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    for axis in range(-1, len(shape)):
        threshold = np.abs(rng.standard_normal(shape[axis])).astype(np.float32)
        threshold[0] = 0.0
        check(x, threshold, axis, bits, num_threads=2)


def test_bfloat16():
    x = np.random.default_rng(0).standard_normal((50, 70)).astype(np.float32)
    bits = (x.view(np.uint32) >> 16).astype(np.uint16)
    exact = (bits.astype(np.uint32) << 16).view(np.float32)
    q = kernels.quantize(bits, 2.0, dtype="bfloat16")
    np.testing.assert_array_equal(q, slow_quantize(exact, 2.0, None, 8))


def test_special_values():
    x = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 1e-40], np.float32)
    np.testing.assert_array_equal(kernels.quantize(x, 1.0), [0, 0, 127, -128, 0, 0])
    np.testing.assert_array_equal(kernels.quantize(np.zeros((2, 3), np.float32), 0.0), 0)


def test_not_contiguous():
    x = np.random.default_rng(0).standard_normal((30, 20, 10)).astype(np.float32).T[::2]
    check(x, np.abs(x).max(axis=(0, 2)), 1, 8)
    q = kernels.quantize(x, 3.0)
    expected = slow_dequantize(q[:, ::3], 3.0, None, 8)
    np.testing.assert_array_equal(kernels.dequantize(q[:, ::3], 3.0), expected)


def test_memory_that_is_used_again():
    x = np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)
    q, values = np.full(x.shape, 99, np.int8), np.full(x.shape, np.nan, np.float32)
    assert kernels.quantize(x, 3.0, out=q) is q
    np.testing.assert_array_equal(q, kernels.quantize(x, 3.0))
    assert kernels.dequantize(q, 3.0, out=values) is values
    np.testing.assert_array_equal(values, kernels.dequantize(q, 3.0))


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.zeros((2, 3), np.int16), TypeError, "^out .*int8"),
        (np.zeros((3, 2), np.int8).T, TypeError, "^out .*C-contiguous"),
        (np.zeros((3, 2), np.int8), ValueError, "^out .*shape"),
        (read_only(np.zeros((2, 3), np.int8)), ValueError, "^out .*writable"),
    ],
)
def test_memory_that_cannot_be_used(out, error, message):
    with pytest.raises(error, match=message):
        kernels.quantize(np.zeros((2, 3), np.float32), 1.0, out=out)


def test_empty():
    x = np.zeros((3, 0), np.float32)
    assert kernels.quantize(x, np.ones(3, np.float32), 0).shape == (3, 0)
    assert kernels.dequantize(np.zeros((0, 3), np.int8), 1.0).shape == (0, 3)


def run_paddle(operator, x, scale, axis, bits):
    paddle = pytest.importorskip("paddle")
    from paddle.base.framework import OpProtoHolder

    known = {a.name for a in OpProtoHolder.instance().get_op_proto(operator).attrs}
    # Paddle 3 goes by qmin and qmax, Paddle 2 by bit_length.
    limits = {"qmin": -levels_of(bits) - 1, "qmax": levels_of(bits)}
    attributes = {name: value for name, value in limits.items() if name in known}
    paddle.enable_static()
    try:
        program = paddle.static.Program()
        with paddle.static.program_guard(program):
            block = program.global_block()
            inputs = {
                "X": [paddle.static.data("x", x.shape, str(x.dtype))],
                "Scale": [paddle.static.data("scale", scale.shape, "float32")],
                "ZeroPoint": [paddle.static.data("zero_point", scale.shape, "int32")],
            }
            output = block.create_var(name="y", dtype="float32", shape=x.shape)
            attributes |= {"quant_axis": axis, "bit_length": bits, "round_type": 0, "is_test": True}
            block.append_op(type=operator, inputs=inputs, outputs={"Y": [output]}, attrs=attributes)
        feed = {"x": x, "scale": scale, "zero_point": np.zeros(scale.shape, np.int32)}
        return paddle.static.Executor(paddle.CPUPlace()).run(program, feed, [output.name])[0]
    finally:
        paddle.disable_static()


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_equal_to_paddle(axis, bits):
    rng = np.random.default_rng(bits)
    x = (rng.standard_normal((8, 16, 50)) * 10.0 ** rng.integers(-3, 3, (8, 16, 50))).astype(
        np.float32
    )
    x[1] *= np.float32(1e-31)
    x[2, :, ::2] = np.inf
    x[:, 3] = x[4] = 0
    if axis is None:
        scale = np.array([7.7], np.float32)
    else:
        finite = np.where(np.isfinite(x), np.abs(x), 0)
        scale = finite.max(axis=tuple(i for i in range(3) if i != axis)) * np.float32(0.8)
    paddle_axis = -1 if axis is None else axis
    q = kernels.quantize(x, scale, axis, bits)
    expected = run_paddle("quantize_linear", x, scale, paddle_axis, bits)
    np.testing.assert_array_equal(q, expected)
    # Paddle has no int16 kernel of dequantize_linear; its own simulation feeds it float32.
    expected = run_paddle("dequantize_linear", q.astype(np.float32), scale, paddle_axis, bits)
    assert kernels.dequantize(q, scale, axis, bits).tobytes() == expected.tobytes()


X = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("threshold", "axis", "bits", "message"),
    [
        (-1.0, None, 8, "channel 0 .*-1"),
        (np.nan, None, 8, "channel 0 .*nan"),
        (np.inf, None, 8, "channel 0 .*inf"),
        (1e39, None, 8, "channel 0 .*inf"),
        (np.array([1, 1, -2], np.float32), 1, 8, "channel 2 .*-2"),
        (np.ones(2, np.float32), 1, 8, "3 thresholds.* 2"),
        (np.ones(2, np.float32), None, 8, "1 thresholds.* 2"),
        (np.ones((3, 1), np.float32), 1, 8, "3 thresholds"),
        (1.0, 1, 8, "3 thresholds"),
        (1.0, 2, 8, "axis 2"),
        (1.0, None, 1, "bits .*2 to 16.* 1"),
        (1.0, None, 17, "bits .*2 to 16.* 17"),
    ],
)
def test_values_that_are_refused(threshold, axis, bits, message):
    with pytest.raises(ValueError, match=message):
        kernels.quantize(X, threshold, axis, bits)
    with pytest.raises(ValueError, match=message):
        kernels.dequantize(X.astype(np.int8), threshold, axis, bits)


def test_numbers_of_threads_that_are_refused():
    with pytest.raises(ValueError, match="num_threads"):
        kernels.quantize(X, 1.0, num_threads=0)
    with pytest.raises(ValueError, match="num_threads"):
        kernels.dequantize(X.astype(np.int8), 1.0, num_threads=0)


@pytest.mark.parametrize("q", [X, X.astype(np.int32), X.astype(np.uint8), [1]])
def test_types_that_dequantize_refuses(q):
    with pytest.raises(TypeError, match="int8 or int16"):
        kernels.dequantize(q, 1.0)


def loss(integers: np.ndarray, weights: np.ndarray, steps: np.ndarray, moments: Any) -> Any:
    errors = integers * steps[:, None].astype(np.float64) - weights
    return ((errors @ moments) * errors).sum(axis=1)


def moments_and_weights(size: int, rows: int = 19) -> tuple[Any, Any, Any]:
    generator = np.random.default_rng(size)
    mixed = generator.standard_normal((50, size)) @ generator.standard_normal((size, size))
    samples = mixed.astype(np.float32)
    moments = np.zeros((size, size))
    kernels.add_moments(samples, moments)
    weights = generator.standard_normal((rows, size)).astype(np.float32)
    np.testing.assert_allclose(moments, samples.T.astype(np.float64) @ samples, rtol=1e-12)
    return moments, weights, (np.abs(weights).max(axis=1) / 127).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 64, 1500])
def test_moments_do_not_depend_on_how_samples_are_split(size: int) -> None:
    samples = np.random.default_rng(0).standard_normal((23, size)).astype(np.float32)
    whole, parts = np.zeros((size, size)), np.zeros((size, size))
    kernels.add_moments(samples, whole)
    for begin, end in ((0, 5), (5, 6), (6, 23)):
        kernels.add_moments(samples[begin:end], parts)
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_array_equal(whole, whole.T)


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_rounding_by_moments_loses_least(size: int, bits: int) -> None:
    moments, weights, steps = moments_and_weights(size)
    steps = steps * np.float32(127 / (2 ** (bits - 1) - 1))
    rounded = kernels.round_by_moments(weights, steps, moments, bits)
    nearest = kernels.round_by_moments(weights, steps, moments, bits, sweeps=0)
    np.testing.assert_array_equal(nearest, np.rint(weights / steps[:, None].astype(np.float64)))
    assert rounded.dtype == (np.int8 if bits <= 8 else np.int16)
    least = loss(rounded, weights, steps, moments)
    assert (least <= loss(nearest, weights, steps, moments) * (1 + 1e-9)).all()
    exact = weights / steps[:, None].astype(np.float64)
    lower, upper = np.floor(exact), np.ceil(exact)
    assert ((rounded == lower) | (rounded == upper)).all()
    limit = 2 ** (bits - 1) - 1
    others = np.clip(np.where(rounded == lower, upper, lower), -limit, limit)
    for column in range(size):  # no integer gains by a move of its own
        moved = rounded.astype(np.int64)
        moved[:, column] = others[:, column]
        assert (loss(moved, weights, steps, moments) >= least * (1 - 1e-6) - 1e-12).all()


def test_rounding_is_the_same_everywhere(restored_isa: None) -> None:
    moments, weights, steps = moments_and_weights(70)
    samples = np.random.default_rng(1).standard_normal((37, 70)).astype(np.float32)
    results = set()
    for isa in _native.available_isas():
        _native.set_isa(isa)
        for threads in (1, 2, 7):
            sums = np.zeros((70, 70))
            kernels.add_moments(samples, sums, num_threads=threads)
            rounded = kernels.round_by_moments(weights, steps, moments, num_threads=threads)
            results.add((sums.tobytes(), rounded.tobytes()))
    assert len(results) == 1


def test_bad_moments_are_refused() -> None:
    moments, weights, steps = moments_and_weights(7)
    with pytest.raises(ValueError, match=r"moments .*\[7, 7\]"):
        kernels.round_by_moments(weights, steps, moments[:6, :6].copy())
    with pytest.raises(ValueError, match="step"):
        kernels.round_by_moments(weights, steps[1:], moments)
    with pytest.raises(ValueError, match=r"steps .*finite"):
        kernels.round_by_moments(weights, steps * 0, moments)
    with pytest.raises(ValueError, match="dimensions"):
        kernels.add_moments(weights[0], moments)
    for bad in (np.nan, np.inf):
        moments[2, 3] = bad
        with pytest.raises(ValueError, match="moments must be finite"):
            kernels.round_by_moments(weights, steps, moments)


def test_moments_of_any_rank_and_size_round_to_a_neighbour() -> None:
    _, weights, steps = moments_and_weights(7)
    ones = np.ones((7, 7))
    for moments in (0 * ones, ones, 1e-320 * ones, 1e280 * ones, np.diag(ones[0] * 1e-310)):
        rounded = kernels.round_by_moments(weights, steps, moments)
        exact = weights / steps[:, None].astype(np.float64)
        assert (np.abs(rounded - exact) < 1).all()


SIZES = [(1, 1, 1), (2, 6, 7), (1, 19, 1300), (3, 90, 40)]


def rounded_matrix(groups: int, rows: int, columns: int, along: int) -> tuple[Any, Any, Any]:
    """A matrix, integers of it, and steps for each of its rows, or columns, or for all."""
    generator = np.random.default_rng(rows)
    values = generator.standard_normal((rows, columns)).astype(np.float32)
    shape = [1, 1]
    if along >= 0:
        shape[along] = values.shape[along]
    steps = generator.uniform(0.01, 0.03, shape).astype(np.float32)
    return values, np.rint(values / steps).clip(-128, 127).astype(np.int8), steps


@pytest.mark.parametrize("along", [0, 1, -1])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("groups", "rows", "columns"), SIZES)
def test_mean_errors(
    restored_isa: None, groups: int, rows: int, columns: int, axis: int, along: int
) -> None:
    values, integers, steps = rounded_matrix(groups, rows, columns, along)
    inputs = np.random.default_rng(1).standard_normal(groups * columns if axis == 0 else rows)
    lacking = (values - integers.astype(np.float32) * steps).astype(np.float64)
    by_group = lacking.reshape(groups, -1, columns)
    of_group = inputs.reshape(groups, -1)
    equation = "grc,gc->gr" if axis == 0 else "grc,gr->gc"
    expected = np.einsum(equation, by_group, of_group).reshape(-1)
    seen = set()
    for isa in _native.available_isas():
        _native.set_isa(isa)
        for threads in (1, 2, 7):
            arguments = values, integers, steps, inputs, axis, groups
            found = kernels.mean_errors(*arguments, num_threads=threads)
            seen.add(found.tobytes())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
    assert len(seen) == 1


def test_arrays_may_lie_in_memory_in_any_way() -> None:
    values, integers, steps = rounded_matrix(1, 4, 6, -1)
    inputs = np.random.default_rng(1).standard_normal(12)[::2]
    along = np.broadcast_to(steps, (1, 6))  # one value in memory
    expected = kernels.mean_errors(values, integers, steps, inputs.copy(), 0)
    np.testing.assert_array_equal(kernels.mean_errors(values, integers, along, inputs, 0), expected)
    moments = np.eye(12)[::2, ::2]
    rows = np.broadcast_to(steps[0], 4)
    np.testing.assert_array_equal(
        kernels.round_by_moments(values, rows, moments),
        kernels.round_by_moments(values, rows.copy(), moments.copy()),
    )


def test_bad_mean_errors_are_refused() -> None:
    values, integers, steps = rounded_matrix(1, 4, 6, 0)
    for match, arguments in {
        "integers .*shape": (values, integers[:3], steps, np.ones(6), 0),
        "steps": (values, integers, steps[:2], np.ones(6), 0),
        "4 inputs": (values, integers, steps, np.ones(6), 1),
        "groups": (values, integers, steps, np.ones(6), 0, 3),
        "axis .*0 or 1": (values, integers, steps, np.ones(6), 2),
    }.items():
        with pytest.raises(ValueError, match=match):
            kernels.mean_errors(*arguments)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 32771, 200_000])
def test_sums_of_errors(restored_isa: None, size: int, dtype: Any) -> None:
    generator = np.random.default_rng(size)
    x = (3 + generator.standard_normal(size)).astype(dtype)
    y = x + generator.standard_normal(size).astype(dtype) / 100
    seen = set[kernels.Sums]()
    for isa in _native.available_isas():
        _native.set_isa(isa)
        seen |= {kernels.error_sums(x, y, num_threads=threads) for threads in (1, 2, 7)}
    if dtype == np.float32:
        unaligned = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.float32)
        unaligned[:] = x
        seen.add(kernels.error_sums(unaligned, y.reshape(-1, 1)))
    (found,) = seen
    a, b = x.astype(np.longdouble), y.astype(np.longdouble)
    expected = [term.sum() for term in (a, a * a, (a - b) ** 2, b * b, a * b)]
    np.testing.assert_allclose(found, np.array(expected, np.float64), 1e-12)


def test_bad_sums_of_errors() -> None:
    x = np.ones(9, np.float32)
    x[3] = np.nan
    sums = kernels.error_sums(x, np.ones_like(x))
    assert np.isnan(sums[:3]).all()
    assert sums.other == 9
    with pytest.raises(ValueError, match="9 and 8"):
        kernels.error_sums(x, x[:8])
    for other in (np.ones(9), np.ones(9, np.int32)):
        with pytest.raises(TypeError):
            kernels.error_sums(x, other)


@pytest.mark.parametrize(("groups", "rows", "columns"), SIZES)
def test_sums_and_maxima_of_scaled_rows(
    restored_isa: None, groups: int, rows: int, columns: int
) -> None:
    generator = np.random.default_rng(rows)
    values = generator.standard_normal((groups, rows, columns)).astype(np.float32)
    factors = generator.uniform(-2, 2, (groups, rows))
    small = factors.astype(np.float32)
    seen = set()
    for isa in _native.available_isas():
        _native.set_isa(isa)
        for threads in (1, 2, 7):
            sums = kernels.scaled_square_sums(values, factors, num_threads=threads)
            maxima = kernels.scaled_maxima(values, small, num_threads=threads)
            seen.add((sums.tobytes(), maxima.tobytes()))
    shifted = np.empty(values.nbytes + 1, np.uint8)[1:]
    unaligned = shifted.view(np.float32).reshape(values.shape)
    unaligned[:] = values
    seen.add(
        (
            kernels.scaled_square_sums(unaligned, factors).tobytes(),
            kernels.scaled_maxima(unaligned, small).tobytes(),
        )
    )
    squares = np.square(values, dtype=np.float64)
    np.testing.assert_allclose(sums, np.einsum("grc,gr->gc", squares, factors), 0, atol=1e-11)
    np.testing.assert_array_equal(maxima, np.abs(values * small[:, :, None]).max(axis=1))
    assert len(seen) == 1
    for call, scales in (
        (kernels.scaled_square_sums, factors),
        (kernels.scaled_maxima, small),
    ):
        with pytest.raises(ValueError, match="factors"):
            call(values, np.ones_like(scales, shape=(groups, rows + 1)))
        with pytest.raises(ValueError, match=r"values .*three"):
            call(values[0], scales)


def slow_groups(x: Any, bits: int, search: bool) -> tuple[Any, Any]:
    """Quantize groups as the kernel does it, with its order of float32 operations."""
    levels = np.float32(levels_of(bits))
    extreme = np.take_along_axis(x, np.abs(x).argmax(1, keepdims=True), 1)
    step, gain = np.abs(extreme) / levels, np.zeros_like(extreme)

    def summed(terms: Any) -> Any:
        return np.add.accumulate(terms, 1, np.float32)[:, -1:]

    with np.errstate(all="ignore"):
        mean_square = summed((x * (1 / extreme)) ** 2) / np.float32(x.shape[1])
        for tried in range(5 if search else 0):
            length = levels + np.float32(0.4) * np.float32(tried)
            multiplier = -length / extreme
            t = x * multiplier
            q = np.rint(np.clip(t, -levels - 1, levels))
            weighted = (mean_square * length * length + t * t) * q
            products, squares = summed(weighted * t), summed(weighted * q)
            found = products * products / (squares * (length * length * length * length))
            step = np.where(found > gain, products / (squares * multiplier), step)
            gain = np.maximum(gain, found)
        q = np.rint(np.clip(x * (1 / step), -levels - 1, levels))
    return q.astype(np.int8), step


def unpacked(packed: Any) -> Any:
    """Return int8[outer, size, inner] of what `kernels.quantize_groups` packs."""
    high = packed >> 4
    return np.concatenate([packed - 16 * high - 8, high], axis=1)


GROUPS = [(3, 64, 200), (300, 64, 1), (2, 6, 5), (1, 128, 130), (5, 2, 1)]


@pytest.mark.parametrize("shape", GROUPS)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("search", [False, True])
def test_groups(shape: tuple[int, ...], bits: int, search: bool) -> None:
    x = np.random.default_rng(0).standard_t(3, shape).astype(np.float32)
    integers, steps = kernels.quantize_groups(x, bits, search=search)
    assert (integers.dtype, steps.shape) == (np.int8, (shape[0], 1, shape[2]))
    expected, expected_steps = slow_groups(x, bits, search)
    found = unpacked(integers) if bits == 4 else integers
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(steps, expected_steps)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_search_for_steps_lessens_the_error_to_near_the_least(bits: int) -> None:
    x = np.random.default_rng(0).standard_t(3, (20, 64, 40)).astype(np.float32)

    weights = x**2 + (x**2).mean(1, keepdims=True)

    def squared_error(steps: Any) -> Any:
        q = np.clip(np.rint(x / steps), *(-levels_of(bits) - 1, levels_of(bits)))
        return (weights * (x - q * steps.astype(np.float64)) ** 2).sum(1)

    def error_of(search: bool) -> Any:
        return squared_error(kernels.quantize_groups(x, bits, search=search)[1])

    extreme = np.take_along_axis(x, np.abs(x).argmax(1, keepdims=True), 1)
    finely = (levels_of(bits) + np.linspace(-1, 12, 400)).astype(np.float32)
    least = np.min([squared_error(-extreme / length) for length in finely], axis=0)
    searched, nearest = error_of(True), error_of(False)
    assert searched.sum() < (0.85 if bits == 4 else 0.98) * nearest.sum()
    assert searched.sum() < 1.03 * least.sum()


@pytest.mark.parametrize("bits", [4, 8])
def test_groups_of_zeros_of_extremes_and_of_what_is_not_finite(bits: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 64, 7)).astype(np.float32)
    x[..., 0] = 0
    x[..., 1] *= 1e-33
    x[..., 2] *= np.finfo(np.float32).max / np.abs(x[..., 2]).max()
    x[0, 5, 3] = np.nan
    x[0, 0, 4] = np.inf
    x[0, 63, 5] = -np.inf
    integers, steps = kernels.quantize_groups(x, bits)
    found = unpacked(integers) if bits == 4 else integers
    assert (steps[..., :2] == 1).all()
    assert not found[..., :2].any()
    assert np.isnan(steps[..., 3:6]).all()
    assert np.isfinite(steps[..., 6]).all()
    error = (found[..., 2] * steps[..., 2].astype(np.float64) - x[..., 2]) / x[..., 2].max()
    assert np.abs(error).max() < {4: 0.2, 8: 0.02}[bits]


def test_groups_are_the_same_everywhere_and_for_every_type(restored_isa: None) -> None:
    x = np.random.default_rng(1).standard_normal((700, 64, 3)).astype(np.float32)
    half, brain = x.astype(np.float16), (x.view(np.uint32) >> 16).astype(np.uint16)
    wide = half.astype(np.float32), (brain.astype(np.uint32) << 16).view(np.float32)
    results = set()
    for isa in _native.available_isas():
        _native.set_isa(isa)
        for threads in (1, 2, 7):
            found = []
            for values, dtype in ((half, None), (brain, "bfloat16")):
                found += kernels.quantize_groups(values, dtype=dtype, num_threads=threads)
            results.add(tuple(array.tobytes() for array in found))
    expected = [array.tobytes() for values in wide for array in kernels.quantize_groups(values)]
    assert results == {tuple(expected)}


def test_bad_groups_are_refused() -> None:
    x = np.zeros((2, 6, 5), np.float32)
    for arguments, said in (
        ((x[0],), r"\[outer, size of a group, inner\]"),
        ((x, 5), "4 or 8, got 5"),
        ((x[:, :5],), "even .* got 5"),
        ((np.zeros((1, 1025, 1), np.float32), 8), "1024 values, got 1025"),
    ):
        with pytest.raises(ValueError, match=said):
            kernels.quantize_groups(*arguments)
