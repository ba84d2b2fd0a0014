"""Prose of generated Markdown pages."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

__all__ = ["LINE_COLUMNS", "bullets", "filled"]

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


def bullets(meanings: Mapping[str, str]) -> list[str]:
    """A list of what names mean."""
    return [line for name, meaning in meanings.items() for line in filled(f"**{name}**: {meaning}", "- ")]
