"""Looks up tensors in the result of `pyquant.compare`."""

from __future__ import annotations

from pyquant import Comparison
from pyquant.comparison.report import ComparedTensor


def find(comparison: Comparison, name: str, kind: str) -> ComparedTensor:
    (found,) = [t for t in comparison.tensors if (t.name, t.kind) == (name, kind)]
    return found
