"""Matrix products, looking up, recurrent networks."""

from __future__ import annotations

from collections.abc import Sequence

from .builder import Attribute, Rows, Step, rows_of

ROWS: Rows = {}
_rows = rows_of(ROWS)


def _turned(step: Step, variable: str, is_turned: bool) -> str:
    """Return a matrix, or each of many, transposed if asked for."""
    value, rank = step.value(variable), step.rank(variable)
    if not is_turned or rank < 2:
        return value
    return step.transpose(value, [*range(rank - 2), rank - 1, rank - 2])


@_rows("matmul_v2", "matmul")
def _matmul(step: Step) -> None:
    names = (
        ("trans_x", "trans_y") if step.op.type == "matmul_v2" else ("transpose_X", "transpose_Y")
    )
    x, y = (
        _turned(step, variable, step.op.attr(name, False))
        for variable, name in zip(step.op.operands(), names)
    )
    product, alpha = step("MatMul", x, y), step.op.attr("alpha", 1.0)
    if step.op.type == "matmul" and alpha != 1:
        product = step("Mul", product, step.number(alpha))
    step.give("Out", product)


@_rows("mul")
def _mul(step: Step) -> None:
    first, second = step.op.operands()
    x, y = step.value(first), step.value(second)
    columns, rows = step.op.attr("x_num_col_dims", 1), step.op.attr("y_num_col_dims", 1)
    rank, other = step.rank(first), step.rank(second)
    if rows == 1 and other == 2 and columns == rank - 1:  # a batch of rows
        step.give("Out", step("MatMul", x, y))
        return
    flat = step("MatMul", step("Flatten", x, axis=columns), step("Flatten", y, axis=rows))
    before = step.slice(step.shape(x), [0], [columns], [0])
    after = step.slice(step.shape(y), [rows], [other], [0])
    step.give("Out", step("Reshape", flat, step.concat([before, after], 0)))


@_rows("fc")
def _fc(step: Step) -> None:
    x, weight, bias = step.op.input("Input"), step.input("W"), step.optional("Bias")
    if step.op.attr("activation_type", ""):
        raise step.refused("it has an activation")
    if step.op.attr("in_num_col_dims", 1) != step.rank(x) - 1:
        raise step.refused("it flattens its input")
    if step.rank(x) == 2:
        step.give("Out", step("Gemm", step.value(x), weight, bias))
        return
    product = step("MatMul", step.value(x), weight)
    step.give("Out", step("Add", product, bias) if bias else product)


@_rows("bmm", "mv")
def _bmm(step: Step) -> None:
    second = step.input("Vec" if step.op.type == "mv" else "Y")
    step.give("Out", step("MatMul", step.input("X"), second))


@_rows("dot")
def _dot(step: Step) -> None:
    x, y = step.op.operands()
    product = step("Mul", step.value(x), step.value(y))
    last = step.rank(x) - 1
    keeps = step.rank(step.op.output("Out")) == step.rank(x)
    step.give("Out", step.reduce("Sum", product, [last], keepdims=keeps))


@_rows("addmm", "baddbmm")
def _addmm(step: Step) -> None:
    product = step("MatMul", step.input("X"), step.input("Y"))
    parts = []
    for value, name in ((step.input("Input"), "Beta"), (product, "Alpha")):
        factor = step.op.attr(name, 1.0)
        parts.append(step("Mul", value, step.number(factor)) if factor != 1 else value)
    step.give("Out", step("Add", *parts))


@_rows("multi_dot")
def _multi_dot(step: Step) -> None:
    product, *others = step.inputs("X")
    for other in others:
        product = step("MatMul", product, other)
    step.give("Out", product)


@_rows("einsum")
def _einsum(step: Step) -> None:
    equation = step.op.attr("equation", "")
    step.give("Out", step("Einsum", *step.inputs("Operands"), equation=equation))


@_rows("matrix_power")
def _matrix_power(step: Step) -> None:
    power = step.op.attr("n", 1)
    if power < 1:
        raise step.refused(f"its power is {power}")
    product = step.x
    for _ in range(power - 1):
        product = step("MatMul", product, step.x)
    step.give("Out", product)


@_rows("bilinear_tensor_product")
def _bilinear(step: Step) -> None:
    x, y, weight = step.input("X"), step.input("Y"), step.input("Weight")  # [outputs, x, y]
    found = step("Einsum", x, weight, y, equation="ni,oij,nj->no")
    step.give("Out", step("Add", found, step.input("Bias")) if step.op.inputs("Bias") else found)


@_rows("kron")
def _kron(step: Step) -> None:
    x, y = step.op.operands()
    rank = max(step.rank(x), step.rank(y))
    values = []
    for variable in (x, y):
        value = step.unsqueeze(step.value(variable), range(rank - step.rank(variable)))
        values.append(value)
    shape = step("Mul", *(step.shape(value) for value in values))
    wide = step.unsqueeze(values[0], range(1, 2 * rank, 2))
    narrow = step.unsqueeze(values[1], range(0, 2 * rank, 2))
    step.give("Out", step("Reshape", step("Mul", wide, narrow), shape))


