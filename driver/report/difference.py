"""Two reports side by side: what became faster, what slower, layer by layer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, JustifyMethod

from convoy.driver.errors import GraphError
from convoy.driver.files import read_file

from .tables import print_table, short_name

__all__ = ["difference", "print_difference", "read_report"]

MAX_BYTES = 1 << 28
"""A report's file is no larger."""
_LAYER_TEXTS = ("number", "op", "name", "engine")
_LAYER_VALUES = ("cycles", "read_bytes", "write_bytes", "weight_bytes")
_TOTALS = (
    "cycles",
    "milliseconds",
    "floor_cycles",
    "read_bytes",
    "write_bytes",
    "weight_bytes",
    "activation_bytes",
    "constant_bytes",
    "program_bytes",
)
_COLUMNS: dict[str, JustifyMethod] = {
    "#": "right",
    "op": "left",
    "name": "left",
    "engine": "left",
    "cycles": "right",
    "other": "right",
    "difference": "right",
    "ratio": "right",
    "bytes": "right",
    "other bytes": "right",
}
_OPTIONAL = ("name", "other bytes", "bytes", "engine")


def read_report(path: Path) -> dict[str, Any]:
    """What `--json` wrote.

    Raises
    ------
    GraphError
        When the file cannot be read or is not such a report.
    """
    text = read_file(path, MAX_BYTES)
    try:
        report = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GraphError(f"{path}: is not JSON ({error}); give a report that --json wrote") from None
    layers = report.get("layers") if isinstance(report, dict) else None
    if not isinstance(layers, list) or not all(map(_is_layer, layers)) or not all(map(_is_figure, _totals(report))):
        raise GraphError(f"{path}: is not a report of a run; give a file that run, estimate or profile --json wrote")
    return report


def _is_layer(layer: Any) -> bool:
    return (
        isinstance(layer, dict)
        and all(isinstance(layer.get(name), str) for name in _LAYER_TEXTS)
        and all(name in layer and _is_figure(layer[name]) for name in _LAYER_VALUES)
    )


def _totals(report: Mapping[str, Any]) -> list[Any]:
    return [report.get(name) for name in _TOTALS]


def _is_figure(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """`layers`: those of both reports by operator's number and kind, in order, with their values in the `first` and in
    the `second`, None where a report has no such layer; `total`: the same of the whole.
    """
    sides = [{(layer["number"], layer["op"]): layer for layer in report["layers"]} for report in (first, second)]
    layers = []
    for key in sorted(sides[0].keys() | sides[1].keys(), key=_place):
        found = [side.get(key) for side in sides]
        known = found[0] or found[1] or {}
        layers.append(
            {"number": key[0], "op": key[1], "name": known["name"]}
            | {name: [layer and layer[name] for layer in found] for name in ("engine", *_LAYER_VALUES)}
        )
    return {
        "models": [first.get("model"), second.get("model")],
        "configs": [first.get("config"), second.get("config")],
        "devices": [first.get("device"), second.get("device")],
        "total": {name: [first.get(name), second.get(name)] for name in _TOTALS},
        "layers": layers,
    }


def _place(key: tuple[str, str]) -> tuple[list[int], str]:
    number, kind = key
    return [int(part) for part in number.split(".") if part.isdecimal()], kind


def print_difference(found: Mapping[str, Any], console: Console) -> None:
    """The layers whose cycles or bytes differ as a table, and the totals."""
    rows = [_cells(layer) for layer in found["layers"] if _differs(layer)]
    total = found["total"]
    rows.append(["", "total", "", "", *_pair(total["cycles"]), *(_number(value) for value in _bytes(total))])
    print_table(console, _COLUMNS, rows, _OPTIONAL)
    same = sum(not _differs(layer) for layer in found["layers"])
    console.print(f"{same} layers are the same in both", highlight=False, markup=False)
    for name, (first, second) in total.items():
        if first is not None or second is not None:
            _, _, change, ratio = _pair([first, second])
            console.print(
                f"{name.replace('_', ' ')}: {_number(first)} and {_number(second)}, {change} ({ratio})",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )


def _differs(layer: Mapping[str, Any]) -> bool:
    return any(len(set(layer[name])) > 1 for name in ("engine", *_LAYER_VALUES))


def _cells(layer: Mapping[str, Any]) -> list[str]:
    engines = list(dict.fromkeys(engine or "-" for engine in layer["engine"]))
    return [
        layer["number"],
        layer["op"],
        short_name(layer["name"]),
        " > ".join(engines),
        *_pair(layer["cycles"]),
        *(_number(value) for value in _bytes(layer)),
    ]


def _bytes(values: Mapping[str, Any]) -> list[int | None]:
    """Read and written, of both sides."""
    sides = zip(values["read_bytes"], values["write_bytes"], strict=True)
    return [None if read is None or written is None else read + written for read, written in sides]


def _pair(values: list[float | None]) -> list[str]:
    """Both, the second less the first, and the second over the first."""
    first, second = values
    if first is None or second is None:
        return [_number(first), _number(second), "-", "-"]
    ratio = f"{second / first:.3f}" if first else "-"
    return [
        _number(first),
        _number(second),
        f"{second - first:+,.4g}" if _is_real(values) else f"{second - first:+,}",
        ratio,
    ]


def _is_real(values: list[float | None]) -> bool:
    return any(isinstance(value, float) for value in values)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
