"""Prose of generated Markdown pages."""

from __future__ import annotations

import textwrap

__all__ = ["LINE_COLUMNS", "filled"]

LINE_COLUMNS = 120
"""Longest line of a page, but for rows of tables."""


def filled(text: str, bullet: str = "") -> list[str]:
    """A paragraph as lines of at most `LINE_COLUMNS`, the first one behind `bullet`; words are never cut."""
    return textwrap.wrap(
        text,
        LINE_COLUMNS,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
