"""Graph -> graph: a part of a network as a network of its own."""

from __future__ import annotations

from dataclasses import replace

from convoy.driver.graph.graph import Graph, GraphError

__all__ = ["cut"]


def cut(graph: Graph, layers: range) -> Graph:
    """The part of a network between two positions, with the inputs and outputs that this makes; what is read from
    variables is an input.

    Raises
    ------
    GraphError
        When the positions are not consecutive, or not all in the network.
    """
    if layers.step != 1 or not 0 <= layers.start < layers.stop <= len(graph.ops):
        raise GraphError(f"layers {layers.start}:{layers.stop} are not part of 0:{len(graph.ops)}")
    ops = tuple(
        op for op in graph.ops[layers.start : layers.stop] if op.kind not in ("READ_VARIABLE", "ASSIGN_VARIABLE")
    )
    made = {index for op in ops for index in op.outputs}
    read = [
        index
        for op in ops
        for index in op.inputs
        if index >= 0 and graph.tensors[index].is_activation and index not in made
    ]
    used_later = {index for op in graph.ops[layers.stop :] for index in op.inputs} | set(graph.outputs)
    used_inside = {index for op in ops for index in op.inputs}
    outputs = [index for op in ops for index in op.outputs if index in used_later or index not in used_inside]
    return replace(
        graph, ops=ops, inputs=tuple(dict.fromkeys(read)), outputs=tuple(dict.fromkeys(outputs)), variables=()
    )
