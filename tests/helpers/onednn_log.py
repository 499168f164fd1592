"""What oneDNN ran, by its own log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_RUN = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
import paddle_run
paddle_run.run(Path(sys.argv[2]), {"x": np.load(sys.argv[3])}, sys.argv[4])
"""


class Primitive(NamedTuple):
    """A primitive that was run.

    Attributes:
        kind: such as ``"convolution"``.
        types: of its tensors, as oneDNN writes them.
        channels: of its input and of its output, if it multiplies by a weight.
    """

    kind: str
    types: str
    channels: tuple[int, int] | None

    @property
    def reads_int8(self) -> bool:
        """Whether its source is of 8 bits."""
        return re.search(r"src[^ ]*[us]8:", self.types) is not None

    @property
    def writes_float(self) -> bool:
        """Whether its result is float32."""
        return re.search(r"dst[_:]f32", self.types) is not None


def executed(model_path: Path, data: Any, directory: Path, how: str = "float") -> list[Primitive]:
    """Run a model with one input, "x", in a process of its own; return what oneDNN ran.

    ``how`` is that of `paddle_run.predict`.
    """
    np.save(directory / "data.npy", data)
    arguments = [Path(__file__).parent, model_path, directory / "data.npy", how]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *map(str, arguments)],
        env={**os.environ, "ONEDNN_VERBOSE": "1", "DNNL_VERBOSE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = []
    for kind, rest in re.findall(r"exec,cpu,(\w+),[^,]*,[^,]*,(.*)", done.stdout):
        channels = re.search(r"ic(\d+)oc(\d+)", rest)
        pair = None if channels is None else (int(channels[1]), int(channels[2]))
        found.append(Primitive(kind, rest.split(",")[0], pair))
    return found
