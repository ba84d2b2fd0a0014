"""What the NPU takes of ONNX networks, read out of the reader's tables; the package `onnx` is not needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console, JustifyMethod

from convoy.driver.graph.onnx_bytes import HANDLERS
from convoy.driver.graph.onnx_float import CORES, ELEMENTWISE, PAIRS
from convoy.driver.graph.onnx_moves import MOVES
from convoy.driver.lower.onnx_operators import ONNX_LOWERINGS
from convoy.driver.lower.operators import LOWERINGS

from .operators import engines, first_sentence, named_kinds
from .tables import print_table

__all__ = ["OnnxEntry", "onnx_catalogue", "onnx_introduction", "print_onnx_catalogue"]

_OWN = "ms."
"""Mark of the reader on onnxruntime's own operators."""
_CONVERSIONS = frozenset(("DequantizeLinear", "QuantizeLinear"))
_TABLE = "TABLE"


@dataclass(frozen=True)
class OnnxEntry:
    """An operator of ONNX that the compiler knows."""

    kind: str
    forms: tuple[str, ...]
    """How it is written: "bytes" (it reads and writes quantised values), "float" (between DequantizeLinear and
    QuantizeLinear).
    """
    becomes: tuple[str, ...]
    """Operators of the graph."""
    engines: tuple[str, ...]
    """Keys of `ENGINE_MEANINGS`."""
    notes: tuple[str, ...]
    """What the reader says of it."""


def onnx_catalogue() -> tuple[OnnxEntry, ...]:
    """Every operator that the NPU takes of ONNX networks, by name."""
    names = {name.removeprefix(_OWN) for name in HANDLERS.keys() | CORES | ELEMENTWISE - _CONVERSIONS}
    return tuple(_entry(name) for name in sorted(names))


def _entry(name: str) -> OnnxEntry:
    forms, made, notes = dict[str, None](), dict[str, None](), dict[str, None]()

    def add(form: str, kinds: tuple[str, ...]) -> None:
        forms[form] = None
        made.update(dict.fromkeys(kinds))

    def handle(form: str, handler: Callable[..., Any], key: str) -> None:
        add(form, named_kinds(handler, key))
        notes.update(dict.fromkeys(filter(None, [first_sentence(handler)])))

    for key in (name, f"{_OWN}{name}"):
        if key in HANDLERS:
            handle("bytes", HANDLERS[key], key)
        if key in MOVES:
            add("float", ())
        if key in CORES:
            handle("float", CORES[key], key)
        if key in PAIRS:
            add("float", (PAIRS[key],))
        if key in ELEMENTWISE:
            add("float", (_TABLE,))
    lowerings = {**LOWERINGS, **ONNX_LOWERINGS}
    return OnnxEntry(name, tuple(forms), tuple(made), engines(lowerings[kind] for kind in made), tuple(notes))


def onnx_introduction() -> tuple[str, ...]:
    """What is to be said of the operators of ONNX, in paragraphs."""
    return (
        (
            "onnxruntime optimises a network before it is read, so that most operators between DequantizeLinear and "
            "QuantizeLinear (float) come as operators on bytes; activations are int8 or uint8. TABLE is one of 256 "
            "results of onnxruntime: of any functions of single elements in a row, other operands constant."
        ),
        "What is not named here, or is beyond what the NPU takes, runs on the CPU by onnxruntime.",
    )


_COLUMNS: dict[str, JustifyMethod] = {
    "onnx op": "left",
    "written on": "left",
    "becomes": "left",
    "engine": "left",
    "note": "left",
}


def print_onnx_catalogue(console: Console) -> None:
    """The operators of ONNX as a table."""
    rows = [
        (entry.kind, ", ".join(entry.forms), ", ".join(entry.becomes), ", ".join(entry.engines), "; ".join(entry.notes))
        for entry in onnx_catalogue()
    ]
    print_table(console, _COLUMNS, rows, ("note",))
    for line in onnx_introduction():
        console.print(line, highlight=False, markup=False, soft_wrap=True)
