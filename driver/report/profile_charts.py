"""The charts of a profile. Needs the extra `plots` (Altair)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, log10, pi, sqrt
from typing import Any

from .html_page import alt
from .tables import short_name

__all__ = ["losses", "memory", "roofline", "traffic", "utilisation"]

WIDTH, BAR, LABEL_LIMIT = 760, 20, 140
ROOFLINE_HEIGHT, NARROW = 360, 300
"""Pixels; the width is that of a phone's page."""
DOTS = 30, 500
"""Areas in square pixels of a layer without cycles and of the largest one."""
LABEL_FONT, LABEL_GAP = 9, 6
COLOURS = {
    "useful": "#2171b5",
    "edge": "#6baed6",
    "weights": "#fdae6b",
    "window": "#f16913",
    "imbalance": "#d6336c",
    "drain": "#b5501f",
    "bus": "#4daf4a",
    "dispatch": "#8c8c8c",
    "tp": "#9467bd",
}
PORT_COLOURS = {"weights": "#fd8d3c", "other reads": "#4daf4a", "writes": "#6baed6"}
KIND_COLOURS = {"activations": "#6baed6", "constants": "#fd8d3c", "descriptors": "#9467bd", "records": "#8c8c8c"}


def losses(report: Mapping[str, Any]) -> alt.Chart:
    """A bar for each layer: useful, edge and lost cycles."""
    values = []
    for layer in _layers(report):
        parts = {"useful": layer["busy_cycles"] - layer["edge_cycles"], "edge": layer["edge_cycles"]} | layer["lost"]
        values += [
            {"layer": _name(layer), "what": what, "cycles": parts[what], "order": order}
            for order, what in enumerate(COLOURS)
        ]
    return _stack(values, "cycles", COLOURS)


def traffic(report: Mapping[str, Any]) -> alt.Chart:
    """A bar for each layer: bytes of weights, other bytes read, bytes written."""
    values = []
    for layer in _layers(report):
        parts = layer["weight_bytes"], layer["read_bytes"] - layer["weight_bytes"], layer["write_bytes"]
        values += [
            {"layer": _name(layer), "what": what, "bytes": part, "order": order}
            for order, (what, part) in enumerate(zip(PORT_COLOURS, parts, strict=True))
        ]
    return _stack(values, "bytes", PORT_COLOURS)


def utilisation(report: Mapping[str, Any]) -> alt.LayerChart:
    """A bar for each layer: its share of the peak; a tick: the share of the cycles in which cores are busy."""
    values = [
        {"layer": _name(layer), "use": layer["utilisation"], "busy": layer["busy_cycles"] / layer["cycles"]}
        for layer in _layers(report)
        if layer["macs"]
    ]
    source = alt.Data(values=values)
    y = alt.Y("layer:N", sort=None, title=None, axis=alt.Axis(labelLimit=LABEL_LIMIT))
    bars = (
        alt.Chart(source)
        .mark_bar(color=COLOURS["useful"])
        .encode(x=alt.X("use:Q", title="utilisation (tick: busy)", axis=alt.Axis(format="%")), y=y)
    )
    ticks = alt.Chart(source).mark_tick(color=COLOURS["window"], thickness=2, size=BAR - 4).encode(x="busy:Q", y=y)
    return (bars + ticks).properties(width=WIDTH, height={"step": BAR})


