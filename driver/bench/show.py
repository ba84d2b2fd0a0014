"""Rows of a benchmark for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby, pairwise

from rich.console import Console, JustifyMethod

from convoy.driver.report.tables import print_meanings, print_table

from .case import Row
from .contract import RULES

__all__ = ["COLUMNS", "COLUMN_MEANINGS", "markdown", "plain", "print_rows", "verdict"]

COLUMNS = (
    "layer",
    "cycles",
    "use",
    "read B",
    "written B",
    "weights B",
    "baseline's cycles",
    "metric",
    "value",
    "limit",
    "ok",
    "exact",
)
COLUMN_MEANINGS = {
    "use": ("share of the peak of the multipliers, as if no weight were zero: skipped zeros raise it above 100%"),
    "read B, written B, weights B": "bytes over the memory port, of which weights are read",
    "baseline": "the layer that this one is compared with",
    "value": "of the metric",
    "ok": "the value keeps the limit",
    "exact": "every tensor equals LiteRT's",
}
_TEXT = ("layer", "metric")
_OPTIONAL = ("weights B", "written B", "read B", "baseline's cycles", "use", "metric", "cycles", "value", "limit")
"""Columns that a narrow terminal does not get, the first to go first."""
_SIGNS = {True: "yes", False: "NO", None: "-"}


def plain(text: str) -> str:
    """A name of the JSON report as readers see it."""
    return text.replace("twin", "baseline")


def cells(row: Row) -> tuple[str, ...]:
    """One text for each of `COLUMNS`."""
    found, use = row.found, row.found.utilisation(row.case.setup.npu)
    figures = (
        ("-",) * 5
        if found.refusal
        else (
            f"{found.cycles:,}",
            f"{use:.1%}",
            f"{found.read_bytes:,}",
            f"{found.write_bytes:,}",
            f"{found.weight_bytes:,}",
        )
    )
    twin = f"{row.twin.cycles:,}" if row.twin else ""
    exact = found.bit_exact if row.is_exact else False
    return (
        plain(row.case.name),
        *figures,
        twin,
        plain(row.case.metric.name),
        row.value_text,
        row.limit_text,
        _SIGNS[row.ok],
        _SIGNS[exact],
    )


def verdict(rows: list[Row]) -> str:
    """One line about all rows."""
    missed, wrong = sum(not row.ok for row in rows), sum(not row.is_exact for row in rows)
    limits = sum(row.case.limit is not None for row in rows)
    return f"{len(rows)} rows, {limits} with a limit: {missed} missed; {wrong} not bit-exact"


def print_rows(rows: list[Row], console: Console) -> None:
    """A table for each group of each rule."""
    columns: dict[str, JustifyMethod] = {title: "left" if title in _TEXT else "right" for title in COLUMNS}
    for rule, of_rule in groupby(rows, key=lambda row: row.case.rule):
        console.print(f"\n[bold]Rule {rule}: {RULES[rule].title}[/]")
        shown = list(of_rule)
        ends = [number for number, (row, after) in enumerate(pairwise(shown)) if row.case.group != after.case.group]
        print_table(
            console,
            columns,
            [cells(row) for row in shown],
            _OPTIONAL,
            section_ends=ends,
            styles=[None if row.ok and row.is_exact else "bold red" for row in shown],
        )
    for row in rows:
        if row.found.refusal and not row.ok:
            console.print(f"{plain(row.case.name)}: {row.found.refusal}", markup=False, highlight=False, soft_wrap=True)
    console.print()
    print_meanings(console, COLUMN_MEANINGS)
    console.print(f"\n{verdict(rows)}", highlight=False)


def markdown(rows: list[Row], images: Mapping[str, str]) -> list[str]:
    """The same tables in Markdown, as lines; above the table of a group its image, if there is one."""
    lines = []
    for rule, of_rule in groupby(rows, key=lambda row: row.case.rule):
        lines += ["", f"## Rule {rule}: {RULES[rule].title}"]
        for name, group in groupby(of_rule, key=lambda row: row.case.group):
            lines += ["", f"### {name.capitalize()}"]
            lines += ["", f"![{name}]({images[name]})"] if name in images else []
            lines += [
                "",
                f"| {' | '.join(COLUMNS)} |",
                "|" + "|".join("---" if title in _TEXT else "---:" for title in COLUMNS) + "|",
            ]
            lines += [f"| {' | '.join(cells(row))} |" for row in group]
    return lines
