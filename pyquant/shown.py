"""Text that holds names from files, as it is shown: names may be long, or move the cursor."""

from __future__ import annotations

import re
from html import escape

LONGEST_NAME = 200
_QUOTED = re.compile(rf"'([^'\n]{{{LONGEST_NAME + 1},}})'")


def shown(text: str, newlines: bool = False) -> str:
    """Return text with everything escaped that does not print, such as a terminal's commands.

    Names in quotes are cut in the middle if they are longer than `LONGEST_NAME`. ``newlines`` stay
    if they are wanted.
    """
    kept = "\n" if newlines else ""
    if not text.replace(kept, "").isprintable():
        text = "".join(
            one if one.isprintable() or one == kept else one.encode("unicode_escape").decode()
            for one in text
        )
    return _QUOTED.sub(_cut, text)


def as_html(text: str, wrapped: bool = True) -> str:
    """Return lines of text for a notebook, ``wrapped`` to its width or, as tables, scrolled."""
    style = "white-space: pre-wrap; overflow-wrap: anywhere" if wrapped else "overflow-x: auto"
    return f'<pre style="{style}">{escape(text)}</pre>'


def _cut(found: re.Match[str]) -> str:
    name = found[1]
    half = LONGEST_NAME // 2
    return f"'{name[:half]}...{name[-half:]}'"
