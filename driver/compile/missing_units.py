"""What a tensor processor without all units is not asked for."""

from __future__ import annotations

from convoy.driver.graph.graph import Graph
from convoy.driver.lower.operands import Refusal
from convoy.driver.lower.work import ElementwiseWork, PoolWork, ZoomWork
from convoy.driver.plan.schedule import Schedule
from convoy.spec.config import NpuConfig
from convoy.spec.limits import missing_unit

__all__ = ["require_units"]


def require_units(graph: Graph, made: Schedule, config: NpuConfig) -> None:
    """Refuse what the tensor processor of `config` was made without.

    Raises
    ------
    Refusal
        Naming the operator and the parameter.
    """
    for task in made.tasks:
        work = task.work
        if isinstance(work, ElementwiseWork | PoolWork | ZoomWork) and (missing := missing_unit(work.op, config)):
            raise Refusal(graph, task.op, f"this NPU has {missing} = false")
