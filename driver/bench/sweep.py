"""A network on many configurations of the NPU: cycles, time and what each configuration is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, JustifyMethod

from convoy.driver.bench.area import area_model, estimate_area
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.errors import GraphError
from convoy.driver.graph.graph import Graph
from convoy.driver.report.config_report import config_report
from convoy.driver.report.csv_table import csv_text
from convoy.driver.report.deployment import Clock, placed_clock
from convoy.driver.report.report import estimate_report
from convoy.driver.report.tables import meanings_text, print_meanings, print_table
from convoy.driver.runtime.device import MemoryModel
from convoy.spec.config import ConfigError, NpuConfig, value_text

__all__ = ["Point", "configurations", "mark_best", "points_csv", "print_points", "records", "sweep", "write_sweep_page"]

NUM_TICKS = 6
MOST_POINTS = 1000
"""Configurations of one sweep."""


@dataclass(frozen=True)
class Point:
    """A configuration and what a network costs on it."""

    parameters: dict[str, int]
    """Those that were varied."""
    multipliers: int
    memory_bytes: int
    """In the NPU: stripes, windows, accumulators, queues, lines of pools, buffer of the tensor processor."""
    cycles: int | None
    milliseconds: float | None
    bytes_per_inference: int | None
    """Over the memory port, per inference."""
    utilisation: float | None
    lut4: int | None = None
    sites: int | None = None
    block_rams: int | None = None
    dsp_blocks: int | None = None
    """Estimates for a Lattice ECP5, see `Area`."""
    refusal: str | None = None
    """Why the configuration is illegal, or the network does not run on it."""
    is_best: bool = False
    """No other has fewer cycles with as few sites of look-up tables and as few block memories."""


def configurations(base: NpuConfig, settings: Sequence[str]) -> list[tuple[dict[str, int], NpuConfig | str]]:
    """Every combination of values, each with its configuration, or why it is illegal.

    Parameters
    ----------
    settings : `name=value,value...` with the names of `NpuConfig`

    Raises
    ------
    GraphError
        When a setting is not of that form, names no parameter or one twice, or there are too many combinations.
    """
    known, chosen = [field.name for field in fields(NpuConfig)], dict[str, list[int]]()
    for setting in settings:
        name, separator, text = setting.partition("=")
        values = [value.strip() for value in text.split(",")]
        if not separator or not all(_is_value(value) for value in values):
            raise GraphError(
                f"--set {setting}: give PARAMETER=VALUE,VALUE..., such as num_cores=1,2,4 or has_int16=true,false"
            )
        if name not in known or name in chosen:
            problem = "is given twice" if name in chosen else f"is no parameter; there are {', '.join(known)}"
            raise GraphError(f"--set {setting}: {name!r} {problem}")
        chosen[name] = list(dict.fromkeys(map(_value, values)))
    number = 1
    for numbers in chosen.values():
        number *= len(numbers)
    if not chosen or number > MOST_POINTS:
        raise GraphError(f"{number if chosen else 'no'} configurations; give --set for 1 to {MOST_POINTS} of them")
    found: list[tuple[dict[str, int], NpuConfig | str]] = []
    for combination in product(*chosen.values()):
        parameters = dict(zip(chosen, combination, strict=True))
        try:
            found.append((parameters, base.with_(**parameters)))
        except ConfigError as error:
            found.append((parameters, str(error)))
    return found


_WORDS = {"true": True, "false": False}


def _is_value(text: str) -> bool:
    return text in _WORDS or (text.isdecimal() and len(text) < 10)


def _value(text: str) -> int:
    return _WORDS[text] if text in _WORDS else int(text)


def sweep(
    graph: Graph,
    choices: Sequence[tuple[dict[str, int], NpuConfig | str]],
    memory: MemoryModel,
    clock: Clock | None,
    executor: Executor,
    on_done: Callable[[int], None] = lambda done: None,
) -> list[Point]:
    """A point for each choice, in order, estimated by the workers of `executor`; `on_done` is called with the number
    that is done.

    Raises
    ------
    GraphError
        When none is legal and runs the network.
    """
    futures = {
        executor.submit(_point, graph, parameters, config, memory, clock): number
        for number, (parameters, config) in enumerate(choices)
    }
    points: dict[int, Point] = {}
    try:
        for future in as_completed(futures):
            points[futures[future]] = future.result()
            on_done(len(points))
    finally:
        for future in futures:
            future.cancel()
    if all(point.refusal for point in points.values()):
        raise GraphError(f"nothing to compare: {points[0].refusal}")
    return mark_best([points[number] for number in range(len(choices))])


def _point(
    graph: Graph, parameters: dict[str, int], config: NpuConfig | str, memory: MemoryModel, clock: Clock | None
) -> Point:
    if isinstance(config, str):
        return Point(parameters, 0, 0, None, None, None, None, refusal=config)
    sizes, area = (config.macs_per_cycle, _memory_bytes(config)), {}
    if (estimated := estimate_area(config)) is not None:
        area = asdict(estimated)
    try:
        plan = compile_graph(graph, config)
    except GraphError as error:
        return Point(parameters, *sizes, None, None, None, None, **area, refusal=str(error))
    report = estimate_report(plan, memory, model=graph.name, config=config.name, clock=clock or placed_clock(config))
    figures = ("cycles", "milliseconds", "bytes_per_inference", "utilisation")
    return Point(parameters, *sizes, *(report[name] for name in figures), **area)


def _memory_bytes(config: NpuConfig) -> int:
    derived = config_report(config)["derived"]
    return (
        config.stripe_bytes
        + config.tp_buffer_bytes
        + config.pool_channels * config.pool_line_bytes // 2 * config.has_fused_pool
        + derived["window_bytes"]
        + derived["accumulator_bytes"]
        + derived["weight_fifo_bytes"]
    )


def _has_area(points: Sequence[Point]) -> bool:
    """Is the area of all known that run the network?"""
    return all(point.sites is not None for point in points if point.cycles is not None)


def mark_best(points: Sequence[Point]) -> list[Point]:
    """The points, those marked that no other one is better than: fewer cycles, or as many with fewer sites or fewer
    block memories; where not all of these are known, fewer multipliers or less memory.
    """
    has_area = _has_area(points)

    def sizes(point: Point) -> tuple[int, int, int]:
        if has_area:
            return point.cycles or 0, point.sites or 0, point.block_rams or 0
        return point.cycles or 0, point.multipliers, point.memory_bytes

    def beats(one: Point, other: Point) -> bool:
        pairs = list(zip(sizes(one), sizes(other), strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    ran = [point for point in points if point.cycles is not None]
    return [
        replace(point, is_best=point.cycles is not None and not any(beats(other, point) for other in ran))
        for point in points
    ]


_MEANINGS = {
    "multipliers": "multiply-accumulates per cycle at most",
    "memory B": "in the NPU",
    "sites": "of LUTs that LUT4s, carry cells and distributed memories take on a Lattice ECP5",
    "BRAM, DSP": "block memories of 16 Kbit and multipliers of 18 bits of an ECP5",
    "port B": "over the memory port, per inference",
    "use": "share of the multipliers' peak",
    "best": "no other configuration has fewer cycles with as few sites and block memories",
}
_AREA = {"LUT4 (estimate)": "lut4", "sites": "sites", "BRAM": "block_rams", "DSP": "dsp_blocks"}
"""Columns of the area."""


def area_error() -> str:
    """How far estimates of the area are off."""
    titles = ("LUT4", "sites", "BRAM", "DSP")
    errors = (
        f"{title} {found.mean_error:.1%} on average, {found.max_error:.1%} at most"
        for title, found in zip(titles, area_model().values(), strict=True)
    )
    known = "mapped configurations that share their terms with others, each left out of the fit"
    return f"Estimates of the area are off by: {'; '.join(errors)} (of {known})."


def _area_cells(point: Point) -> list[str]:
    values = (getattr(point, field) for field in _AREA.values())
    return ["-" if value is None else f"{value:,}" for value in values]


def _table(points: Sequence[Point]) -> tuple[dict[str, JustifyMethod], list[list[str]]]:
    """Columns and rows; a column of refusals if there are any."""
    names = list(points[0].parameters)
    columns: dict[str, JustifyMethod] = dict.fromkeys(
        (*names, "multipliers", "memory B", *_AREA, "cycles", "ms", "port B", "use"), "right"
    )
    columns |= {"best": "center", "remark": "left"}
    rows = [
        [
            *(value_text(point.parameters[name]) for name in names),
            f"{point.multipliers:,}" if point.multipliers else "-",
            f"{point.memory_bytes:,}" if point.memory_bytes else "-",
            *_area_cells(point),
            "-" if point.cycles is None else f"{point.cycles:,}",
            "-" if point.milliseconds is None else f"{point.milliseconds:,.3f}",
            "-" if point.bytes_per_inference is None else f"{point.bytes_per_inference:,}",
            "-" if point.utilisation is None else f"{point.utilisation:.1%}",
            "*" if point.is_best else "",
            point.refusal or "",
        ]
        for point in points
    ]
    if not any(point.refusal for point in points):
        del columns["remark"]
        rows = [row[:-1] for row in rows]
    return columns, rows


def print_points(points: Sequence[Point], console: Console) -> None:
    """The points as a table."""
    columns, rows = _table(points)
    print_table(console, columns, rows, ("port B", "use", "memory B", "multipliers"))
    print_meanings(console, _MEANINGS)
    console.print(area_error())


def records(points: Sequence[Point]) -> list[dict[str, Any]]:
    """The points for JSON."""
    return [asdict(point) for point in points]


def points_csv(points: Sequence[Point]) -> str:
    """The points as CSV, a column for each parameter that was varied."""
    return csv_text([point.pop("parameters") | point for point in records(points)])


def _ticks(values: Sequence[int]) -> list[float]:
    """About so many numbers of two digits as a logarithmic axis has room for; Vega leaves most of them unlabelled."""
    places = np.geomspace(max(min(values), 1), max(values), NUM_TICKS)
    return sorted({float(f"{place:.1e}") for place in places})


def write_sweep_page(path: Path, model: str, points: Sequence[Point]) -> None:
    """Cycles over sites of LUTs, or multipliers where an area is not known, the best ones joined by a line, and the
    table; needs the extra `plots`.
    """
    from convoy.driver.report.html_page import Section, alt, write_page

    ran = [point for point in points if point.cycles is not None]
    size, title = ("sites", "sites of LUTs on an ECP5 (estimate)") if _has_area(ran) else ("multipliers",) * 2
    values = [
        asdict(point)
        | {
            "label": ", ".join(f"{name} {value_text(value)}" for name, value in point.parameters.items()),
            "kind": "best" if point.is_best else "others",
        }
        for point in ran
    ]
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X(
            f"{size}:Q",
            scale=alt.Scale(type="log", nice=False, padding=30),
            axis=alt.Axis(values=_ticks([getattr(point, size) for point in ran])),
            title=title,
        ),
        y=alt.Y(
            "cycles:Q",
            scale=alt.Scale(type="log", nice=False, padding=20),
            axis=alt.Axis(values=_ticks([point.cycles or 0 for point in ran])),
            title="cycles",
        ),
    )
    dots = base.mark_circle(size=90, opacity=1).encode(
        color=alt.Color(
            "kind:N", title=None, sort=None, scale=alt.Scale(domain=["best", "others"], range=["#2171b5", "#999999"])
        ),
        tooltip=["label:N", "cycles:Q", "lut4:Q", "sites:Q", "block_rams:Q", "dsp_blocks:Q", "milliseconds:Q"],
    )
    front = base.transform_filter("datum.is_best").mark_line(color="#2171b5", opacity=0.4)
    columns, rows = _table(points)
    write_page(
        path,
        f"{Path(model).name} on {len(points)} configurations",
        f"Cycles are estimates of the timing model. {area_error()} Hover over a dot for its parameters.",
        [
            Section("Cycles and area", "", [(front + dots).properties(width=560, height=320)]),
            Section("Configurations", meanings_text(_MEANINGS), (), tuple(columns), rows),
        ],
    )
