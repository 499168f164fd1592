"""Set-up that must come before the first import of Paddle or of a test module."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Paddle's Executor reads a .pdmodel only with PIR switched off.
os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112

# The tests' own helpers first; the checkout, for bench, last, so that its source folder pyquant/
# does not hide the installed package.
sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parent.parent))


@pytest.fixture
def restored_isa():
    """Leave the instruction set as it was."""
    from pyquant import _native

    before = _native.isa()
    yield
    _native.set_isa(before)
