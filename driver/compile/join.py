"""Graph -> graph: operators whose results depend on one byte only become one table, those in float that depend on two
bytes one sum, difference or product of bytes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from convoy.driver.graph.as_int8 import signed_view
from convoy.driver.graph.graph import Graph, GraphError, Op, Part
from convoy.driver.lower.functions import Function, find_functions, paired, tabulated
from convoy.driver.lower.operands import require
from convoy.driver.lower.operators import lower_op
from convoy.driver.lower.work import ElementwiseWork

__all__ = ["join_functions"]


def join_functions(graph: Graph, kept: Collection[int] = ()) -> Graph:
    """The network with a `TABLE` in place of each function of one byte that is more than tables one after another: a
    tensor multiplied by its sigmoid, operators in float between DEQUANTIZE and QUANTIZE; and with an operator on bytes
    in place of each function of two bytes that the tensor processor computes exactly, for all 65,536 pairs. Results
    within a function that nobody else reads are not made.

    Parameters
    ----------
    kept : indices of operators that stay what they are
    """
    kept = set(kept)
    while True:
        functions, idle = find_functions(graph, kept)
        joined, failed = dict[int, Op](), set[int]()
        for function in functions:
            last = function.ops[-1]
            try:
                joined[last.index] = _joined(graph, function, idle)
            except GraphError:
                failed.add(last.index)
        if not failed:
            break
        kept |= failed
    ops = [joined.get(op.index, op) for position, op in enumerate(graph.ops) if position not in idle]
    return replace(graph, ops=tuple(ops)) if joined else graph


def _joined(graph: Graph, function: Function, idle: Collection[int]) -> Op:
    """The operator in place of the last one of a function."""
    kind, last, note, options = "TABLE", function.ops[-1], "", dict[str, Any]()
    if function.pair is None:
        options["table"], note = tabulated(graph, function)
    else:
        kind = function.pair.kind
        options = {"activation": "NONE", "pairs": paired(graph, function)}
    gone = {graph.ops[position].index for position in idle}
    others = [f"{op.number} {op.title}" for op in function.ops if op.index in gone]
    text = f"one {kind} with operator{'s' * (len(others) > 1)} {', '.join(others)}" if others else f"{kind} of bytes"
    made = Op(
        last.index,
        kind,
        function.sources,
        (function.target,),
        options,
        part=Part(last.index, last.kind, 1, 1),
        note=f"{text}; {note}" if note else text,
    )
    if function.pair is not None:
        work = lower_op(signed_view(graph, {*made.inputs, *made.outputs}), made)
        require(isinstance(work, ElementwiseWork) and not work.num_doubts, "some results would differ from LiteRT's")
    return made
