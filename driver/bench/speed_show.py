"""Speeds of networks for the terminal, as Markdown, and as a page of charts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from convoy.driver.report.tables import meanings_text, print_meanings, print_table

from .peer import INSTALL
from .speed import Speed

if TYPE_CHECKING:
    from convoy.driver.report.html_page import alt

__all__ = ["column_meanings", "markdown_speeds", "print_speeds", "speed_charts", "speed_notes", "write_speed_page"]

COLUMNS = ("network", "config", "peak MAC/cycle", "MACs", "cycles", "use", "MAC/cycle", "exact")
PEER_COLUMNS = ("U55 cycles", "U55 use", "U55 MAC/cycle", "U55 / Convoy", "U55 CPU cycles")
_OPTIONAL = (
    "U55 CPU cycles",
    "U55 MAC/cycle",
    "U55 use",
    "MAC/cycle",
    "MACs",
    "peak MAC/cycle",
    "use",
    "U55 cycles",
    "U55 / Convoy",
    "exact",
)
"""Columns that a narrow terminal does not get, the first to go first."""
_SIGNS = {True: "yes", False: "NO", None: "-"}
_MEANINGS = {
    "peak MAC/cycle": "the multipliers",
    "MACs": "multiply-accumulates as if no weight were zero",
    "use": "MACs / (cycles x multipliers), which skipped zeros raise",
    "MAC/cycle": "MACs / cycles",
    "exact": "every tensor equals LiteRT's",
}
_PEER_MEANINGS = {
    "U55": (
        "what Arm's compiler Vela estimates for an Ethos-U55 with as many multipliers, weights and activations behind "
        "one port of the same width and latency"
    ),
    "U55 / Convoy": "above 1 Convoy is faster",
    "U55 CPU cycles": "those of operators that Convoy leaves to the CPU, not part of U55 cycles",
}


def column_meanings(rows: Sequence[Speed]) -> dict[str, str]:
    """What the columns of the table mean, by title."""
    return _MEANINGS | (_PEER_MEANINGS if _has_peer(rows) else {})


def _has_peer(rows: Sequence[Speed]) -> bool:
    return any(row.peer for row in rows)


def _columns(rows: Sequence[Speed]) -> tuple[str, ...]:
    return COLUMNS + PEER_COLUMNS * _has_peer(rows)


def _figures(row: Speed, cycles: int) -> tuple[str, str, str]:
    """Cycles, utilisation and multiply-accumulates per cycle."""
    use, effective = row.utilisation(cycles), row.effective_macs(cycles)
    return (
        f"{cycles:,}" if cycles else "-",
        "-" if use is None else f"{use:.1%}",
        "-" if effective is None else f"{effective:.1f}",
    )


def _cells(row: Speed, has_peer: bool) -> list[str]:
    cells = [
        row.network,
        row.config,
        str(row.macs_per_cycle),
        f"{row.macs:,}" if row.macs else "-",
        *_figures(row, row.cycles),
        _SIGNS[row.bit_exact],
    ]
    if has_peer:
        cells += [
            *_figures(row, row.peer_cycles),
            "-" if row.ratio is None else f"{row.ratio:.2f}",
            f"{row.peer.host_cycles:,}" if row.peer and row.peer_cycles else "-",
        ]
    return cells


def speed_notes(rows: Sequence[Speed], has_program: bool) -> list[str]:
    """What the table does not say, a line each."""
    lines = [f"{row.network}, {row.config}: {row.refusal}" for row in rows if row.refusal]
    lines += [
        f"{row.network}, {row.config}: {'not compared; ' if row.bit_exact is None else ''}{row.reference_note}"
        for row in rows
        if row.reference_note
    ]
    lines += [f"{row.network}, {row.config}: {row.peer.refusal}" for row in rows if row.peer and row.peer.refusal]
    return lines if has_program else [*lines, INSTALL]


def print_speeds(rows: Sequence[Speed], console: Console) -> None:
    """The table, and what its columns mean."""
    print_table(
        console,
        {title: "left" if title == "network" else "right" for title in _columns(rows)},
        [_cells(row, _has_peer(rows)) for row in rows],
        _OPTIONAL,
        styles=["bold red" if row.bit_exact is False or row.refusal else None for row in rows],
    )
    print_meanings(console, column_meanings(rows))


def markdown_speeds(rows: Sequence[Speed]) -> list[str]:
    """The table as lines."""
    columns = _columns(rows)
    return [
        f"| {' | '.join(columns)} |",
        "|---" + "|---:" * (len(columns) - 1) + "|",
        *(f"| {' | '.join(_cells(row, _has_peer(rows)))} |" for row in rows),
    ]


def speed_charts(rows: Sequence[Speed]) -> list[alt.TopLevelMixin]:
    """Cycles of each network, and multiply-accumulates per cycle, by configuration and machine."""
    from convoy.driver.report.html_page import alt

    values = [
        {
            "network": row.network,
            "size": row.macs_per_cycle,
            "machine": machine,
            "cycles": cycles,
            "effective": row.effective_macs(cycles),
        }
        for row in rows
        for machine, cycles in (("Convoy", row.cycles), ("Ethos-U55, estimated", row.peer_cycles))
        if cycles
    ]
    networks = list(dict.fromkeys(row.network for row in rows))
    charts = []
    for field, title in (("cycles", "cycles"), ("effective", "MACs per cycle")):
        bars = (
            alt.Chart(alt.Data(values=values))
            .mark_bar()
            .encode(
                x=alt.X("size:O", title="multipliers", axis=alt.Axis(labelAngle=0)),
                xOffset=alt.XOffset("machine:N"),
                y=alt.Y(f"{field}:Q", title=title),
                color=alt.Color(
                    "machine:N",
                    title=None,
                    scale=alt.Scale(range=["#2171b5", "#e08214"]),
                    legend=alt.Legend(orient="top"),
                ),
            )
        )
        charts.append(
            bars.properties(width=280, height=220)
            .facet(alt.Facet("network:N", title=None, sort=networks), columns=4)
            .resolve_scale(y="independent")
        )
    return charts


def write_speed_page(rows: Sequence[Speed], source: str, notes: Sequence[str], path: Path) -> None:
    """Table and charts as one page that needs nothing else; `source` says where Convoy's cycles are from."""
    from convoy.driver.report.html_page import Section, write_page

    missed = frozenset(place for place, row in enumerate(rows) if row.bit_exact is False or row.refusal)
    cells = [_cells(row, _has_peer(rows)) for row in rows]
    write_page(
        path,
        "Speed of networks",
        f"{source} {meanings_text(column_meanings(rows))}",
        [Section("Networks", " ".join(notes), speed_charts(rows), _columns(rows), cells, missed)],
    )
