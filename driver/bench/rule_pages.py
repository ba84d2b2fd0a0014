"""Figures of the pages about the rules, `docs/rules`: a summary of the contract's tables and their charts, between two
marks in each page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .show import COLUMNS

__all__ = ["BEGIN", "END", "filled_page", "rule_figures"]

BEGIN, END = "<!-- figures: written by make contract -->", "<!-- end of figures -->"
_HEAD = ["| measured | layers | from | to | limit |", "| -- | -: | -: | -: | -: |"]
_RULE, _GROUP, _IMAGE = re.compile(r"## Rule (\d+): .*"), re.compile(r"### (.*)"), re.compile(r"!\[.*\]\((.*)\)")


def rule_figures(contract_page: Iterable[str]) -> dict[int, list[str]]:
    """For each rule, by number, the lines between the marks, out of those of `docs/contract.md`.

    A group of layers becomes its chart and a table: for each metric the least and the largest value, and the limit.
    """
    figures: dict[int, list[str]] = {}
    number, group, image = 0, "", ""
    rows: list[dict[str, str]] = []

    def flush() -> None:
        nonlocal rows, image
        if rows:
            figures[number] += ["", f"**{group}** ([all layers](../contract.md#{_anchor(group)}))"]
            figures[number] += ["", f"![{group}](../{image})"] if image else []
            figures[number] += ["", *_HEAD, *_summary(rows)]
        rows, image = [], ""

    for line in contract_page:
        if match := _RULE.fullmatch(line):
            flush()
            number = int(match[1])
            figures[number] = []
        elif match := _GROUP.fullmatch(line):
            flush()
            group = match[1]
        elif match := _IMAGE.fullmatch(line):
            image = match[1]
        elif number and line.startswith("| ") and not line.startswith(f"| {COLUMNS[0]} |"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows.append(dict(zip(COLUMNS, cells, strict=True)))
    flush()
    return figures


def filled_page(page: str, figures: Iterable[str]) -> str:
    """The page with these lines between its marks.

    Raises
    ------
    ValueError
        When it has not exactly one pair of marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after or END in after:
        raise ValueError(f"the page needs one line {BEGIN!r} and, below it, one line {END!r}")
    return before + "\n".join([BEGIN, *figures, "", END]) + after


def _summary(rows: list[dict[str, str]]) -> Iterator[str]:
    """A row for each metric and limit."""
    for metric, limit in dict.fromkeys((row["metric"], row["limit"]) for row in rows):
        values = [row["value"] for row in rows if (row["metric"], row["limit"]) == (metric, limit)]
        values.sort(key=lambda text: float(text.strip("%").replace(",", "")))
        yield f"| {metric} | {len(values)} | {values[0]} | {values[-1]} | {limit or 'none'} |"


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower())
