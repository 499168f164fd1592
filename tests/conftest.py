"""Paddle reads a .pdmodel in its Executor only with PIR switched off, before it is imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112
sys.path.insert(0, str(Path(__file__).parent))
