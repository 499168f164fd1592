"""What Ray may fail at, with a stand-in for its cluster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import programs
import pytest

from pyquant import ActivationError, ClusterError, calibrate

pytestmark = pytest.mark.any_isa

exceptions = pytest.importorskip("ray.exceptions")  # an optional extra

BATCHES = [programs.random((1, 3, 8, 8), seed) for seed in range(5)]
BAD = 2
TRACEBACK = "Traceback (most recent call last):\n  File 'x', line 1\nKeyError: 'y'\n"


def cluster(error: Exception, cancelled: list[int], fits: bool = True) -> Any:
    """Return a module whose tasks see nothing; one fails, or cannot be sent."""

    def send(_: Any, number: int, __: Any) -> int:
        if number == BAD and not fits:
            raise error
        return number

    def get(number: int) -> dict[str, Any]:
        if number == BAD:
            raise error
        return {}

    return SimpleNamespace(
        __name__="ray",
        exceptions=exceptions,
        is_initialized=lambda: True,
        put=lambda value: value,
        cluster_resources=lambda: {"CPU": 1},
        remote=lambda **_: lambda _: SimpleNamespace(remote=send),
        get=get,
        cancel=cancelled.append,
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (exceptions.WorkerCrashedError(), "WorkerCrashedError: The worker died unexpectedly"),
        (
            exceptions.OutOfMemoryError("Low on memory.\nMore."),
            r"OutOfMemoryError: Low on memory\)",
        ),
        (exceptions.ObjectLostError("0a", None, ""), "ObjectLostError: Failed to retrieve"),
        (exceptions.RayTaskError("f", TRACEBACK, None), r"\(RayTaskError: KeyError: 'y'\)"),
        (
            exceptions.RayTaskError("f", TRACEBACK, exceptions.RayError("no pickle")),
            r"\(RayError: no pickle\)",
        ),
    ],
)
def test_errors_of_ray_name_the_batch(source: Path, error: Exception, said: str) -> None:
    cancelled: list[int] = []
    with pytest.raises(ClusterError, match=f"^batch 2: .*{said}") as caught:
        calibrate(source, data_loader=BATCHES, engine=cluster(error, cancelled))
    assert caught.value.__cause__ is error
    assert cancelled == [3]


def test_a_batch_that_cannot_be_sent(source: Path) -> None:
    cancelled: list[int] = []
    full = cluster(exceptions.ObjectStoreFullError("full"), cancelled, fits=False)
    with pytest.raises(ClusterError, match=r"^batch 2: .*ObjectStoreFullError: full"):
        calibrate(source, data_loader=BATCHES, engine=full)
    assert cancelled == [1]


def test_no_cluster(source: Path) -> None:
    def init() -> None:
        raise ConnectionError("Could not find any running Ray instance at '1.2.3.4:5'.\nMore.")

    ray = cluster(exceptions.RayError(), [])
    ray.is_initialized, ray.init = (lambda: False), init
    with pytest.raises(ClusterError, match=r"'1\.2\.3\.4:5'.*RAY_ADDRESS"):
        calibrate(source, data_loader=BATCHES, engine=ray)


def test_what_a_task_raised_is_raised(source: Path) -> None:
    raised = ActivationError("activation 'x' is empty")
    error = exceptions.RayTaskError("f", TRACEBACK, raised).as_instanceof_cause()
    with pytest.raises(ActivationError) as caught:
        calibrate(source, data_loader=BATCHES, engine=cluster(error, []))
    assert caught.value is raised
