"""Constant folding: Paddle itself computes once what depends on parameters alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from .. import proto
from ..graph import Graph
from ..op import Op, make_op, replace_ops
from ..op_facts import Fact, has
from ..parameters import Array, write_combined
from ..predictor import cpu_config, run_outputs
from ..running import loading, watch
from ..temporary import temporary_directory
from ..tensor_inputs import use_attributes
from .rule import Scope

# The bytes by which a program may grow when the output of fill_constant, say, replaces the op.
_LARGEST_MADE_OF_NOTHING = 1 << 16
# The values that an op of a given shape may compute: a damaged program may ask for any number.
_MOST_VALUES = 1 << 26


def compute_constants(graph: Graph, scope: Scope) -> set[str]:
    """Replace what is computed from parameters alone by parameters.

    Nothing is replaced if Paddle cannot compute it on a CPU, where it lacks a float16 kernel for
    sqrt, for example: the model may be meant for a GPU.
    """
    constant: set[str] = set(graph.model.parameters)
    made: list[int] = []
    for position, op in sorted(graph.ops.items()):
        if _is_constant(graph, op, constant):
            made.append(position)
            constant.update(op.writes())
    results = [
        name
        for position in made
        for name in graph.ops[position].writes()
        if any(reader not in made for reader in graph.readers(name))
    ]
    if not results:
        return set()
    arrays = _run(graph, [graph.ops[position] for position in made], results)
    if arrays is None:
        return set()
    inputs = {name for position in made for name in graph.ops[position].reads()}
    parameters = graph.model.parameters
    size = sum(parameters[name].nbytes for name in inputs if name in parameters)
    if sum(array.nbytes for array in arrays.values()) > size + _LARGEST_MADE_OF_NOTHING:
        return set()
    for position in made:
        graph.remove(position)
    for name, array in arrays.items():
        graph.make_parameter(name, array)
    return set()


def use_constants(graph: Graph, scope: Scope) -> set[str]:
    """Give ops attributes in place of tensors that are constants by now."""
    for position, op in sorted(graph.ops.items()):
        changed = op.copy()
        if use_attributes(changed, graph.model.parameters.get):
            graph.replace(position, changed)
    return set()


def _is_constant(graph: Graph, op: Op, constant: set[str]) -> bool:
    inputs, outputs = op.reads(), op.writes()
    if not has(op.type, Fact.COMPUTABLE if inputs else Fact.SOURCE):
        return False
    if math.prod(op.ints("shape")) > _MOST_VALUES:
        return False
    known = constant.issuperset(inputs)
    return known and not any(graph.is_kept(name) or name in constant for name in outputs)


def _run(graph: Graph, ops: list[Op], results: list[str]) -> dict[str, Array] | None:
    """Compute ``results`` by a program of ``ops`` alone; return None if Paddle fails."""
    program, parameters = _cut_out(graph, ops, results)
    with temporary_directory() as directory:
        path = directory / "constants.pdmodel"
        path.write_bytes(program.SerializeToString())
        with path.with_suffix(".pdiparams").open("wb") as stream:
            write_combined(stream, parameters)
        arrays = _predict(path)
    return None if arrays is None else dict(zip(results, arrays))


def _cut_out(graph: Graph, ops: list[Op], results: list[str]) -> tuple[Any, dict[str, Array]]:
    whole = graph.model.program
    program = proto.ProgramDesc(version=whole.version)
    block = program.blocks.add(idx=0, parent_idx=-1)
    used = {name for op in ops for name in (*op.reads(), *op.writes())}
    block.vars.extend(var for var in whole.blocks[0].vars if var.name in used)
    proto.add_list_var(block, "fetch", proto.FETCH_LIST)
    fetches = [
        make_op("fetch", {"X": [name]}, {"Out": ["fetch"]}, {"col": column})
        for column, name in enumerate(results)
    ]
    replace_ops(block, [*ops, *fetches])
    parameters = graph.model.parameters
    found = {name: graph.model.made(name) for name in used if name in parameters}
    if not found:  # Paddle 2.6 loads no model without parameters
        proto.add_var(block, "none", proto.FP32, (1,)).persistable = True
        found = {"none": np.zeros(1, np.float32)}
    return program, found


def _predict(path: Path) -> list[Array] | None:
    from paddle import inference

    config = cpu_config(path, path.with_suffix(".pdiparams"))
    config.switch_ir_optim(False)
    try:
        loading()
        predictor = inference.create_predictor(config)
        watch(predictor)
        return run_outputs(predictor, {})
    except Exception:  # Paddle raises many types
        return None
