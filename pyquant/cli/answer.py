"""What a command answers."""

from __future__ import annotations

from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What a command answers: as text for a reader, and as data for ``--json``.

    Attributes:
        text: what is printed.
        data: of JSON's types; docs/cli.md describes them.
        details: printed as well with ``--verbose``.
        is_met: whether the bars that were given are met.
    """

    text: str
    data: dict[str, Any]
    details: str = ""
    is_met: bool = True
