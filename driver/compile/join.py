"""Graph -> graph: operators whose results depend on one byte only become one table."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from convoy.driver.graph.graph import Graph, GraphError, Op, Part
from convoy.driver.lower.functions import Function, find_functions, tabulated

__all__ = ["join_functions"]


def join_functions(graph: Graph, kept: Collection[int] = ()) -> Graph:
    """The network with a `TABLE` in place of each function of one byte that is more than tables one after another: a
    tensor multiplied by its sigmoid, operators in float between DEQUANTIZE and QUANTIZE. Results within a function that
    nobody else reads are not made.

    Parameters
    ----------
    kept : indices of operators that stay what they are
    """
    kept = set(kept)
    while True:
        functions, idle = find_functions(graph, kept)
        tables, failed = dict[int, Op](), set[int]()
        for function in functions:
            last = function.ops[-1]
            try:
                tables[last.index] = _table(graph, function, idle)
            except GraphError:
                failed.add(last.index)
        if not failed:
            break
        kept |= failed
    ops = [tables.get(op.index, op) for position, op in enumerate(graph.ops) if position not in idle]
    return replace(graph, ops=tuple(ops)) if tables else graph


def _table(graph: Graph, function: Function, idle: Collection[int]) -> Op:
    """The operator in place of the last one of a function."""
    table, note = tabulated(graph, function)
    last = function.ops[-1]
    gone = {graph.ops[position].index for position in idle}
    others = [f"{op.number} {op.title}" for op in function.ops if op.index in gone]
    text = f"one table with operator{'s' * (len(others) > 1)} {', '.join(others)}" if others else "a table"
    return Op(
        last.index,
        "TABLE",
        (function.source,),
        (function.target,),
        {"table": table},
        part=Part(last.index, last.kind, 1, 1),
        note=f"{text}; {note}" if note else text,
    )
