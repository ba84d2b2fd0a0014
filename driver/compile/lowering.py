"""Graph -> one work per operator: what is to be computed, still without an engine, a layout or tiles."""

from __future__ import annotations

from convoy.driver.graph.as_int8 import signed_view
from convoy.driver.graph.graph import Graph, GraphError, Op, Runtime
from convoy.driver.lower.operands import describe
from convoy.driver.lower.operators import lower_op
from convoy.driver.lower.tensor_rules import check_tensors, tensor_obstacle
from convoy.driver.lower.work import HostWork, Work

__all__ = ["lower_graph"]


def lower_graph(graph: Graph, refused: dict[int, str] | None = None, *, is_strict: bool = False) -> tuple[Work, ...]:
    """The lowered form of each operator, in the order of the graph. What the NPU does not take is left to the
    host; `HostWork.reason` says why.

    Parameters
    ----------
    refused : why operators go to the host, by their indices, whatever they are
    is_strict : refuse a network of which the host would execute a part

    Raises
    ------
    GraphError
        When the NPU cannot run an operator and `is_strict`, or its tensors have dtypes for which LiteRT reads beyond
        them; names the operator, the limit and the value seen.
    """
    signed, works = signed_view(graph), []
    for op, signed_op in zip(graph.ops, signed.ops, strict=True):
        reason = (refused or {}).get(op.index) or op.host_reason
        work = HostWork(reason) if reason else _lower(graph, op, signed, signed_op)
        if is_strict and isinstance(work, HostWork):
            raise GraphError(f"{describe(graph, op)}: {work.reason}; the host would execute it")
        works.append(work)
    return tuple(works)


def _lower(graph: Graph, op: Op, signed: Graph, signed_op: Op) -> Work:
    """`op` in `graph` is `signed_op` in `signed`."""
    if graph.runtime == Runtime.LITERT:
        check_tensors(graph, op)
        if obstacle := tensor_obstacle(graph, op):
            return HostWork(obstacle)
    try:
        return lower_op(signed, signed_op)
    except GraphError as error:
        return HostWork(str(error).removeprefix(f"{describe(graph, op)}: "))
