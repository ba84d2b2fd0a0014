"""Graph -> graph: operators that the NPU does not take as they are become sequences of others that it takes, exactly
equivalent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from convoy.driver.graph.as_int8 import signed_view
from convoy.driver.graph.graph import Graph, GraphError, Runtime, Tensor
from convoy.driver.lower.conv_forms import CONV_EXPANSIONS
from convoy.driver.lower.dense_forms import DENSE_EXPANSIONS
from convoy.driver.lower.move_forms import MOVE_EXPANSIONS
from convoy.driver.lower.operators import lower_op
from convoy.driver.lower.parts import Expansion, Parts
from convoy.driver.lower.pool_forms import POOL_EXPANSIONS
from convoy.driver.lower.table_forms import TABLE_EXPANSIONS
from convoy.driver.lower.tensor_rules import tensor_obstacle
from convoy.driver.lower.work import HostWork
from convoy.spec.config import NpuConfig

__all__ = ["EXPANSIONS", "expand"]

EXPANSIONS: dict[str, tuple[Expansion, ...]] = (
    CONV_EXPANSIONS | DENSE_EXPANSIONS | MOVE_EXPANSIONS | POOL_EXPANSIONS | TABLE_EXPANSIONS
)
"""By kind of operator; the first that gives what the NPU takes is taken."""
_ONNX_EXPANSIONS = CONV_EXPANSIONS | {kind: EXPANSIONS[kind] for kind in ("BROADCAST_TO", "MAX_POOL_2D", "TRANSPOSE")}
"""Those of them in which no arithmetic of LiteRT's is."""


def expand(
    graph: Graph,
    config: NpuConfig,
    kept: frozenset[int] = frozenset(),
    narrow: frozenset[int] = frozenset(),
    is_absorbing: bool = True,
) -> Graph:
    """The network with each operator of `EXPANSIONS` replaced, where an expansion gives what the NPU takes; a network
    that was expanded before is as it was.

    Tensors that are added get indices behind all others, operators too unless they are alone in place of one.

    Parameters
    ----------
    kept : indices of operators that stay what they are
    narrow : indices of operators that read too much at once
    is_absorbing : operators may go away with others, and results between them are then never stored
    """
    tensors, num_added, absorbed, unread = graph.tensors, graph.num_added, set[int](), set[int]()
    replaced = {}
    is_litert = graph.runtime == Runtime.LITERT
    expansions = EXPANSIONS if is_litert else _ONNX_EXPANSIONS
    next_index = max((op.index for op in graph.ops), default=-1) + 1
    for op in graph.ops:
        if op.index in kept or op.part is not None:
            continue
        if is_litert and tensor_obstacle(graph, op):
            continue
        for expansion in expansions.get(op.kind, ()):
            parts = Parts(graph, op, config, len(tensors), narrow=narrow, taken=frozenset(absorbed))
            if (
                _is_taken(expansion, parts, tensors)
                and parts.stands_for.index not in kept
                and absorbed.isdisjoint(parts.absorbed)
                and (is_absorbing or not parts.absorbed | parts.unread)
            ):
                replaced[op.index] = parts.numbered(next_index)
                next_index += len(parts.ops)
                tensors += tuple(parts.tensors)
                num_added += len(parts.tensors)
                absorbed |= parts.absorbed
                unread |= parts.unread
                break
    if not replaced:
        return graph
    ops = [made for op in graph.ops if op.index not in absorbed for made in replaced.get(op.index, [op])]
    read = Counter(index for op in ops for index in op.inputs) + Counter(graph.outputs)
    for op in [op for op in ops[::-1] if op.index in unread]:
        if not any(read[index] for index in op.outputs):
            ops.remove(op)
            read.subtract(op.inputs)
    return replace(graph, tensors=tensors, ops=tuple(ops), num_added=num_added)


def _is_taken(expansion: Expansion, parts: Parts, tensors: tuple[Tensor, ...]) -> bool:
    """Does an expansion give operators that the NPU takes, all of them that it does not leave to the host?"""
    try:
        if not expansion(parts):
            return False
        whole = replace(parts.graph, tensors=tensors + tuple(parts.tensors), ops=tuple(parts.ops))
        signed = signed_view(whole, {index for op in parts.ops for index in (*op.inputs, *op.outputs)})
        return not any(isinstance(lower_op(signed, op), HostWork) for op in signed.ops if not op.host_reason)
    except GraphError:
        return False
