"""A network's layers simulated independently: each on a device of its own, its inputs from the golden model, in any
order and anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, as_completed

import numpy as np

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.program import HostStep, NpuStep, Plan
from convoy.driver.graph.graph import Graph
from convoy.driver.plan.macs import dense_macs
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.runtime.session import Execution, Session
from convoy.spec.config import NpuConfig

from .devices import open_device

__all__ = ["merge_parts", "parts_of", "run_part", "run_parts"]

Part = tuple[Plan, Execution]
"""Some layers, compiled and run by themselves."""


def parts_of(plan: Plan) -> list[range]:
    """The smallest runs of operators that can be run by themselves: what was fused stays together. Positions count
    the plan's operators in the order of their file.
    """
    ops = sorted(plan.graph.ops, key=lambda op: op.index)
    on_npu = {index for step in plan.steps if isinstance(step, NpuStep) for index in step.layers}
    fused = {tensor for op in ops if op.index in on_npu for tensor in op.outputs if tensor not in plan.placements}
    readers = {tensor: position for position, op in enumerate(ops) for tensor in op.inputs if tensor in fused}
    parts, start, needed = [], 0, 0
    for position, op in enumerate(ops):
        needed = max([needed, *(readers.get(tensor, 0) for tensor in op.outputs)])
        if position >= needed:
            parts.append(range(start, position + 1))
            start = position + 1
    return parts


def run_part(
    graph: Graph,
    config: NpuConfig,
    layers: range,
    inputs: Mapping[int, np.ndarray],
    device_name: str,
    memory_model: MemoryModel,
) -> Part:
    """Compile and run the operators at some positions.

    Parameters
    ----------
    inputs : by tensor index, at least all activations that these operators read from others
    device_name, memory_model : as in `open_device`

    Raises
    ------
    GraphError, DeviceError
        As from `compile_graph` and `Session.run`.
    """
    plan = compile_graph(graph, config, keep_tensors=True, layers=layers)
    device = open_device(device_name, config, memory_model)
    try:
        return plan, Session(plan, device).run(inputs)
    finally:
        device.close()


def run_parts(
    graph: Graph,
    config: NpuConfig,
    parts: list[range],
    tensors: Mapping[int, np.ndarray],
    device_name: str,
    memory_model: MemoryModel,
    executor: Executor,
    on_done: Callable[[range], None],
) -> Part:
    """`run_part` for all parts on the workers of `executor`; the result does not depend on how many these are.

    Parameters
    ----------
    tensors : every activation of the network by index
    on_done : called with each part that has ended
    """
    futures = {}
    for layers in sorted(parts, key=lambda layers: -sum(dense_macs(graph, graph.ops[position]) for position in layers)):
        read = {index for position in layers for index in graph.ops[position].inputs if index in tensors}
        inputs = {index: tensors[index] for index in read}
        futures[executor.submit(run_part, graph, config, layers, inputs, device_name, memory_model)] = layers
    results = {}
    try:
        for future in as_completed(futures):
            results[futures[future].start] = future.result()
            on_done(futures[future])
    finally:
        for future in futures:
            future.cancel()
    return merge_parts(graph, [results[start] for start in sorted(results)])


def merge_parts(graph: Graph, parts: list[Part]) -> Part:
    """The parts as if they were one plan and its execution: cycles and seconds are sums. The plan is one to report
    on, not to run.
    """
    total = Execution()
    notes: dict[int, str] = {}
    doubts: dict[int, int] = {}
    steps: list[NpuStep | HostStep] = []
    for plan, execution in parts:
        steps += plan.steps
        notes |= plan.notes
        doubts |= plan.doubts
        total.tensors |= execution.tensors
        total.costs |= execution.costs
        total.host_remarks |= execution.host_remarks
        total.cycles += execution.cycles
        total.completions += execution.completions
        total.counted += execution.counted
        total.seconds += execution.seconds
    memory_bytes = max(plan.memory_bytes for plan, _ in parts)
    return Plan(graph, parts[0][0].config, tuple(steps), {}, memory_bytes, notes=notes, doubts=doubts), total
