"""What the NPU takes, read out of the lowerings themselves; and what of it a network needs."""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from rich.console import Console, JustifyMethod

from convoy.driver.compile.expand import EXPANSIONS
from convoy.driver.emit.program import Plan
from convoy.driver.graph.fold import STATE_KINDS
from convoy.driver.graph.graph import Graph
from convoy.driver.lower import work as works
from convoy.driver.lower.functions import FLOAT_KINDS
from convoy.driver.lower.host_ops import HOST_KINDS
from convoy.driver.lower.lut import LUT_KINDS
from convoy.driver.lower.operators import LOWERINGS
from convoy.driver.lower.table_forms import TABLE_EXPANSIONS

from .host_report import remedy
from .plan_report import plan_report
from .report import COLUMN_MEANINGS
from .tables import print_meanings, print_table

__all__ = [
    "ENGINE_MEANINGS",
    "Entry",
    "catalogue",
    "engines",
    "first_sentence",
    "introduction",
    "named_kinds",
    "needs",
    "print_catalogue",
    "print_needs",
]

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
_BYTES = "int8", "uint8"
_OTHER_DTYPES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(LUT_KINDS, _BYTES),
    **dict.fromkeys(TABLE_EXPANSIONS.keys() - LUT_KINDS, ("int8",)),
    **dict.fromkeys(("DIV", "PRELU", "RELU_0_TO_1"), _BYTES),
    **dict.fromkeys(("CEIL", "COS", "FLOOR", "POW", "ROUND", "SIGN", "SIN", "SQUARE"), ()),
    **dict.fromkeys(("REDUCE_MIN", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE"), _BYTES),
    **dict.fromkeys(STATE_KINDS, _BYTES),
    **dict.fromkeys(("ELU", "RESIZE_BILINEAR"), ("int8",)),
    "SUM": ("uint8",),
}
"""Integers of operators that are not taken, by LiteRT or by the NPU, with int8, uint8 and int16 alike."""
_FLOAT = "float32"
_INTERNAL = frozenset(("TABLE",))
"""Operators that are in no file."""
_REPEATED = re.compile(r"\b(\w+) \1\b")
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
    forms: tuple[str, ...] = ()
    """What the compiler puts others in the place of."""


def catalogue() -> tuple[Entry, ...]:
    """Every operator of TFLite that the NPU takes, as it is or in another form, and those that are known to go to the
    host, by name.
    """
    kinds = (LOWERINGS.keys() | EXPANSIONS.keys()) - _INTERNAL
    entries = [_entry(kind) for kind in kinds]
    entries += [Entry(kind, ("any",), ("host",), ()) for kind in HOST_KINDS if kind not in kinds]
    return tuple(sorted(entries, key=lambda entry: entry.kind))


def _entry(kind: str) -> Entry:
    expansions = EXPANSIONS.get(kind, ())
    made = [kind] if kind in LOWERINGS else [other for function in expansions for other in named_kinds(function)]
    dtypes = _OTHER_DTYPES.get(kind, ("int8", "uint8", "int16"))
    return Entry(
        kind,
        (*dtypes, *[_FLOAT] * (kind in FLOAT_KINDS - HOST_KINDS.keys() - {"QUANTIZE"})),
        engines(LOWERINGS[other] for other in made),
        tuple(dict.fromkeys(_limits(LOWERINGS[kind], set()))) if kind in LOWERINGS else (),
        tuple(first_sentence(function) for function in expansions),
    )


def engines(lowerings: Iterable[Callable[..., Any]]) -> tuple[str, ...]:
    """What makes the operators with these lowerings: keys of `ENGINE_MEANINGS`, in their order."""
    found = set()
    for lowering in lowerings:
        result = get_type_hints(lowering)["return"]
        found |= {_ENGINES.get(kind, "TP") for kind in getattr(result, "__args__", (result,))}
    return tuple(engine for engine in ENGINE_MEANINGS if engine in found)


def first_sentence(function: Callable[..., Any]) -> str:
    """Of its docstring."""
    return re.split(r"(?<=\.)\s", " ".join((inspect.getdoc(function) or "").split()))[0].removesuffix(".")


def named_kinds(
    function: Callable[..., Any], node: str = "", seen: set[Callable[..., Any]] | None = None
) -> tuple[str, ...]:
    """Operators that a function, and those of its package that it calls, write: names of `LOWERINGS` that are not
    compared with anything; of a table by kinds of nodes the one of `node`.
    """
    seen = set() if seen is None else seen
    seen.add(function)
    found, names = list[str](), inspect.unwrap(function).__globals__
    package = function.__module__.rpartition(".")[0]

    def visit(tree: ast.AST) -> None:
        if isinstance(tree, ast.Compare):
            return
        if isinstance(tree, ast.Constant) and isinstance(tree.value, str) and tree.value in LOWERINGS:
            found.append(tree.value)
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
            called = names.get(tree.func.id)
            if inspect.isfunction(called) and called.__module__.rpartition(".")[0] == package and called not in seen:
                found.extend(named_kinds(called, node, seen))
        if isinstance(tree, ast.Dict) and any(isinstance(key, ast.Constant) and key.value == node for key in tree.keys):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in tree.keys]
            visit(tree.values[keys.index(node)])
            return
        for child in ast.iter_child_nodes(tree):
            visit(child)

    visit(ast.parse(inspect.getsource(function)))
    return tuple(dict.fromkeys(found))


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


