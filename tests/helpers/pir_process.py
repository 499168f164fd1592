"""Runs a helper script in a process that has PIR switched on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_with_pir(script: str, directory: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "FLAGS_enable_pir_api"}
    command = [sys.executable, str(Path(__file__).parent / script), str(directory)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
