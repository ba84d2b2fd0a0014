"""Operators in order -> the same in an order in which something works while something else is waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod

from convoy.driver.lower.work import AssignWork, ConcatWork, ConvWork, HostWork, MovesWork, ReadWork, ReshapeWork
from convoy.driver.plan import fitted
from convoy.spec.config import NpuConfig
from convoy.spec.isa import PARAM, Opcode

from .order import Ordered, predecessors

__all__ = ["interleave"]

_FREE = ConcatWork | MovesWork | ReadWork | ReshapeWork
"""Work that is mostly done by placement."""
MAX_RUNNING = 2
"""Jobs that the NN engine takes before the first of them is loaded."""


@dataclass(frozen=True)
class _Cost:
    """Who executes an operator, and how long it is busy then."""

    engine: Opcode | None
    cycles: float


@dataclass(frozen=True)
class _Machine:
    """Both engines after some operators, roughly. A job of the tensor processor that waits holds back all that is
    behind it, one of the NN engine does not.
    """

    dispatched: float
    free: dict[Opcode, float]
    taken: tuple[float, ...]
    """When the latest jobs of the NN engine were begun."""

    def start(self, cost: _Cost, ready: float) -> float:
        """When an operator could begin whose operands are there at some time."""
        if cost.engine is None:
            return ready
        queue = self.taken[0] if cost.engine == Opcode.NN else 0.0
        return max(ready, self.dispatched, queue, self.free[cost.engine])

    def after(self, cost: _Cost, start: float) -> _Machine:
        """The machine when that has begun."""
        if cost.engine is None:
            return self
        free = self.free | {cost.engine: start + cost.cycles}
        if cost.engine == Opcode.TP:
            return _Machine(start, free, self.taken)
        return _Machine(max(self.dispatched, self.taken[0]), free, (*self.taken[1:], start))


_IDLE = _Machine(0.0, dict.fromkeys(Opcode, 0.0), (0.0,) * MAX_RUNNING)


def interleave(ordered: Ordered, config: NpuConfig) -> Ordered:
    """What hangs together in long chains first, and other work while they wait; the given order where that is as good.

    Whoever executes an operator stays the same, and so do the turns of the host. A network that assigns to variables
    is left as it is: a value may be assigned only when the one before has been read.
    """
    graph, works = ordered.graph, ordered.works
    if any(isinstance(work, AssignWork) for work in works):
        return ordered
    before = predecessors(graph)
    order: list[int] = []
    for is_host, run in groupby(range(len(works)), key=lambda position: isinstance(works[position], HostWork)):
        positions = list(run)
        order += positions if is_host else _best(ordered, before, positions, config)
    ops = tuple(graph.ops[position] for position in order)
    return Ordered(replace(graph, ops=ops), tuple(works[position] for position in order))


def _best(ordered: Ordered, before: Sequence[set[int]], run: list[int], config: NpuConfig) -> list[int]:
    """The order of the operators at some positions, one after another, that belong to one program."""
    costs = {position: _cost(ordered, position, config) for position in run}
    own = {position: before[position] & costs.keys() for position in run}
    found = _filled(run, own, costs)
    is_better = _end(found, own, costs) < fitted.INTERLEAVE_GAIN * _end(run, own, costs)
    return found if is_better else run


def _cost(ordered: Ordered, position: int, config: NpuConfig) -> _Cost:
    op, work = ordered.graph.ops[position], ordered.works[position]
    if isinstance(work, _FREE):
        return _Cost(None, 0.0)
    tensors = ordered.graph.tensors
    sizes = [prod(tensors[index].shape) for index in (*op.inputs[:1], *op.outputs)]
    if not isinstance(work, ConvWork):
        return _Cost(Opcode.TP, fitted.TP_BLOCK_CYCLES + fitted.TP_BYTE_CYCLES["add"] * max(sizes))
    macs = work.weights.size / work.num_oc * prod(work.out_shape)
    num_bytes = work.weights.size + PARAM.num_bytes * work.num_oc + sum(sizes)
    cycles = max(macs / (config.num_cores * config.num_lanes), num_bytes / config.port_bytes)
    return _Cost(Opcode.NN, fitted.NEXT_STRIPE_CYCLES + cycles)


def _delay(cost: _Cost) -> float:
    """From the start of an operator to its results in memory."""
    return 0.0 if cost.engine is None else cost.cycles + fitted.ROUND_TRIP_CYCLES


def _filled(run: Sequence[int], before: dict[int, set[int]], costs: dict[int, _Cost]) -> list[int]:
    """The operator from which the way to the end is longest, again and again; but before it those that do not make it
    later.
    """
    behind: dict[int, list[int]] = {position: [] for position in run}
    for position in run:
        for earlier in before[position]:
            behind[earlier].append(position)
    way: dict[int, float] = {}
    for position in reversed(run):
        way[position] = _delay(costs[position]) + max((way[later] for later in behind[position]), default=0.0)
    order: list[int] = []
    machine, done = _IDLE, dict[int, float]()
    waits = {position: len(before[position]) for position in run}
    ready = {position: 0.0 for position in run if not waits[position]}
    while ready:
        urgent = max(ready, key=lambda position: (way[position], -position))
        begin, chosen = machine.start(costs[urgent], ready[urgent]), urgent
        starts = {position: machine.start(costs[position], at) for position, at in ready.items()}
        for position in sorted(ready, key=lambda position: (starts[position], -way[position], position)):
            if starts[position] >= begin and costs[position].engine is not None:
                break
            after = machine.after(costs[position], starts[position])
            if after.start(costs[urgent], ready[urgent]) <= begin:
                chosen = position
                break
        order.append(chosen)
        machine = machine.after(costs[chosen], starts[chosen])
        done[chosen] = starts[chosen] + _delay(costs[chosen])
        del ready[chosen]
        for later in behind[chosen]:
            waits[later] -= 1
            if not waits[later]:
                ready[later] = max(done[earlier] for earlier in before[later])
    return order


def _end(order: Sequence[int], before: dict[int, set[int]], costs: dict[int, _Cost]) -> float:
    """When the last result is in memory."""
    machine, done = _IDLE, dict[int, float]()
    for position in order:
        ready = max((done[earlier] for earlier in before[position]), default=0.0)
        start = machine.start(costs[position], ready)
        machine = machine.after(costs[position], start)
        done[position] = start + _delay(costs[position])
    return max(done.values())