def needs(graph: Graph, plan: Plan) -> list[dict[str, Any]]:
    """What a network needs: for each kind of operator of `graph`, and where and why it runs there in `plan`, `op`,
    `count`, `engine` (several for what became several operators, "merged" for what went away with another one),
    `reason` (empty on the NPU) and `remedy`.
    """
    ops, parts = {op.index: op for op in plan.graph.ops}, defaultdict(list)
    for row in plan_report(plan)["ops"]:
        parts[ops[row["index"]].place[0]].append((row["engine"], row["reason"] if row["engine"] == "host" else ""))
    found: dict[tuple[str, str, str], int] = defaultdict(int)
    for op in graph.ops:
        made = parts.get(op.index, [("merged", "")])
        names, reasons = (dict.fromkeys(filter(None, column)) for column in zip(*made, strict=True))
        found[op.kind, ", ".join(names), "; ".join(reasons)] += 1
    return [
        {"op": kind, "count": count, "engine": engine, "reason": reason, "remedy": remedy(reason) if reason else None}
        for (kind, engine, reason), count in sorted(found.items())
    ]


_COLUMNS: dict[str, JustifyMethod] = {
    "op": "left",
    "dtypes": "left",
    "engine": "left",
    "limits": "left",
    "in other forms": "left",
}
_NEEDS: dict[str, JustifyMethod] = {"op": "left", "count": "right", "engine": "left", "why not on the NPU": "left"}


def print_catalogue(console: Console) -> None:
    """The operators of TFLite as a table."""
    rows = [
        (entry.kind, ", ".join(entry.dtypes), ", ".join(entry.engines), "; ".join(entry.limits), "; ".join(entry.forms))
        for entry in catalogue()
    ]
    print_table(console, _COLUMNS, rows, ("in other forms", "limits"))
    for line in introduction():
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def introduction() -> tuple[str, ...]:
    """What is to be said of the operators of TFLite, in paragraphs."""
    meanings = ", ".join(f"{name}: {text}" for name, text in ENGINE_MEANINGS.items())
    return (
        (
            "Dtypes are those of activations; float32 is between a DEQUANTIZE and a QUANTIZE of 8 bits, on one "
            f"activation, where operators in a row become one table. Engine is {meanings}."
        ),
        (
            "A limit is one of the operator as it is; beyond it the compiler puts other operators in its place, "
            "exactly equivalent. What no form fits, and what is not named here, runs on the CPU by LiteRT's kernel, "
            "exactly; a report says why. Such operators that follow one another are one step, which LiteRT executes as "
            "one network."
        ),
        (
            "What is the same in every run (SHAPE, RANK, operators on constants, DENSIFY) is computed once when the "
            "file is read and is no operator any more; nor is what no output needs."
        ),
    )


def print_needs(rows: list[dict[str, Any]], console: Console) -> None:
    """What `needs` gives, as a table."""
    cells = [
        (
            row["op"],
            str(row["count"]),
            row["engine"].replace("host", "cpu"),
            f"{row['reason']} ({row['remedy']})" if row["remedy"] else row["reason"],
        )
        for row in rows
    ]
    print_table(console, _NEEDS, cells, ())
    meaning = {"engine": f"{COLUMN_MEANINGS['engine']}; merged (done by another operator)"}
    print_meanings(console, meaning)
