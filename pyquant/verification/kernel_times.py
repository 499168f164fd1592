"""Which kernels of oneDNN a model runs, and how long they take: read from oneDNN's verbose log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..calibration.data import Feed
from ..program.model import Model, copy_model, save_model
from ..program.temporary import temporary_directory

_WARM = "pyquant: warm"

# oneDNN reads its environment once, so the model runs in a process of its own, as it is deployed.
# In the first run, weights are reordered and kernels are made.
_RUN = f"""
import sys
import numpy as np
from pyquant.deployment import make_predictor
from pyquant.program.predictor import run_batch
predictor, feed = make_predictor(sys.argv[1], threads=int(sys.argv[3])), dict(np.load(sys.argv[2]))
run_batch(predictor, feed, 0)
print("{_WARM}", flush=True)
run_batch(predictor, feed, 0)
"""


class KernelTime(NamedTuple):
    """The runs of one kernel of oneDNN for one batch.

    Attributes:
        primitive: what it computes, as ``convolution``.
        implementation: how, as ``jit:avx2``; ``ref:any`` is slow, and computes anything.
        types: of the first input and of the output, as ``u8 -> f32``.
        runs: how many there were.
        milliseconds: of all of them.
    """

    primitive: str
    implementation: str
    types: str
    runs: int
    milliseconds: float

    @property
    def kind(self) -> str:
        """A few words for all kernels of its kind."""
        if self.implementation.startswith("ref"):
            return "reference kernels"
        if self.primitive == "reorder":
            return "reorders"
        return "int8 kernels" if self.types[:2] in ("u8", "s8") else "float kernels"


def kernel_times(model: Model, feed: Feed, threads: int) -> list[KernelTime]:
    """Run a batch by a model as it is deployed; return its kernels, the longest times first.

    They are none if the model does not run, or not by oneDNN.
    """
    with temporary_directory() as directory:
        save_model(copy_model(model), directory / "model", "m.pdmodel", "m.pdiparams")
        inputs, arrays = directory / "inputs.npz", dict[str, Any](feed)
        np.savez(inputs, **arrays)
        return _logged(directory / "model", inputs, threads)


def shares(times: Sequence[KernelTime]) -> str:
    """Say how much of the time is spent in kernels of each kind, as ``reorders 30 %``."""
    total = sum(one.milliseconds for one in times)
    kinds: dict[str, float] = defaultdict(float)
    for one in times:
        kinds[one.kind] += one.milliseconds
    ordered = sorted(kinds.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{kind} {spent / total:.0%}" for kind, spent in ordered)


def _logged(directory: Path, inputs: Path, threads: int) -> list[KernelTime]:
    ran = subprocess.run(
        [sys.executable, "-c", _RUN, directory, inputs, str(threads)],
        env={**os.environ, "ONEDNN_VERBOSE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    _, _, log = ran.stdout.partition(_WARM)
    return parsed(log.splitlines())


def parsed(lines: Iterable[str]) -> list[KernelTime]:
    """Return the kernels of the lines of a log, in the form of oneDNN 2 or 3."""
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for line in lines:
        before, _, after = line.partition(",exec,cpu,")
        fields = after.split(",")
        if before.startswith(("onednn_verbose", "dnnl_verbose")) and len(fields) > _TENSORS:
            primitive, implementation = fields[:2]
            found[primitive, implementation, _types(fields[_TENSORS])].append(float(fields[-1]))
    times = [KernelTime(*kernel, len(spent), sum(spent)) for kernel, spent in found.items()]
    return sorted(times, key=lambda one: -one.milliseconds)


_TENSORS = 3  # the position of the tensors among a line's fields


def _types(tensors: str) -> str:
    types = {role: data_type for role, data_type in re.findall(r"(src|dst)[_:](\w+?)\b", tensors)}
    return f"{types.get('src', '')} -> {types.get('dst', '')}"
