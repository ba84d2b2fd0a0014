"""Schedule -> segments: which operators make one program of the NPU, and which the host executes between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from convoy.driver.graph.graph import Graph
from convoy.driver.lower.host_ops import check_host_ops
from convoy.driver.plan.schedule import HostTask, Schedule

__all__ = ["Segment", "find_segments"]

NO_NEIGHBOUR = "only the shape changes, and no NPU work is next to it"


@dataclass(frozen=True)
class Segment:
    """Consecutive operators that one program executes, or the host."""

    positions: range
    """Of the operators in the schedule's graph."""
    host_reasons: tuple[str, ...] = ()
    """Why the host executes each of them; empty: the NPU does."""


def find_segments(graph: Graph, schedule: Schedule) -> tuple[Segment, ...]:
    """The segments of a schedule for `graph`, in order.

    Operators without any task go to the host where none between two of the host has one; those on variables never do.

    Raises
    ------
    GraphError
        When the host cannot execute what goes to it; the message names the operator.
    """
    reasons = {task.position: task.work.reason for task in schedule.tasks if isinstance(task, HostTask)}
    for is_host, group in groupby(range(len(graph.ops)), key=reasons.__contains__):
        positions = list(group)
        if not is_host and schedule.aliases.issuperset(positions):
            states = ("READ_VARIABLE", "ASSIGN_VARIABLE")
            reasons |= {position: NO_NEIGHBOUR for position in positions if graph.ops[position].kind not in states}
    segments = []
    for is_host, group in groupby(range(len(graph.ops)), key=reasons.__contains__):
        positions = list(group)
        found = tuple(reasons[position] for position in positions) if is_host else ()
        if is_host:
            check_host_ops(graph, [graph.ops[position] for position in positions], found)
        segments.append(Segment(range(positions[0], positions[-1] + 1), found))
    return tuple(segments)
