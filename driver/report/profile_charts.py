"""The charts of a profile. Needs the extra `plots` (Altair)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .html_page import alt

__all__ = ["losses", "memory", "roofline", "traffic", "utilisation"]

WIDTH, BAR = 760, 20
LABELS = 12
"""Layers of the roofline that are named."""
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
    y = alt.Y("layer:N", sort=None, title=None, axis=alt.Axis(labelLimit=300))
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
    largest = sorted(points, key=lambda point: point["cycles"])[-LABELS:]
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
    labels = alt.Chart(alt.Data(values=largest)).mark_text(dy=-10, fontSize=9).encode(x=x, y=y, text="label:N")
    return (line + dots + labels).properties(width=WIDTH, height=360)


def memory(pieces: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """A bar for each piece of memory, from its first byte to its last."""
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=300))
    return (
        alt.Chart(alt.Data(values=list(pieces)))
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
            y=alt.Y("layer:N", sort=None, title=None, axis=alt.Axis(labelLimit=300)),
            color=colour,
            order="order:Q",
            tooltip=["layer:N", "what:N", f"{quantity}:Q"],
        )
        .properties(width=WIDTH, height={"step": BAR})
    )
