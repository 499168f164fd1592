"""What all rules of folding take."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from ..op import Op


@dataclass(frozen=True)
class Scope:
    """What rules may change.

    Attributes:
        untouched: tensors at which every op stays as it is.
        shifts: whether additions before a linear op go into its bias.
    """

    untouched: Set[str]
    shifts: bool

    def touches(self, op: Op) -> bool:
        """Return whether an op has to stay as it is."""
        return not self.untouched.isdisjoint((*op.reads(), *op.writes()))
