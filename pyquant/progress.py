"""What pyquant tells while it works: progress, and lines for the logger ``pyquant``."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

logger = logging.getLogger("pyquant")
if logger.level == logging.NOTSET:
    logger.setLevel(logging.WARNING)  # Paddle prints all that is of level INFO


def progress_bar(
    items: Iterable[Item], description: str, total: int | None, initial: int = 0
) -> Iterator[Item]:
    """Yield items, and show how many there were: on a terminal, and in a notebook.

    Nothing is shown if the logger ``pyquant`` does not even take warnings.
    """
    from tqdm.auto import tqdm

    # None shows it on a terminal alone. A notebook is none; tqdm has a class of its own for it.
    in_notebook = any("notebook" in kind.__module__ for kind in tqdm.__mro__)
    hidden = False if in_notebook else None
    if not logger.isEnabledFor(logging.WARNING):
        hidden = True
    yield from tqdm(
        items, desc=description, unit="batch", total=total, initial=initial, disable=hidden
    )
