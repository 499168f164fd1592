"""Finds the smallest network that still fails, and shows it as a test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from .networks import Plan

Check = Callable[[Plan, Path, Callable[[str], None]], None]
"""Raises an error if a network fails; tells its stages."""
_MOST_TRIALS = 150
_TEST = '''\
from bench.fuzz.cases import check_network
from bench.fuzz.networks import Plan


def test_shrunk(tmp_path):
    """{error}"""
    check_network({plan}, tmp_path)
'''


class _PassedError(Exception):
    """The stage that failed has passed."""


def shrunk_test(plan: Plan, check: Check, work: Path) -> str:
    """Return a test of the smallest network found that fails as ``plan`` does."""
    failure = _failure(plan, check, work, None)
    if failure is None:
        return f"It fails at times only: {plan}"
    stage, kind, text = failure
    trials = 0
    candidates = _smaller(plan)
    while trials < _MOST_TRIALS and (candidate := next(candidates, None)) is not None:
        trials += 1
        found = _failure(candidate, check, work, stage)
        if found is not None and found[:2] == (stage, kind):
            plan, text = candidate, found[2]
            candidates = _smaller(plan)
    said = " ".join(text.split())[:60].replace("\\", "/").replace('"', "'")
    return _TEST.format(error=f"{stage}: {kind}: {said}", plan=plan)


def _failure(plan: Plan, check: Check, work: Path, last: str | None) -> tuple[str, str, str] | None:
    """Return the stage, the type and the text of the error, None if the stage ``last`` passes."""
    stages = ["start"]

    def tell(name: str) -> None:
        if stages[-1] == last:
            raise _PassedError
        stages.append(name)

    directory = Path(tempfile.mkdtemp(dir=work))
    try:
        check(plan, directory, tell)
    except _PassedError:
        return None
    except Exception as error:
        return stages[-1], type(error).__name__, str(error)
    finally:
        shutil.rmtree(directory)
    return None


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Yield networks with less in them, those with the fewest layers first."""
    layers = plan.layers
    size = len(layers) // 2
    while size:
        for start in range(0, len(layers), size):
            yield plan._replace(layers=layers[:start] + layers[start + size :])
        size //= 2
    if plan.other_output is not None:
        yield plan._replace(other_output=None)
    for axis, length in enumerate(plan.shape):
        for less in (1, length // 2, length - 1):
            if 0 < less < length:
                yield plan._replace(shape=(*plan.shape[:axis], less, *plan.shape[axis + 1 :]))
