"""A report as a table for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["csv_text", "layers_csv"]

LOST = "lost_"
"""Before the name of a cause."""


def layers_csv(report: Mapping[str, Any]) -> str:
    """A line for each operator, those of the CPU too, in the network's order; the first has the names of the report's
    JSON. Cycles that were lost to a cause are in a column of its own.
    """
    rows = [_flat(entry) for entry in (*report["layers"], *report["host_ops"])]
    rows.sort(key=lambda row: [int(part) for part in row["number"].split(".")])
    return csv_text(rows)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; the first line has the names that any of them has, in the order in which they come."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    lost = entry.get("lost") or {}
    row = {name: value for name, value in entry.items() if name != "lost"}
    return {"engine": "cpu"} | row | {f"{LOST}{cause}": cycles for cause, cycles in lost.items()}
