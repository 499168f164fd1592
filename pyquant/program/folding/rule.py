"""What all rules of folding take."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from ..op import Op


@dataclass(frozen=True)
class Scope:
    """What rules may change."""

    untouched: Set[str]  # the ops that read or write one of these tensors stay as they are
    shifts: bool  # whether additions before a linear op go into its bias

    def touches(self, op: Op) -> bool:
        """Return whether an op has to stay as it is."""
        return not self.untouched.isdisjoint((*op.reads(), *op.writes()))
