"""Graph -> one work per operator: what is to be computed, still without an engine, a layout or tiles."""

from __future__ import annotations

from convoy.driver.graph.as_int8 import signed_view
from convoy.driver.graph.graph import Graph
from convoy.driver.lower.host_ops import check_host_op
from convoy.driver.lower.operators import lower_op
from convoy.driver.lower.tensor_rules import check_tensors
from convoy.driver.lower.work import HostWork, Work

__all__ = ["lower_graph"]


def lower_graph(graph: Graph) -> tuple[Work, ...]:
    """The lowered form of each operator, in the order of the graph.

    Raises
    ------
    GraphError
        When neither the NPU nor the host can run an operator; the message names it.
    """
    for op in graph.ops:
        check_tensors(graph, op)
    signed = signed_view(graph)
    works = tuple(lower_op(signed, op) for op in signed.ops)
    for op, work in zip(graph.ops, works, strict=True):
        if isinstance(work, HostWork):
            check_host_op(graph, op, work.reason)
    return works
