"""How far an int8 run is from its simulation, op by op."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle_run

from pyquant import Model, save_model
from pyquant.program import proto
from pyquant.program.op import make_op, ops_of, replace_ops
from pyquant.program.targets.onednn.read_scales import read_grids
from pyquant.program.targets.onednn.simulation import simulate


@dataclass
class Disagreement:
    """How an int8 run differs from the simulation.

    Attributes:
        tensors: the number of tensors whose integers were compared.
        furthest: the largest difference of two integers.
        share: the largest share of a tensor's integers that differ, beyond a single one.
        output: the largest relative error of an output.
    """

    tensors: int
    furthest: int
    share: float
    output: float

    @property
    def is_rounding(self) -> bool:
        """Whether it is only that values between two integers are rounded to the other one."""
        return self.furthest <= 1 and self.share < 1e-3 and self.output < 2e-5


def disagreement(
    run: Model, simulated: Model, feed: paddle_run.Arrays, directory: Path
) -> Disagreement:
    """Run ``run`` by oneDNN, and the simulation of ``simulated``, another model of the same ops.

    A number that is rounded the other way changes all that follows. So every simulated op gets the
    integers of the run, and is judged by its own outputs.

    Args:
        run: a model of oneDNN's int8 ops, as read from its files.
        simulated: likewise.
        feed: a batch.
        directory: where the simulation is written to.
    """
    grids = read_grids(run)
    outputs, integers = paddle_run.observe(
        run.model_path, run.params_path, feed, set(grids), "float"
    )
    assert integers.keys() == grids.keys()
    assert {array.dtype.name for array in integers.values()} <= {"int8", "uint8"}
    simulation = simulate(simulated)
    known = {var.name for var in simulation.program.blocks[0].vars}
    names = {name: f"{name}.integers" if f"{name}.integers" in known else name for name in grids}
    given = _give(simulation, list(names.values()))
    paths = save_model(simulation, directory, "m.pdmodel", "m.pdiparams")
    fed = {given[names[name]]: array.astype(np.float32) for name, array in integers.items()}
    expected, made = paddle_run.observe(*paths[:2], {**feed, **fed}, set(names.values()))
    furthest, share = 0, 0.0
    for name, array in integers.items():
        difference = np.abs(array.astype(np.float32) - made[names[name]])
        furthest = max(furthest, int(difference.max()))
        share = max(share, (np.count_nonzero(difference) - 1) / difference.size)
    errors = [paddle_run.relative_error(*pair) for pair in zip(outputs, expected)]
    return Disagreement(len(grids), furthest, share, max(errors))


def _give(model: Model, names: list[str]) -> dict[str, str]:
    """Let the readers of ``names`` read inputs instead; return the inputs by these names."""
    block = model.program.blocks[0]
    dims, first = model.dims(), len(model.feeds)
    given = {name: f"{name}.given" for name in names}
    ops: list[Any] = []
    for column, (name, other) in enumerate(given.items(), first):
        proto.add_var(block, other, proto.FP32, dims[name])
        ops.append(make_op("feed", {"X": ["feed"]}, {"Out": [other]}, {"col": column}))
    for op in ops_of(block):
        op.rename_inputs(given)
        ops.append(op.copy())
    replace_ops(block, ops)
    return given
