"""Plots of the contract's rows: one chart a group, as images or as one page with the table. Needs the extra `plots`
(Altair).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from convoy.driver.report.html_page import Section, alt, write_page
from convoy.driver.report.tables import meanings_text

from .case import CYCLES, ROOFLINE, TP_SHARE, UTILISATION, Metric, Row
from .contract import RULES
from .show import COLUMN_MEANINGS, COLUMNS, cells, plain, verdict

__all__ = ["charts", "write_html", "write_images"]

WIDTH, HEIGHT = 620, 260
MARGIN = {"left": 70, "right": 70, "top": 5, "bottom": 5}
"""Room for texts in a wider font than the one that their extents were computed for."""
LIMIT_COLOUR = "#c0392b"


def charts(rows: list[Row]) -> dict[str, alt.TopLevelMixin]:
    """A chart for each group that has one, by the group's name."""
    found = {}
    for group, draw in _DRAWINGS.items():
        if of_group := [row for row in rows if row.case.group == group and row.value is not None]:
            found[group] = draw(of_group).properties(padding=MARGIN)
    return found


def write_images(rows: list[Row], folder: Path, suffix: str = "svg") -> dict[str, Path]:
    """An image of each chart, `contract-GROUP.SUFFIX` in `folder`; the files by group."""
    files = {}
    for group, chart in charts(rows).items():
        files[group] = folder / f"contract-{group.replace(' ', '-')}.{suffix}"
        chart.save(files[group])
    return files


def write_html(rows: list[Row], config: str, path: Path) -> None:
    """Tables and charts as one page that needs nothing else."""
    drawn = charts(rows)
    sections = []
    for number, rule in RULES.items():
        of_rule = [row for row in rows if row.case.rule == number]
        figures = [drawn[group] for group in dict.fromkeys(row.case.group for row in of_rule) if group in drawn]
        missed = frozenset(place for place, row in enumerate(of_rule) if not (row.ok and row.is_exact))
        if of_rule:
            sections.append(
                Section(f"Rule {number}: {rule.title}", "", figures, COLUMNS, [cells(row) for row in of_rule], missed)
            )
    write_page(
        path,
        "The contract, measured",
        f"Configuration {config}, RTL simulated cycle by cycle. {verdict(rows)}. "
        f"Columns: {meanings_text(COLUMN_MEANINGS)}",
        sections,
    )


def _data(rows: list[Row], **fields: Callable[[Row], Any]) -> alt.Data:
    """One record a row: its name, value and limit, and what `fields` say."""
    return alt.Data(
        values=[
            {"name": plain(row.case.name), "value": row.value, "limit": row.case.limit, "cycles": row.found.cycles}
            | {name: field(row) for name, field in fields.items()}
            for row in rows
        ]
    )


def _of(rows: list[Row], metric: Metric) -> list[Row]:
    return [row for row in rows if row.case.metric is metric]


def _use(row: Row) -> float | None:
    return row.found.utilisation(row.case.setup.npu)


def _limits(source: alt.Data, mark: str, **encoding: Any) -> alt.Chart:
    """The limit of each row as a tick across its bar or as a rule."""
    chart = alt.Chart(source).transform_filter("datum.limit != null")
    return (
        chart.mark_tick(color=LIMIT_COLOUR, thickness=2, size=18)
        if mark == "tick"
        else chart.mark_line(color=LIMIT_COLOUR, strokeDash=[4, 3])
    ).encode(**encoding)


def _bars(
    rows: list[Row], title: str, style: str = "%", colour: alt.Color | None = None, **fields: Callable[[Row], Any]
) -> alt.LayerChart:
    """A bar for each row, in order, with its limit."""
    source = _data(rows, **fields)
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=300))
    bars = (
        alt.Chart(source)
        .mark_bar(height={"band": 0.7})
        .encode(x=alt.X("bar:Q" if "bar" in fields else "value:Q", title=title, axis=alt.Axis(format=style)), y=y)
    )
    return (bars.encode(color=colour) if colour else bars) + _limits(source, "tick", x="limit:Q", y=y)


def _pads(rows: list[Row]) -> alt.LayerChart:
    rows = _of(rows, CYCLES)
    source = _data(rows)
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=300))
    x = alt.X("value:Q", title="cycles / cycles of the same layer without pads", scale=alt.Scale(domain=[0.98, 1.02]))
    points = alt.Chart(source).mark_point(filled=True, size=70).encode(x=x, y=y)
    return (points + _limits(source, "tick", x="limit:Q", y=y)).properties(width=WIDTH)


def _strides(rows: list[Row]) -> alt.LayerChart:
    shares = {row.case.setup: row.value for row in _of(rows, TP_SHARE)}
    colour = alt.Color(
        "tp:Q", title=TP_SHARE.name, scale=alt.Scale(scheme="tealblues", domain=[0, 1]), legend=alt.Legend(format="%")
    )
    return _bars(
        _of(rows, CYCLES), "cycles / cycles at stride 1", ".1f", colour, tp=lambda row: shares[row.case.setup]
    ).properties(width=WIDTH)


