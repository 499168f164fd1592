"""Where progress is shown: on a terminal, in a notebook, and not where errors alone are wanted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import tqdm.auto

from pyquant.progress import logger, progress_bar

pytestmark = pytest.mark.any_isa


class Bar:
    """Notes whether it was hidden; None leaves that to the kind of stream."""

    hidden: Any = "unknown"

    def __init__(self, items: Iterable[int], disable: bool | None, **_: Any) -> None:
        type(self).hidden = disable
        self._items = items

    def __iter__(self) -> Iterator[int]:
        return iter(self._items)


@pytest.mark.parametrize(
    ("module", "level", "hidden"),
    [
        ("tqdm.asyncio", logging.WARNING, None),
        ("tqdm.notebook", logging.WARNING, False),
        ("tqdm.notebook", logging.ERROR, True),
    ],
)
def test_where_progress_is_shown(
    module: str, level: int, hidden: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bar, "__module__", module)
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    before = logger.level
    logger.setLevel(level)
    try:
        assert list(progress_bar([1, 2], "counting", 2)) == [1, 2]
    finally:
        logger.setLevel(before)
    assert Bar.hidden is hidden
