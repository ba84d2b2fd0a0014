"""What the NPU takes, read out of the lowerings themselves; and what of it a network needs."""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from rich.console import Console, JustifyMethod

from convoy.driver.lower import work as works
from convoy.driver.lower.host_ops import HOST_KINDS
from convoy.driver.lower.operators import LOWERINGS

from .host_report import remedy
from .tables import print_table

__all__ = ["Entry", "catalogue", "needs", "print_catalogue", "print_needs"]

_ENGINES = {
    works.ConvWork: "NN",
    works.LutWork: "table",
    works.ReshapeWork: "view",
    works.ReadWork: "state",
    works.AssignWork: "state",
    works.HostWork: "",
}
"""What makes an operator of this work; the tensor processor does the others."""
ENGINE_MEANINGS = {
    "NN": "the NN engine",
    "TP": "the tensor processor",
    "table": "a table of 256 bytes, free behind a layer",
    "view": "nothing to do, or a copy",
    "state": "NPU memory",
    "host": "the CPU, by LiteRT's kernel",
}
NARROW_KINDS = frozenset(
    (
        "MEAN",
        "TRANSPOSE_CONV",
        "REDUCE_MAX",
        "DEPTH_TO_SPACE",
        "RESIZE_BILINEAR",
        "LOGISTIC",
        "TANH",
        "HARD_SWISH",
        "LEAKY_RELU",
        "ELU",
        "GELU",
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "QUANTIZE",
        "READ_VARIABLE",
        "ASSIGN_VARIABLE",
    )
)
"""Operators that the NPU does not take with int16."""
_REPEATED = re.compile(r"\b(\w+) \1\b")
SIGNED_KINDS = frozenset(("RESIZE_BILINEAR",))
"""Operators that the NPU does not take with uint8."""
_PACKAGE = works.__name__.rpartition(".")[0]


@dataclass(frozen=True)
class Entry:
    """An operator that the compiler knows."""

    kind: str
    dtypes: tuple[str, ...]
    """Of the activations."""
    engines: tuple[str, ...]
    """Keys of `ENGINE_MEANINGS`."""
    limits: tuple[str, ...]
    """What is refused by a number, in the words of the refusal; names stand for what an operator has."""


def catalogue() -> tuple[Entry, ...]:
    """Every operator that the NPU takes, and those that are known to go to the host, by name."""
    entries = [
        Entry(
            kind,
            ("int8", *["uint8"] * (kind not in SIGNED_KINDS), *["int16"] * (kind not in NARROW_KINDS)),
            _engines(lowering),
            tuple(dict.fromkeys(_limits(lowering, set()))),
        )
        for kind, lowering in LOWERINGS.items()
    ]
    entries += [Entry(kind, ("any",), ("host",), ()) for kind in HOST_KINDS if kind not in LOWERINGS]
    return tuple(sorted(entries, key=lambda entry: entry.kind))


def _engines(lowering: Callable[..., Any]) -> tuple[str, ...]:
    found = get_type_hints(lowering)["return"]
    kinds = getattr(found, "__args__", (found,))
    return tuple(dict.fromkeys(engine for kind in kinds if (engine := _ENGINES.get(kind, "TP"))))


def _limits(function: Callable[..., Any], seen: set[str]) -> Iterator[str]:
    """The refusals of a function and of those of this package that it calls, where they name a limit."""
    seen.add(function.__qualname__)
    tree = ast.parse(inspect.getsource(function))
    names = inspect.unwrap(function).__globals__
    locals_ = {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id in ("require", "GraphError"):
            text = _text(node.args[-1], names, locals_)
            if "limit" in text:
                yield _REPEATED.sub(r"\1", text)
        called = names.get(node.func.id)
        if inspect.isfunction(called) and called.__module__.startswith(_PACKAGE) and called.__qualname__ not in seen:
            yield from _limits(called, seen)


def _text(node: ast.expr, names: Mapping[str, Any], locals_: Mapping[str, ast.expr]) -> str:
    """A message with its constants; what an operator has is named."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, names, locals_) for part in node.values)
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.FormattedValue):
        return _term(node.value, names, locals_)
    return ""


def _term(node: ast.expr, names: Mapping[str, Any], locals_: Mapping[str, ast.expr]) -> str:
    """An expression in a message: numbers for constants, the last name of anything else."""
    if isinstance(node, ast.Name) and isinstance(names.get(node.id), int):
        return str(names[node.id])
    if isinstance(node, ast.Name) and isinstance(locals_.get(node.id), ast.BinOp | ast.IfExp):
        return _term(locals_[node.id], names, {})
    if isinstance(node, ast.BinOp):
        symbols = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "/"}
        left, right = (_term(side, names, locals_) for side in (node.left, node.right))
        return f"{left} {symbols.get(type(node.op), '?')} {right}"
    if isinstance(node, ast.IfExp):
        return " or ".join(_term(side, names, locals_) for side in (node.body, node.orelse))
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else "N"


def needs(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a network needs, from its `plan_report`: for each kind of operator and where and why it runs there, `op`,
    `count`, `engine`, `reason` (empty on the NPU) and `remedy`.
    """
    found: dict[tuple[str, str, str], int] = defaultdict(int)
    for row in plan["ops"]:
        found[row["op"], row["engine"], row["reason"] if row["engine"] == "host" else ""] += 1
    return [
        {"op": kind, "count": count, "engine": engine, "reason": reason, "remedy": remedy(reason) if reason else None}
        for (kind, engine, reason), count in sorted(found.items())
    ]


_COLUMNS: dict[str, JustifyMethod] = {"op": "left", "dtypes": "left", "engine": "left", "limits": "left"}
_NEEDS: dict[str, JustifyMethod] = {"op": "left", "count": "right", "engine": "left", "why not on the NPU": "left"}


def print_catalogue(console: Console) -> None:
    """The operators as a table."""
    rows = [
        (entry.kind, ", ".join(entry.dtypes), ", ".join(entry.engines), "; ".join(entry.limits))
        for entry in catalogue()
    ]
    print_table(console, _COLUMNS, rows, ("limits",))
    meanings = ", ".join(f"{name}: {text}" for name, text in ENGINE_MEANINGS.items())
    for line in (meanings, "all others run on the CPU, by LiteRT's kernel"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_needs(rows: list[dict[str, Any]], console: Console) -> None:
    """What `needs` gives, as a table."""
    cells = [
        (
            row["op"],
            str(row["count"]),
            "cpu" if row["engine"] == "host" else row["engine"],
            f"{row['reason']} ({row['remedy']})" if row["remedy"] else row["reason"],
        )
        for row in rows
    ]
    print_table(console, _NEEDS, cells, ())
