"""Benchmarks of pyquant, beside numpy and the peers. Not part of the installed package."""

import sys
from pathlib import Path

# `python -m bench...` puts the checkout first on sys.path, where the source folder pyquant/, which
# has no compiled module, would hide the installed package: look there last.
_ROOT = str(Path(__file__).parent.parent)
sys.path = [entry for entry in sys.path if entry not in ("", _ROOT)] + [_ROOT]
