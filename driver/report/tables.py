"""Tables for the terminal that never cut a figure: where there is no room, whole columns are left out."""

from __future__ import annotations

import io
import sys
from collections.abc import Collection, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

__all__ = ["meanings_text", "print_meanings", "print_table", "short_name", "stdout_console"]

UNLIMITED = 1_000_000
"""Columns of what is not a terminal."""
GAP = 2
"""Blanks between two columns."""
MIN_TEXT = 8
"""Columns of text are folded to no fewer characters than this."""
_UNTELLING = ("ReadVariableOp", "resource")
"""Last parts of names that say nothing of the operator."""
GOOD_TEXT = 32
"""Columns are left out rather than that text is folded to fewer characters than this."""


def short_name(name: str) -> str:
    """A tensor's name for people: converters join all names that an operator ever had, with their scopes."""
    names = [[part for part in one.split("/") if part] for one in name.split(";")]
    parts = next((parts for parts in reversed(names) if parts and parts[-1] not in _UNTELLING), names[0])
    return parts[max(0, len(parts) - 2)] if parts else name


def stdout_console() -> Console:
    """A console on standard output: as wide as the terminal, or without limit where there is none."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return Console(file=sys.stdout or io.StringIO(), width=None if is_terminal else UNLIMITED)


def print_table(
    console: Console,
    columns: Mapping[str, JustifyMethod],
    rows: Sequence[Sequence[str | Text]],
    optional: Sequence[str] = (),
    *,
    styles: Sequence[str | None] | None = None,
    section_ends: Collection[int] = (),
) -> None:
    """Print a table, whole if it fits or if the console is not a terminal.

    Otherwise columns of `optional` are left out, and the line below the table names them. If even that is not enough,
    columns of text are folded, and then the terminal wraps the lines; a figure is never cut.

    Parameters
    ----------
    columns : title -> "left" (text), "right" or "center" (never folded)
    rows : cells in the order of `columns`; `str` is taken literally, without markup
    optional : titles, the first to go first
    styles : of each row
    section_ends : numbers of the rows that are followed by a blank line
    """
    titles, width = list(columns), console.width if console.is_terminal else UNLIMITED
    texts = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    natural = {
        title: max([cell_len(title), *(cell.cell_len for cell in cells)])
        for title, cells in zip(titles, _transposed(texts, len(titles)), strict=True)
    }
    left_out: list[str] = []
    shown = titles
    for title in [*optional, None]:
        shown = [title for title in titles if title not in left_out]
        if title is None or _width(shown, columns, natural, GOOD_TEXT) <= width:
            break
        left_out.append(title)
    least = _width(shown, columns, natural, MIN_TEXT)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0))
    for title in shown:
        is_text = columns[title] == "left"
        table.add_column(
            Text(title),
            justify=columns[title],
            no_wrap=not is_text,
            overflow="fold",
            min_width=min(natural[title], MIN_TEXT) if is_text else natural[title],
        )
    for number, cells in enumerate(texts):
        table.add_row(
            *(cell for title, cell in zip(titles, cells, strict=True) if title not in left_out),
            style=styles[number] if styles else None,
            end_section=number in section_ends,
        )
    lines = console.render_lines(table, console.options.update_width(max(width, least)), pad=False)
    console.print(
        Segments([segment for line in lines for segment in (*_stripped(line), Segment.line())]),
        crop=False,
        end="",
        soft_wrap=True,
    )
    if left_out:
        console.print(
            f"no room for {', '.join(title for title in titles if title in left_out)}",
            style="dim",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def meanings_text(meanings: Mapping[str, str]) -> str:
    """What columns mean, by title, as one sentence."""
    return "; ".join(f"{title}: {meaning}" for title, meaning in meanings.items()) + "."


def print_meanings(console: Console, meanings: Mapping[str, str]) -> None:
    """The line that explains the columns of the tables above it."""
    console.print(meanings_text(meanings), style="dim", highlight=False, markup=False, soft_wrap=True)


def _width(
    shown: Sequence[str], columns: Mapping[str, JustifyMethod], natural: Mapping[str, int], longest_text: int
) -> int:
    """Characters of a line if texts are folded to `longest_text`."""
    return (
        sum(
            (min(natural[title], longest_text) if columns[title] == "left" else natural[title]) + GAP for title in shown
        )
        - GAP
    )


def _stripped(line: Sequence[Segment]) -> list[Segment]:
    """A line without the blanks at its end."""
    kept = list(line)
    while kept and not kept[-1].text.strip():
        kept.pop()
    return [*kept[:-1], Segment(kept[-1].text.rstrip(), kept[-1].style)] if kept else []


def _transposed(rows: Sequence[Sequence[Text]], num_columns: int) -> list[list[Text]]:
    return [[row[number] for row in rows] for number in range(num_columns)]
