"""Chooses what runs the calibration data."""

from __future__ import annotations

from typing import Any

from ..errors import SettingError
from .run import Engine, run_here


def engine_of(engine: Any) -> Engine:
    """Return the engine for None or the module ``ray``; raise SettingError for anything else."""
    if engine is None:
        return run_here
    if getattr(engine, "__name__", None) != "ray":
        raise SettingError(f"engine: {engine!r} is not known. Give None, or the module ray.")
    from .ray_engine import RayEngine

    return RayEngine(engine)
