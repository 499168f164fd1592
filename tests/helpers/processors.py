"""The processor that runs the tests, and which results are right on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

# Without VNNI, oneDNN adds pairs of products in 16 bits, which may saturate.
HAS_VNNI = "vnni" in Path("/proc/cpuinfo").read_text() and os.environ.get(
    "ONEDNN_MAX_CPU_ISA", "ALL"
).upper() not in ("SSE41", "AVX", "AVX2", "AVX512_CORE")


def needs_vnni() -> None:
    """Skip a test of ``processors="vnni"`` on a processor without VNNI."""
    if not HAS_VNNI:
        pytest.skip("int8 convolutions of QDQ are for processors with VNNI alone")


def deployed(backend: str) -> dict[str, Any]:
    """Return the arguments for the form of ``backend``, with everything in int8 that it allows."""
    return {"deploy_backend": backend, "processors": "vnni" if backend == "QDQ" else "any"}


QDQ = deployed("QDQ")