def _channels(rows: list[Row]) -> alt.LayerChart:
    source = _data(rows, channels=lambda row: row.case.setup.layer.num_oc, is_full=lambda row: row.case.twin is None)
    base = alt.Chart(source).encode(
        x=alt.X("channels:Q", title="output channels", axis=alt.Axis(tickMinStep=1)),
        y=alt.Y("cycles:Q", title="cycles"),
    )
    colour = alt.Color("is_full:N", title="multiple of the cores", scale=alt.Scale(range=["#9ecae1", "#2171b5"]))
    return (
        base.mark_line(interpolate="step-before", color="#999")
        + base.mark_point(filled=True, size=60).encode(color=colour)
    ).properties(width=WIDTH, height=HEIGHT)


def _scaling(rows: list[Row]) -> alt.LayerChart:
    source = _data(rows, cores=lambda row: row.case.setup.npu.num_cores)
    x = alt.X("cores:Q", scale=alt.Scale(type="log", base=2), title="cores", axis=alt.Axis(values=[2, 4, 8, 16]))
    y = alt.Y("value:Q", scale=alt.Scale(type="log", base=2), title="times as fast as one core")
    points = alt.Chart(source).mark_line(point={"size": 70}).encode(x=x, y=y)
    ideal = alt.Chart(source).mark_line(color="#999").encode(x=x, y=alt.Y("cores:Q"))
    return (ideal + points + _limits(source, "line", x=x, y="limit:Q")).properties(width=WIDTH, height=HEIGHT)


def _kernels(rows: list[Row]) -> alt.LayerChart:
    colour = alt.Color("shape:N", title="kernel", scale=alt.Scale(range=["#6baed6", "#2171b5"]))
    return _bars(
        rows,
        "utilisation",
        colour=colour,
        bar=_use,
        shape=lambda row: "square" if len(set(row.case.setup.layer.kernel)) == 1 else "not square",
    ).properties(width=WIDTH)


def _utilisations(rows: list[Row]) -> alt.LayerChart:
    return _bars(rows, rows[0].case.metric.name).properties(width=WIDTH)


def _depthwise(rows: list[Row]) -> alt.FacetChart:
    """Utilisation, and the share of the roofline where the memory port is the limit."""
    source = alt.Data(
        values=[
            {
                "name": row.case.name,
                "what": what,
                "value": value,
                "limit": row.case.limit if metric is row.case.metric else None,
            }
            for row in rows
            for what, metric, value in (
                ("utilisation", UTILISATION, _use(row)),
                (ROOFLINE.name, ROOFLINE, _roofline(row)),
            )
        ]
    )
    y = alt.Y("what:N", title=None, sort=None, axis=None)
    bars = (
        alt.Chart(source)
        .mark_bar()
        .encode(
            x=alt.X("value:Q", title=None, axis=alt.Axis(format="%")),
            y=y,
            color=alt.Color("what:N", title=None, sort=None, scale=alt.Scale(range=["#2171b5", "#9ecae1"])),
        )
    )
    layers = alt.layer(bars, _limits(source, "tick", x="limit:Q", y=y)).properties(width=WIDTH, height=36)
    return layers.facet(
        row=alt.Row(
            "name:N",
            sort=[row.case.name for row in rows],
            title=None,
            header=alt.Header(labelOrient="top", labelAnchor="start", labelLimit=320),
        ),
        spacing=6,
    )


def _roofline(row: Row) -> float | None:
    return ROOFLINE.value(row.case.setup, row.found, row.found)


def _sparse(rows: list[Row]) -> alt.LayerChart:
    source = _data(
        rows, density=lambda row: row.case.setup.layer.density, metric=lambda row: plain(row.case.metric.name)
    )
    x = alt.X(
        "density:Q",
        title="share of weights that are not zero",
        axis=alt.Axis(format="%"),
        scale=alt.Scale(domain=[0, 1]),
    )
    lines = (
        alt.Chart(source)
        .mark_line(point={"size": 60})
        .encode(
            x=x,
            y=alt.Y(
                "value:Q",
                title=f"{rows[0].case.group}: share of the ideal",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%"),
            ),
            color=alt.Color("metric:N", title=None, scale=alt.Scale(range=["#2171b5", "#e08214"])),
        )
    )
    return (lines + _limits(source, "line", x=x, y="limit:Q")).properties(width=WIDTH, height=HEIGHT)


def _ratios(rows: list[Row]) -> alt.LayerChart:
    return _bars(_of(rows, CYCLES), plain(CYCLES.name), ".2f").properties(width=WIDTH)


_DRAWINGS: dict[str, Callable[[list[Row]], alt.TopLevelMixin]] = {
    "pads": _pads,
    "strides": _strides,
    "channels": _channels,
    "scaling": _scaling,
    "widths": _utilisations,
    "kernels": _kernels,
    "kernels of stride 2": _kernels,
    "depthwise": _depthwise,
    "sparse 3x3": _sparse,
    "sparse 1x1": _sparse,
    "pools": _ratios,
    "dtypes": _ratios,
}
