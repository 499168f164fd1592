"""What each op of a ProgramDesc becomes in ONNX: one row per op type.

A row is a line of text (`elementwise.line`) or a function of a `builder.Step`.
"""

from __future__ import annotations

from . import (
    detection,
    elementwise,
    making,
    numerics,
    products,
    quantized,
    reductions,
    selection,
    shapes,
    windows,
)
from .builder import Rows

TABLE: Rows = {
    **elementwise.ROWS,
    **shapes.ROWS,
    **windows.ROWS,
    **products.ROWS,
    **reductions.ROWS,
    **numerics.ROWS,
    **selection.ROWS,
    **making.ROWS,
    **detection.ROWS,
    **quantized.ROWS,
}
"""The row of each op, by its type in a ProgramDesc."""
