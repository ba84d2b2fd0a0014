"""The charts of a profile. Needs the extra `plots` (Altair)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

from .html_page import alt
from .tables import short_name

__all__ = ["losses", "memory", "roofline", "traffic", "utilisation"]

WIDTH, BAR, LABEL_LIMIT = 760, 20, 140
ROOFLINE_HEIGHT, NARROW = 360, 300
"""Pixels; the width is that of a phone's page."""
LABEL_FONT, LABEL_SHIFTS = 9, (-11, 13)
COLOURS = {
    "useful": "#08519c",
    "edge": "#6baed6",
    "weights": "#fdd0a2",
    "window": "#fdae6b",
    "imbalance": "#f16913",
    "drain": "#a63603",
    "bus": "#74c476",
    "dispatch": "#969696",
    "tp": "#9e9ac8",
}
PORT_COLOURS = {"weights": "#fd8d3c", "other reads": "#74c476", "writes": "#6baed6"}
KIND_COLOURS = {"activations": "#6baed6", "constants": "#fd8d3c", "descriptors": "#9e9ac8", "records": "#969696"}


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
    ticks = alt.Chart(source).mark_tick(color=COLOURS["drain"], thickness=2, size=BAR - 4).encode(x="busy:Q", y=y)
    return (bars + ticks).properties(width=WIDTH, height={"step": BAR})


def roofline(report: Mapping[str, Any]) -> alt.LayerChart:
    """Multiplications per byte of the busier direction of the port, and per cycle, of each layer; the peak and the
    line of the memory port. The layers that take most cycles say how many times their floor they take.
    """
    peak, port_bytes = report["cores"] * report["lanes"], report["port_bits"] // 8
    points = [
        {
            "layer": _name(layer),
            "intensity": layer["macs"] / max(1, layer["read_bytes"], layer["write_bytes"]),
            "speed": layer["macs"] / layer["cycles"],
            "cycles": layer["cycles"],
            "floor": layer["floor_cycles"],
            "times the floor": (times := layer["cycles"] / layer["floor_cycles"]),
            "label": f"{layer['number']}: {times:.2f}",
        }
        for layer in _layers(report)
        if layer["macs"] and layer["floor_cycles"]
    ]
    ends = [point["intensity"] for point in points] or [1.0]
    low, high = min(*ends, 1.0) / 2, max(*ends, 2 * peak / port_bytes) * 2
    roof = [{"intensity": place, "speed": min(peak, port_bytes * place)} for place in (low, peak / port_bytes, high)]
    x = alt.X(
        "intensity:Q",
        title="multiplications per byte read or written, whichever are more",
        scale=alt.Scale(type="log", domain=[low, high]),
    )
    y = alt.Y("speed:Q", title="multiplications per cycle", scale=alt.Scale(type="log"))
    line = alt.Chart(alt.Data(values=roof)).mark_line(color=COLOURS["drain"]).encode(x=x, y=y)
    dots = (
        alt.Chart(alt.Data(values=points))
        .mark_circle(opacity=0.8, color=COLOURS["useful"])
        .encode(
            x=x,
            y=y,
            size=alt.Size("cycles:Q", scale=alt.Scale(range=[30, 500])),
            tooltip=["layer:N", "cycles:Q", "floor:Q", "times the floor:Q", "speed:Q", "intensity:Q"],
        )
    )
    labels = [
        alt.Chart(alt.Data(values=some)).mark_text(dy=shift, fontSize=LABEL_FONT).encode(x=x, y=y, text="label:N")
        for shift, some in _placed_labels(points, low, high).items()
    ]
    return sum(labels, line + dots).properties(width=WIDTH, height=ROOFLINE_HEIGHT)


def _placed_labels(points: Sequence[Mapping[str, Any]], low: float, high: float) -> dict[int, list[Mapping[str, Any]]]:
    """Points by how far above or below them, in pixels, their labels lie: the largest points first, those that have
    room, on a page as narrow as a phone.
    """
    found: dict[int, list[Mapping[str, Any]]] = {shift: [] for shift in LABEL_SHIFTS}
    taken: list[tuple[float, float, float]] = []
    speeds = [point["speed"] for point in points] or [1.0]
    bottom, top = log10(min(speeds)), log10(max(*speeds, 10 * min(speeds)))
    for point in sorted(points, key=lambda point: -point["cycles"]):
        x = NARROW * (log10(point["intensity"]) - log10(low)) / (log10(high) - log10(low))
        y = ROOFLINE_HEIGHT * (1 - (log10(point["speed"]) - bottom) / (top - bottom))
        half = len(point["label"]) * LABEL_FONT / 3
        for shift, members in found.items():
            box = x, y + shift, half
            if all(abs(x - ox) > half + ow or abs(box[1] - oy) > LABEL_FONT + 3 for ox, oy, ow in taken):
                members.append(point)
                taken.append(box)
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
