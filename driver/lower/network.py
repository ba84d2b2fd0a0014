"""What each operator of a network becomes: work of the NPU, or of the host where the NPU does not take it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from convoy.driver.graph.as_int8 import signed_view
from convoy.driver.graph.graph import Graph, GraphError, Op

from .host_ops import check_host_op
from .operands import describe
from .operators import lower_op
from .tensor_rules import check_tensors
from .work import HostWork, Work

__all__ = ["lower_network"]


def lower_network(
    graph: Graph, *, is_strict: bool = False, on_host: Mapping[int, str] = MappingProxyType({})
) -> list[Work]:
    """The work of each operator, in order. What the NPU does not take the host executes by LiteRT's kernel, so that
    its results are LiteRT's; `HostWork.reason` says why.

    Parameters
    ----------
    is_strict : refuse a network of which the host would execute a part
    on_host : operators that the host is to execute, by index: why

    Raises
    ------
    GraphError
        When neither NPU nor host take an operator, or the NPU does not and `is_strict`, or the file gives an operator
        dtypes or quantisation that LiteRT does not run; names the operator, the limit and the value seen.
    """
    signed, works = signed_view(graph), []
    for op, signed_op in zip(graph.ops, signed.ops, strict=True):
        check_tensors(graph, op)
        work = HostWork(on_host[op.index]) if op.index in on_host else _lower(op, signed, signed_op)
        if isinstance(work, HostWork):
            if is_strict:
                raise GraphError(f"{describe(graph, op)}: {work.reason}; the host would execute it")
            check_host_op(graph, op, work.reason)
        works.append(work)
    return works


def _lower(op: Op, signed: Graph, signed_op: Op) -> Work:
    try:
        return lower_op(signed, signed_op)
    except GraphError as error:
        return HostWork(str(error).removeprefix(f"{describe(signed, op)}: "))