def roofline(report: Mapping[str, Any]) -> alt.LayerChart:
    """Multiplications per byte of the busier direction of the port, and per cycle, of each layer; the peak and the
    line of the memory port. The layers that take most cycles say how many times their floor they take.
    """
    peak, port_bytes = report["cores"] * report["lanes"], report["port_bits"] // 8
    largest = max((layer["cycles"] for layer in _layers(report)), default=1)
    points = [
        {
            "layer": _name(layer),
            "intensity": layer["macs"] / max(1, layer["read_bytes"], layer["write_bytes"]),
            "speed": layer["macs"] / layer["cycles"],
            "cycles": layer["cycles"],
            "floor": layer["floor_cycles"],
            "times the floor": (times := layer["cycles"] / layer["floor_cycles"]),
            "label": f"{layer['number']}: {times:.2f}",
            "size": DOTS[0] + (DOTS[1] - DOTS[0]) * layer["cycles"] / largest,
        }
        for layer in _layers(report)
        if layer["macs"] and layer["floor_cycles"]
    ]
    ends = [point["intensity"] for point in points] or [1.0]
    low, high = min(*ends, 1.0) / 2, max(*ends, 2 * peak / port_bytes) * 2
    speeds = [point["speed"] for point in points] or [1.0]
    slowest, fastest = 10 ** floor(log10(min(*speeds, port_bytes * low))), 10 ** ceil(log10(max(*speeds, peak)))
    roof = [{"intensity": place, "speed": min(peak, port_bytes * place)} for place in (low, peak / port_bytes, high)]
    x = alt.X("intensity:Q", title="multiplications per byte", scale=alt.Scale(type="log", domain=[low, high]))
    y = alt.Y("speed:Q", title="multiplications per cycle", scale=alt.Scale(type="log", domain=[slowest, fastest]))
    line = alt.Chart(alt.Data(values=roof)).mark_line(color=COLOURS["drain"]).encode(x=x, y=y)
    dots = (
        alt.Chart(alt.Data(values=points))
        .mark_circle(opacity=0.8, color=COLOURS["useful"])
        .encode(
            x=x,
            y=y,
            size=alt.Size("size:Q", scale=None),
            tooltip=["layer:N", "cycles:Q", "floor:Q", "times the floor:Q", "speed:Q", "intensity:Q"],
        )
    )
    labels = (
        alt.Chart(alt.Data(values=_labels(points, ((low, high), (slowest, fastest)))))
        .mark_text(dy=alt.ExprRef("datum.shift"), fontSize=LABEL_FONT)
        .encode(x=x, y=y, text="label:N")
    )
    return (line + dots + labels).properties(width=WIDTH, height=ROOFLINE_HEIGHT)


def _labels(
    points: Sequence[Mapping[str, Any]], domains: tuple[tuple[float, float], tuple[float, float]]
) -> list[dict[str, Any]]:
    """The points that have room for a label, on a page as narrow as a phone, the largest first; `shift` is how far
    above or below them it lies, in pixels.
    """
    found: list[dict[str, Any]] = []
    width, height = log10(domains[0][1] / domains[0][0]), log10(domains[1][1] / domains[1][0])
    dots = [
        (
            NARROW * log10(point["intensity"] / domains[0][0]) / width,
            -ROOFLINE_HEIGHT * log10(point["speed"] / domains[1][0]) / height,
            radius := sqrt(point["size"] / pi),
            radius,
        )
        for point in points
    ]
    taken = list(dots)
    for point, (x, y, radius, _) in sorted(zip(points, dots, strict=True), key=lambda pair: -pair[0]["cycles"]):
        half, high = len(point["label"]) * LABEL_FONT / 3, LABEL_FONT / 2
        for shift in (-radius - LABEL_GAP, radius + LABEL_GAP):
            if all(abs(x - ox) > half + ow or abs(y + shift - oy) > high + oh for ox, oy, ow, oh in taken):
                found.append(dict(point) | {"shift": shift})
                taken.append((x, y + shift, half, high))
                break
    return found


def memory(pieces: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """A bar for each piece of memory, from its first byte to its last."""
    values = [dict(piece) | {"piece": f"{number} {short_name(piece['name'])}"} for number, piece in enumerate(pieces)]
    y = alt.Y("piece:N", sort=None, title=None, axis=alt.Axis(labelLimit=LABEL_LIMIT))
    return (
        alt.Chart(alt.Data(values=values))
        .mark_bar()
        .encode(
            x=alt.X("start:Q", title="address"),
            x2="end:Q",
            y=y,
            color=alt.Color(
                "kind:N", title=None, scale=alt.Scale(domain=list(KIND_COLOURS), range=list(KIND_COLOURS.values()))
            ),
            tooltip=["name:N", "kind:N", "start:Q", "end:Q"],
        )
        .properties(width=WIDTH, height={"step": 14})
    )


def _layers(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [layer for layer in report["layers"] if layer["cycles"]]


def _name(layer: Mapping[str, Any]) -> str:
    return f"{layer['number']} {layer['op']}"


def _stack(values: list[dict[str, Any]], quantity: str, colours: Mapping[str, str]) -> alt.Chart:
    """Horizontal bars of parts in the order of `colours`."""
    colour = alt.Color(
        "what:N", title=None, sort=None, scale=alt.Scale(domain=list(colours), range=list(colours.values()))
    )
    return (
        alt.Chart(alt.Data(values=values))
        .mark_bar()
        .encode(
            x=alt.X(f"sum({quantity}):Q", title=quantity, stack="zero"),
            y=alt.Y("layer:N", sort=None, title=None, axis=alt.Axis(labelLimit=LABEL_LIMIT)),
            color=colour,
            order="order:Q",
            tooltip=["layer:N", "what:N", f"{quantity}:Q"],
        )
        .properties(width=WIDTH, height={"step": BAR})
    )
