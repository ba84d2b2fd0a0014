"""What the fitted numbers are worth: `python -m convoy.verif.fit [--config Q] [MODEL.tflite ...]`.

Of the timing model (`driver/timing/fitted.py`): how far estimates are from the RTL with each number a step lower, as it
is, and a step higher. Of the compiler (`driver/plan/fitted.py`): what the plans take that it prefers. A number is at
its best where the middle column is the least; where all three are equal, nothing here depends on it.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.emit.program import Plan
from convoy.driver.graph.graph import Graph
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.plan import fitted as plan_numbers
from convoy.driver.plan import swap, tile
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.runtime.session import Session, plan_inputs
from convoy.driver.timing import estimate, front, nn, port, start, tp
from convoy.driver.timing import fitted as timing_numbers
from convoy.driver.workload.inputs import random_inputs
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.config import NpuConfig, load_config

from .estimates import separable_network

__all__ = ["neighbours", "numbers", "plan_cycles", "residual", "with_number"]

SHARE = 0.2
"""Of a number, the step to its neighbours; at least 1 for a whole number."""
LAYERS = (
    LayerSpec("conv", (16, 16, 32), 32, (3, 3), pads=(1,) * 4),
    LayerSpec("conv", (20, 20, 16), 16, (3, 3), (2, 2), pads=(0, 1, 0, 1), density=0.25),
    LayerSpec("depthwise", (24, 24, 32), 32, (3, 3), pads=(1,) * 4),
    LayerSpec("conv", (30, 30, 3), 8, (3, 3), (3, 3)),
)


def numbers(module: ModuleType) -> dict[str, float]:
    """The numbers of a module of fitted ones by name; one for each entry of a table, as `TABLE[key]`."""
    found: dict[str, float] = {}
    for name, value in vars(module).items():
        if name.isupper():
            found |= (
                {f"{name}[{key}]": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
            )
    return found


def neighbours(value: float) -> tuple[float, float]:
    """A step lower and a step higher; whole numbers stay whole."""
    step = max(1, round(SHARE * value)) if isinstance(value, int) else SHARE * value
    return value - step, value + step


@contextmanager
def with_number(module: ModuleType, name: str, value: float) -> Iterator[None]:
    """Have a number of `numbers(module)` another value."""
    table, _, key = name.removesuffix("]").partition("[")
    before = getattr(module, table)
    after = {each: value if str(each) == key else old for each, old in before.items()} if key else value
    try:
        _set(module, table, after)
        yield
    finally:
        _set(module, table, before)


def _set(module: ModuleType, name: str, value: object) -> None:
    """Set it, and renew what has been computed from it."""
    setattr(module, name, value)
    tile._tile_once.cache_clear()
    swap._swap_once.cache_clear()
    for model in (port, start, nn, tp, front, estimate):
        importlib.reload(model)


def residual(measured: list[tuple[Plan, dict[int, int]]], memory: MemoryModel) -> float:
    """Mean of the errors of all operators, without their signs: 0.01 is one percent of the measured cycles."""
    errors = []
    for plan, cycles in measured:
        costs = estimate.estimate(plan, memory).costs
        errors += [abs(costs[index].cycles / found - 1) for index, found in cycles.items()]
    return sum(errors) / len(errors)


def plan_cycles(graphs: list[Graph], config: NpuConfig, memory: MemoryModel) -> int:
    """Estimated cycles of the plans that the compiler makes."""
    return sum(estimate.estimate(compile_graph(graph, config), memory).cycles for graph in graphs)


def _measure(plan: Plan, memory: MemoryModel) -> dict[int, int]:
    """Cycles of each operator on the RTL."""
    device = open_device("native", plan.config, memory)
    try:
        tensors = [plan.graph.tensors[index] for index in plan_inputs(plan)]
        found = Session(plan, device, keep_tensors=False).run(random_inputs(tensors, 0))
    finally:
        device.close()
    return {index: cost.cycles for index, cost in found.costs.items() if cost.cycles}


def _table(title: str, module: ModuleType, worth, form: str) -> Table:
    table = Table("number", "value", "a step lower", "as it is", "a step higher", title=title)
    middle = worth()
    for name, value in numbers(module).items():
        shown = []
        for other in neighbours(value):
            with with_number(module, name, other):
                shown.append(f"{other:g}: {worth():{form}}")
        table.add_row(escape(name), f"{value:g}", shown[0], f"{middle:{form}}", shown[1])
    return table


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="Q")
    parser.add_argument("models", nargs="*", type=Path)
    options = parser.parse_args()
    config, memory = load_config(options.config), MemoryModel()
    graphs = [replace(make_layer(layer).graph, inputs=()) for layer in LAYERS]
    graphs += [separable_network(), *map(read_tflite, options.models)]
    plans = [compile_graph(graph, config) for graph in graphs]
    measured = [(plan, _measure(plan, memory)) for plan in plans]
    console = Console()
    console.print(
        _table("Timing model: mean error of an operator", timing_numbers, lambda: residual(measured, memory), ".3%")
    )
    console.print(
        _table("Compiler: cycles of its plans", plan_numbers, lambda: plan_cycles(graphs, config, memory), ",d")
    )


if __name__ == "__main__":
    main()
