"""Operators and their works -> the same in an order with few turns between NPU and host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from heapq import heapify, heappop, heappush
from itertools import groupby

from convoy.driver.graph.graph import Graph
from convoy.driver.lower.work import AssignWork, ConvWork, HostWork, ReadWork, ReshapeWork, Work

__all__ = ["Ordered", "choose_order", "predecessors"]

BETWEEN_HOST = "what it reads and who reads it are with the host; moving that would cost more than its work"


@dataclass(frozen=True)
class Ordered:
    """A graph with its operators in order, and the work of each."""

    graph: Graph
    works: tuple[Work, ...]


class _Side(Enum):
    """Who executes an operator."""

    NPU = "npu"
    HOST = "host"
    EITHER = "either"
    """It costs nothing: whoever is at work."""


def choose_order(graph: Graph, works: Sequence[Work]) -> Ordered:
    """An order of the operators in which the host works as seldom as the data allow, and then the NPU; the given one
    where no other is better. What NPU and host each do stays in the given order as far as it can.

    An operator without multiplications whose operands and readers are all with the host stays there too.
    """
    works = _with_islands(graph, works)
    sides = [_side(work) for work in works]
    given = list(range(len(works)))
    if _num_turns(sides, given) > (1, 2):
        before = predecessors(graph)
        orders = [given, *(_greedy(sides, before, first) for first in (_Side.NPU, _Side.HOST))]
        given = min(orders, key=lambda order: _num_turns(sides, order))
    ops = tuple(graph.ops[position] for position in given)
    return Ordered(replace(graph, ops=ops), tuple(works[position] for position in given))


def _side(work: Work) -> _Side:
    if isinstance(work, HostWork):
        return _Side.HOST
    return _Side.EITHER if isinstance(work, ReshapeWork) else _Side.NPU


def _num_turns(sides: Sequence[_Side], order: Sequence[int]) -> tuple[int, int]:
    """How often the host works, between programs of the NPU, before or behind them; and how often one of both."""
    turns = [side for side, _ in groupby(sides[p] for p in order if sides[p] != _Side.EITHER)]
    return turns.count(_Side.HOST), len(turns)


def predecessors(graph: Graph) -> list[set[int]]:
    """By position: the positions of what must come first. Accesses to one variable, or one state, keep their order."""
    makers: dict[int, int] = {}
    last: dict[tuple[str, int], int] = {}
    found = []
    for position, op in enumerate(graph.ops):
        before = {makers[index] for index in op.inputs if index in makers}
        states = [("state", index) for index in op.inputs if index >= 0 and graph.tensors[index].is_variable]
        for key in [*states, *([("variable", op.options["variable"])] if "variable" in op.options else [])]:
            before |= {last[key]} if key in last else set()
            last[key] = position
        makers |= dict.fromkeys(op.outputs, position)
        found.append(before)
    return found


def _greedy(sides: Sequence[_Side], before: Sequence[set[int]], side: _Side) -> list[int]:
    """Everything that one side can do, then everything that the other can, in turn; the fewest turns of all orders that
    begin with `side`.
    """
    behind: list[list[int]] = [[] for _ in sides]
    waits = [len(positions) for positions in before]
    for position, positions in enumerate(before):
        for earlier in positions:
            behind[earlier].append(position)
    ready: dict[_Side, list[int]] = {kind: [] for kind in _Side}
    for position, count in enumerate(waits):
        if not count:
            ready[sides[position]].append(position)
    for heap in ready.values():
        heapify(heap)
    order: list[int] = []
    while len(order) < len(sides):
        heaps = [heap for kind in (side, _Side.EITHER) if (heap := ready[kind])]
        if not heaps:
            side = _Side.HOST if side == _Side.NPU else _Side.NPU
            continue
        position = heappop(min(heaps))
        order.append(position)
        for later in behind[position]:
            waits[later] -= 1
            if not waits[later]:
                heappush(ready[sides[later]], later)
    return order


def _with_islands(graph: Graph, works: Sequence[Work]) -> tuple[Work, ...]:
    """The works, with those left to the host that lie alone within work of the host."""
    if not any(isinstance(work, HostWork) for work in works):
        return tuple(works)
    found = list(works)
    for island in _islands(graph, works):
        made = {index for position in island for index in graph.ops[position].outputs}
        hosted = {
            index
            for op, work in zip(graph.ops, works, strict=True)
            for index in op.outputs
            if isinstance(work, HostWork)
        }
        read = {
            index
            for position in island
            for index in graph.ops[position].inputs
            if index >= 0 and graph.tensors[index].is_activation
        } - made
        readers = {
            position
            for position, op in enumerate(graph.ops)
            if position not in island and not made.isdisjoint(op.inputs)
        }
        is_inside = read <= hosted and made.isdisjoint(graph.outputs)
        if read and readers and is_inside and all(isinstance(works[position], HostWork) for position in readers):
            for position in island:
                found[position] = HostWork(BETWEEN_HOST)
    return tuple(found)


def _islands(graph: Graph, works: Sequence[Work]) -> Iterator[set[int]]:
    """Operators of the NPU that hang together and multiply nothing, by position."""
    fixed = ConvWork | ReadWork | AssignWork | HostWork
    parents = {
        position: position
        for position, work in enumerate(works)
        if not isinstance(work, fixed) and graph.ops[position].raw is not None
    }

    def root(position: int) -> int:
        while parents[position] != position:
            position = parents[position] = parents[parents[position]]
        return position

    makers = {index: position for position in parents for index in graph.ops[position].outputs}
    for position in parents:
        for index in graph.ops[position].inputs:
            if index in makers:
                parents[root(position)] = root(makers[index])
    found: dict[int, set[int]] = {}
    for position in parents:
        found.setdefault(root(position), set()).add(position)
    yield from found.values()