@_rows("cross")
def _cross(step: Step) -> None:
    x, y = step.op.operands()
    axis = step.op.attr("dim", 9)
    axis = step.dims(x).index(3) if axis == 9 else axis % step.rank(x)

    def turned(value: str, order: Sequence[int]) -> str:
        return step("Gather", value, step.ints(order), axis=axis)

    first, second = step.value(x), step.value(y)
    left = step("Mul", turned(first, [1, 2, 0]), turned(second, [2, 0, 1]))
    right = step("Mul", turned(first, [2, 0, 1]), turned(second, [1, 2, 0]))
    step.give("Out", step("Sub", left, right))


@_rows("lookup_table_v2", "lookup_table")
def _lookup(step: Step) -> None:
    ids, table = step.op.input("Ids"), step.input("W")
    value = step.value(ids)
    if step.op.type == "lookup_table":
        value = step.squeeze(value, [step.rank(ids) - 1])
    rows = step("Gather", table, value, axis=0)
    padding = step.op.attr("padding_idx", -1)
    if padding != -1:
        is_padding = step("Equal", value, step.number(padding, ids))
        is_padding = step("Unsqueeze", is_padding, step.ints([-1]))
        rows = step("Where", is_padding, step.number(0, step.op.input("W")), rows)
    step.give("Out", rows)


_GATES = {"LSTM": (4, (0, 3, 1, 2)), "GRU": (3, (1, 0, 2))}
"""How many gates, and their order in ONNX as numbers of Paddle's: i f c o, and r z h."""

_ACTIVATIONS = {"RNN_TANH": "Tanh", "RNN_RELU": "Relu"}


@_rows("rnn")
def _rnn(step: Step) -> None:
    """Write each layer as a node. ``WeightList`` has all matrices first, then all biases."""
    op, mode = step.op, step.op.attr("mode", "LSTM")
    layers, hidden = op.attr("num_layers", 1), op.attr("hidden_size", 0)
    ways = 2 if op.attr("is_bidirec", False) else 1
    weights, value = step.inputs("WeightList"), step.input("Input")
    lengths = step.cast(step.input("SequenceLength"), 2) if op.inputs("SequenceLength") else ""
    count = layers * ways
    states = [
        step.many("Split", [one, step.ints([ways] * layers)], layers, axis=0)
        if layers > 1
        else [one]
        for one in step.inputs("PreState")
    ]
    last: list[list[str]] = [[] for _ in states]
    for layer in range(layers):
        first = layer * ways
        inputs = [
            _stacked(step, weights[2 * first + at : 2 * (first + ways) : 2], mode) for at in (0, 1)
        ]
        biases = [
            _bias(step, weights[2 * (count + way) : 2 * (count + way) + 2], mode)
            for way in range(first, first + ways)
        ]
        bias = biases[0] if ways == 1 else step.concat(biases, 0)
        outputs = step.many(
            _type(mode),
            [value, *inputs, bias, lengths, *(one[layer] for one in states)],
            1 + len(states),
            **_settings(mode, hidden, ways),
        )
        for found, one in zip(last, outputs[1:]):
            found.append(one)
        # [time, ways, batch, hidden] -> [time, batch, ways * hidden]
        rows = step.transpose(outputs[0], [0, 2, 1, 3])
        value = step("Reshape", rows, step.ints([0, 0, ways * hidden]))
    step.give("Out", value)
    joined = [found[0] if layers == 1 else step.concat(found, 0) for found in last]
    step.give_all("State", joined)


def _type(mode: str) -> str:
    return "RNN" if mode in _ACTIVATIONS else mode


def _settings(mode: str, hidden: int, ways: int) -> dict[str, Attribute]:
    direction = "bidirectional" if ways == 2 else "forward"
    settings: dict[str, Attribute] = {"hidden_size": hidden, "direction": direction}
    if mode == "GRU":
        settings["linear_before_reset"] = 1
    if mode in _ACTIVATIONS:
        settings["activations"] = [_ACTIVATIONS[mode]] * ways
    return settings


def _in_order(step: Step, value: str, mode: str) -> str:
    """Return the gates of a matrix or a bias in ONNX's order."""
    if mode not in _GATES:
        return value
    count, order = _GATES[mode]
    gates = step.many("Split", [value, ""], count, axis=0)
    if step.opset >= _SPLIT_BY_NUMBER:
        step.builder.nodes[-1].attributes = {"axis": 0, "num_outputs": count}
    return step.concat([gates[at] for at in order], 0)


_SPLIT_BY_NUMBER = 18


def _stacked(step: Step, matrices: Sequence[str], mode: str) -> str:
    rows = [step.unsqueeze(_in_order(step, one, mode), [0]) for one in matrices]
    return rows[0] if len(rows) == 1 else step.concat(rows, 0)


def _bias(step: Step, pair: Sequence[str], mode: str) -> str:
    both = step.concat([_in_order(step, one, mode) for one in pair], 0)
    return step.unsqueeze(both, [0])
