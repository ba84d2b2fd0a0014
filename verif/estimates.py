"""Estimated cycles against those of the compiled RTL: configurations that are far apart, and networks as they occur."""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import patch

from convoy.driver.devices import open_device
from convoy.driver.emit.program import Plan
from convoy.driver.graph.graph import Graph
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.runtime.session import Execution, Session, plan_inputs
from convoy.driver.timing import swapped
from convoy.driver.timing.estimate import estimate
from convoy.driver.workload.inputs import random_inputs
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.isa import Cause

from .graphs import GraphMaker

__all__ = ["FAR_APART", "Comparison", "compare", "separable_network"]

FAR_APART = {
    **PRESETS,
    "narrow": NpuConfig(num_cores=2, num_lanes=8, port_bits=32, post_lanes=4),
    "broad": NpuConfig(num_cores=4, num_lanes=32, port_bits=128, post_lanes=16),
    "many": NpuConfig(num_cores=8, port_bits=256, post_lanes=8),
}
"""The presets, and ports, lanes and cores that are far from theirs."""


@dataclass(frozen=True)
class Comparison:
    """Cycles as (estimated, on the RTL): of the whole, and of each operator that takes any."""

    whole: tuple[int, int]
    layers: dict[int, tuple[int, int]]

    @property
    def error(self) -> float:
        """Of the whole: 0.01 is one percent too many."""
        return self.whole[0] / self.whole[1] - 1

    @property
    def layer_errors(self) -> dict[int, float]:
        """The same by operator."""
        return {index: estimated / measured - 1 for index, (estimated, measured) in self.layers.items()}


def compare(plan: Plan, memory: MemoryModel | None = None) -> Comparison:
    """Run a plan on device `native` with random inputs, and estimate it, with as many activations zero in layers with
    swapped operands as there were: that depends on the data, which an estimate has not seen.

    Raises
    ------
    AssertionError
        When the cycles from the last completion to the interrupt, or the bytes of a layer, are not exactly as
        estimated.
    """
    memory = memory or MemoryModel()
    device = open_device("native", plan.config, memory)
    try:
        tensors = [plan.graph.tensors[index] for index in plan_inputs(plan)]
        found = Session(plan, device, keep_tensors=False).run(random_inputs(tensors, 0))
    finally:
        device.close()
    shares = _zero_shares(plan, memory, found)
    with patch.object(swapped, "zero_share", lambda d: shares.get(d["tag"], 0.0)):
        expected = estimate(plan, memory)
    assert _end(expected) == _end(found), "cycles after the last completion"
    assert {index: cost.traffic for index, cost in expected.costs.items()} == {
        index: cost.traffic for index, cost in found.costs.items()
    }
    assert sum((cost.traffic for cost in found.costs.values()), type(found.counted)()) == found.counted, "bytes"
    layers = {index: (expected.costs[index].cycles, cost.cycles) for index, cost in found.costs.items() if cost.cycles}
    return Comparison((expected.cycles, found.cycles), layers)


def _zero_shares(plan: Plan, memory: MemoryModel, found: Execution) -> dict[int, float]:
    """By operator index: how many activations of layers with swapped operands were zero, told from how long the cores
    were busy.
    """
    with patch.object(swapped, "zero_share", lambda _: 0.0):
        dense = estimate(plan, memory)
    engines = {index: engine for step in plan.steps for index, engine in getattr(step, "engines", {}).items()}
    busy = {
        index: (found.costs[index].core_cycles[Cause.BUSY], costs.core_cycles[Cause.BUSY])
        for index, costs in dense.costs.items()
        if "swapped" in engines.get(index, "")
    }
    return {index: min(max(1 - useful / whole, 0.0), 1.0) for index, (useful, whole) in busy.items() if whole}


def _end(execution: Execution) -> int:
    return execution.cycles - sum(map(max, execution.completions))


def separable_network(height: int = 25, width: int = 5, channels: int = 64, num_blocks: int = 2) -> Graph:
    """Blocks of a depthwise 3x3 and a pointwise convolution, the backbone of mobile networks: small layers in a row,
    each of which waits for the one before.
    """
    maker = GraphMaker(1)
    shape = (1, height, width, channels)
    source = last = maker.tensor(shape)
    for _ in range(num_blocks):
        for kind, weights, axis in (
            ("DEPTHWISE_CONV_2D", (1, 3, 3, channels), 3),
            ("CONV_2D", (channels, 1, 1, channels), 0),
        ):
            num_terms = 9 if axis else channels
            inputs = (last, maker.weights(weights, channels, axis), maker.bias(channels, num_terms))
            extra = {"depth_multiplier": 1} if axis else {}
            last = maker.op(
                kind,
                inputs,
                shape,
                stride_h=1,
                stride_w=1,
                dilation_h=1,
                dilation_w=1,
                padding="SAME",
                activation="RELU",
                **extra,
            )
    return maker.graph([source], [last])
