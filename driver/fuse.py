"""Operators that vanish into the one before: what an engine does to its outputs anyway."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from .graph import Graph
from .lower import AddWork, ConvWork, FusedWork, HostWork, LutWork, PoolWork

__all__ = ["fuse"]


def fuse(graph: Graph, works: list) -> tuple[list, dict[int, str]]:
    """Apply tables to the outputs of the operators that make them, where nobody else wants those outputs.

    Parameters
    ----------
    works : the lowered form of each operator of `graph`

    Returns
    -------
    (works, notes)
        Works with `FusedWork` for what has vanished, and by operator index what was fused or why not.
    """
    works, notes = list(works), {}
    makers = {output: position for position, op in enumerate(graph.ops) for output in op.outputs}
    readers = Counter(index for op in graph.ops for index in op.inputs)
    for position, (op, work) in enumerate(zip(graph.ops, works, strict=True)):
        if not isinstance(work, LutWork):
            continue
        operand = op.inputs[0]
        root = makers.get(operand)
        while root is not None and isinstance(works[root], FusedWork):
            root = makers[graph.ops[root].inputs[0]]
        if obstacle := _obstacle(graph, works, operand, root, position, readers[operand]):
            notes[op.index] = f"not fused: {obstacle}"
            continue
        before = works[root]
        works[root] = replace(before, lut=work.lut if before.lut is None else work.lut[before.lut.view("u1")])
        works[position] = FusedWork()
        maker = graph.ops[root]
        notes[op.index] = f"fused into operator {maker.index} {maker.kind}"
        notes[graph.ops[makers[operand]].index] = (notes.get(graph.ops[makers[operand]].index, "") + f"; followed by operator {op.index} {op.kind}, "
                                                   "its own result is not stored").removeprefix("; ")
    return works, notes


def _obstacle(graph: Graph, works: list[Any], operand: int, root: int | None, position: int, num_readers: int) -> str | None:
    """Why a table cannot be applied to the outputs of operator `root`, if so."""
    if root is None:
        return "its operand is an input of the network"
    if not isinstance(works[root], ConvWork | PoolWork | AddWork | LutWork):
        return f"its operand comes from {graph.ops[root].kind}"
    if num_readers > 1:
        return f"its operand has {num_readers} readers"
    if operand in graph.outputs:
        return "its operand is an output of the network"
    if any(isinstance(work, HostWork) for work in works[root:position]):
        return "the host works in between"
    return None
