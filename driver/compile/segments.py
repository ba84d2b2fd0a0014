"""Schedule -> segments: which operators make one program of the NPU, and which the host executes between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from convoy.driver.graph.graph import Graph
from convoy.driver.lower.host_ops import check_host_op
from convoy.driver.plan.schedule import HostTask, Schedule

__all__ = ["Segment", "find_segments"]

NO_NEIGHBOUR = "only the shape changes, and no NPU work is next to it"


@dataclass(frozen=True)
class Segment:
    """Consecutive operators of one program, or a single one of the host."""

    positions: range
    """Of the operators in the schedule's graph."""
    host_reason: str | None = None
    """Why the host executes it; None: the NPU does."""


def find_segments(graph: Graph, schedule: Schedule) -> tuple[Segment, ...]:
    """The segments of a schedule for `graph`, in order.

    Operators without any task go to the host where none between two of the host has one; those on variables never do.

    Raises
    ------
    GraphError
        When the host cannot execute what goes to it; the message names the operator.
    """
    reasons = {task.position: task.work.reason for task in schedule.tasks if isinstance(task, HostTask)}
    segments = []
    for is_host, group in groupby(range(len(graph.ops)), key=reasons.__contains__):
        positions = list(group)
        if not is_host and not schedule.aliases.issuperset(positions):
            segments.append(Segment(range(positions[0], positions[-1] + 1)))
            continue
        for position in positions:
            op, reason = graph.ops[position], reasons.get(position, NO_NEIGHBOUR)
            is_state = op.kind in ("READ_VARIABLE", "ASSIGN_VARIABLE")
            if not is_state:
                check_host_op(graph, op, reason)
            segments.append(Segment(range(position, position + 1), None if is_state else reason))
    return tuple(segments)
