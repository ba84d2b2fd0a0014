"""Graph -> one work per operator: what is to be computed, still without an engine, a layout or tiles."""

from __future__ import annotations

from collections.abc import Container

from convoy.driver.graph.as_int8 import signed_view
from convoy.driver.graph.graph import Graph, GraphError, Op, Runtime
from convoy.driver.lower.host_ops import check_host_op
from convoy.driver.lower.operands import describe
from convoy.driver.lower.operators import lower_op
from convoy.driver.lower.tensor_rules import check_tensors
from convoy.driver.lower.work import ConvWork, ElementwiseWork, HostWork, Work

__all__ = ["doubts", "lower_graph"]


def lower_graph(graph: Graph, *, is_strict: bool = False) -> tuple[Work, ...]:
    """The lowered form of each operator, in the order of the graph. What the NPU does not take the host executes by
    LiteRT's kernel, so that its results are LiteRT's; `HostWork.reason` says why.

    Parameters
    ----------
    is_strict : refuse a network of which the host would execute a part

    Raises
    ------
    GraphError
        When neither NPU nor host can run an operator, or the NPU cannot and `is_strict`, or the file gives an operator
        dtypes or quantisation that LiteRT does not run; names the operator, the limit and the value seen.
    """
    signed, works = signed_view(graph), []
    for op, signed_op in zip(graph.ops, signed.ops, strict=True):
        if graph.runtime == Runtime.LITERT:
            check_tensors(graph, op)
        work = _lower(signed, signed_op)
        if isinstance(work, HostWork):
            if is_strict:
                raise GraphError(f"{describe(graph, op)}: {work.reason}; the host would execute it")
            check_host_op(graph, op, work.reason)
        works.append(work)
    return tuple(works)


def _lower(graph: Graph, op: Op) -> Work:
    try:
        return lower_op(graph, op)
    except GraphError as error:
        return HostWork(str(error).removeprefix(f"{describe(graph, op)}: "))


def doubts(graph: Graph, works: tuple[Work, ...], stored: Container[int]) -> dict[int, int]:
    """By operator index: how many sums or pairs of operands may give a result that differs by one from the
    runtime's. Those of a result that is not among the `stored` tensors are its readers'.
    """
    found: dict[int, int] = {}
    for op, work in zip(graph.ops, works, strict=True):
        if isinstance(work, ConvWork | ElementwiseWork) and work.num_doubts:
            found[op.index] = found.get(op.index, 0) + work.num_doubts
        if op.index in found and not any(index in stored for index in op.outputs):
            for reader in graph.ops:
                if set(op.outputs).intersection(reader.inputs):
                    found[reader.index] = found.get(reader.index, 0) + found[op.index]
    return found
