"""What a run found: comparison with the reference, the JSON report, the table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from rich.console import Console, JustifyMethod
from rich.text import Text

from convoy.driver.emit.program import HostStep, NpuStep, Plan
from convoy.driver.graph.graph import Graph, GraphError, Op, Runtime
from convoy.driver.plan.macs import LaneMacs, dense_macs
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.runtime.session import Execution
from convoy.driver.timing.estimate import Estimator, estimate

from .answers import Answer
from .cycle_causes import cycle_split, largest_loss, no_split, total_split
from .deployment import Clock, memory_needs, time_needs
from .floor import Floor, find_floors
from .host_report import host_groups, host_lines, notes, remedy, share_line, shares
from .tables import print_meanings, print_table

__all__ = [
    "COLUMN_MEANINGS",
    "Mismatch",
    "build_report",
    "compare",
    "estimate_report",
    "join_steps",
    "layer_cells",
    "print_report",
    "summary",
]

TRAFFIC = "read_bytes", "write_bytes", "weight_bytes"
"""Keys of layers and of the whole."""


class HasTiming(Protocol):
    """A device, or what stands for one."""

    @property
    def memory_model(self) -> MemoryModel | None:
        """Timing of the memory; None when there is no timing."""


@dataclass(frozen=True)
class Mismatch:
    """A tensor that differs from the reference."""

    tensor: int
    name: str
    op: int
    num_different: int
    num_elements: int
    max_abs_diff: float
    where: tuple[int, ...]
    """Index of the first element that differs."""
    step: int | None = None
    """Number of the run, when there are several."""

    def __str__(self) -> str:
        return ("" if self.step is None else f"step {self.step}: ") + (
            f"layer {self.op}: tensor {self.tensor} ({self.name}) differs in {self.num_different} of "
            f"{self.num_elements} elements, "
            f"by {self.max_abs_diff:g} at most, first at {list(self.where)}"
        )


def compare(graph: Graph, op_index: int, tensor: int, found: np.ndarray, expected: np.ndarray) -> Mismatch | None:
    """None when the two arrays are equal, element by element; what is no number equals what is none."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return Mismatch(
            tensor,
            graph.tensors[tensor].name,
            op_index,
            expected.size,
            expected.size,
            float("inf"),
            (0,) * expected.ndim,
        )
    different = found != expected
    if found.dtype.kind in "fc":
        different &= ~(np.isnan(found) & np.isnan(expected))
    if not different.any():
        return None
    diff = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    where = tuple(int(i) for i in np.argwhere(different)[0])
    return Mismatch(
        tensor, graph.tensors[tensor].name, op_index, int(different.sum()), found.size, float(diff.max()), where
    )


def build_report(
    plan: Plan,
    device: HasTiming,
    execution: Execution,
    *,
    model: str,
    config: str,
    device_name: str,
    reference: str,
    expected: Mapping[int, np.ndarray] | None,
    reference_note: str | None = None,
    clock: Clock | None = None,
) -> tuple[dict[str, Any], list[Mismatch]]:
    """The report of a run and the tensors that differ.

    Parameters
    ----------
    model, config, device_name, reference
        As the user named them.
    expected
        The reference's tensors; None when there is no reference, and then every `bit_exact` is None. It is None too for
        a result that was fused away. On a device without timing all that derives from cycles is None.
    reference_note
        Why there is no reference though the user wanted one, or what was changed for it.
    clock
        For milliseconds.

    Raises
    ------
    GraphError
        When the reference lacks a tensor that somebody reads.
    """
    graph, npu = plan.graph, plan.config
    ops = {op.index: op for op in graph.ops}
    has_timing = device.memory_model is not None
    mismatches: list[Mismatch] = []
    at_ties: dict[int, int] = {}
    read = {*graph.outputs, *(index for op in graph.ops for index in op.inputs)}

    def check(index: int) -> tuple[bool | None, float | int | None]:
        if expected is None:
            return None, None
        wanted = [
            tensor
            for tensor in ops[index].outputs
            if not graph.is_added(tensor) and (tensor in read or tensor in expected)
        ]
        missing = [tensor for tensor in wanted if tensor not in expected]
        if missing and graph.runtime == Runtime.LITERT:
            raise GraphError(f"the reference has no value of tensor {missing[0]} ({graph.tensors[missing[0]].name})")
        stored = [tensor for tensor in wanted if tensor in execution.tensors and tensor in expected]
        if not stored:
            return None, None
        found = [compare(graph, index, tensor, execution.tensors[tensor], expected[tensor]) for tensor in stored]
        worse = [mismatch for mismatch in found if mismatch is not None]
        if index in plan.doubts and all(mismatch.max_abs_diff <= 1 for mismatch in worse):
            at_ties.update({index: sum(mismatch.num_different for mismatch in worse)} if worse else {})
        else:
            mismatches.extend(worse)
        diff = max((mismatch.max_abs_diff for mismatch in worse), default=0)
        return not worse, int(diff) if float(diff).is_integer() else diff

    def utilisation(macs: int, cycles: int) -> float | None:
        return macs / (cycles * npu.macs_per_cycle) if has_timing and cycles else (0.0 if has_timing else None)

    layers, host_ops, num_groups = [], [], 0
    floors = find_floors(plan)
    for step in plan.steps:
        if isinstance(step, HostStep):
            for op, reason in zip(step.ops, step.reasons, strict=True):
                remark = execution.host_remarks.get(op.index)
                bit_exact, diff = check(op.index)
                host_ops.append(
                    {
                        "index": op.index,
                        "name": graph.name_of(op),
                        "number": op.number,
                        "op": op.title,
                        "group": num_groups,
                        "reason": f"{reason}; {remark}" if remark else reason,
                        "remedy": remedy(reason),
                        "macs": dense_macs(graph, op),
                        "bit_exact": bit_exact,
                        "max_abs_diff": diff,
                    }
                )
            num_groups += 1
        elif isinstance(step, NpuStep):
            for index in step.layers:
                floor = floors.get(index, Floor())
                layers.append(_layer(plan, ops[index], step, execution, floor, has_timing, utilisation, check))
                if index in plan.notes:
                    layers[-1]["note"] = plan.notes[index]
                if index in plan.doubts:
                    layers[-1] |= {"num_doubts": plan.doubts[index], "num_at_ties": at_ties.get(index, 0)}
    total = {name: sum(layer[name] for layer in layers) for name in ("floor_cycles", "floor_bytes", "macs", *TRAFFIC)}
    end_cycles = execution.cycles - sum(layer["cycles"] or 0 for layer in layers)
    return {
        "model": model,
        "config": config,
        "device": device_name,
        "cores": npu.num_cores,
        "lanes": npu.num_lanes,
        "port_bits": npu.port_bits,
        "memory_latency_cycles": device.memory_model and device.memory_model.latency_cycles,
        "cycles": execution.cycles if has_timing else None,
        "end_cycles": end_cycles if has_timing else None,
        **(total_split(layers, execution.cycles) if has_timing else no_split()),
        **time_needs(execution.cycles if has_timing else None, clock),
        **memory_needs(plan),
        **total,
        "bytes_per_inference": total["read_bytes"] + total["write_bytes"],
        "host_macs": sum(op["macs"] for op in host_ops),
        "utilisation": utilisation(total["macs"], execution.cycles),
        "bit_exact": None if expected is None else not mismatches and not at_ties,
        "reference": reference,
        "reference_note": reference_note,
        "simulation_seconds": round(execution.seconds, 6),
        "simulated_cycles_per_second": round(execution.cycles / execution.seconds)
        if has_timing and execution.seconds
        else None,
        "notes": notes(graph),
        **shares(plan),
        "host_groups": host_groups(plan),
        "host_ops": host_ops,
        "layers": sorted(layers, key=lambda layer: ops[layer["index"]].place),
    }, sorted(mismatches, key=lambda mismatch: mismatch.op)


def estimate_report(
    plan: Plan, memory: MemoryModel, *, model: str, config: str, clock: Clock | None = None
) -> dict[str, Any]:
    """The report of a run that was not made, from the timing model."""
    return build_report(
        plan,
        Estimator(memory),
        estimate(plan, memory),
        model=model,
        config=config,
        device_name="estimate",
        reference="none",
        expected=None,
        clock=clock,
    )[0]


def join_steps(outcomes: Sequence[tuple[dict[str, Any], list[Mismatch]]]) -> tuple[dict[str, Any], list[Mismatch]]:
    """Reports and mismatches of successive runs -> those of all: what a run costs is that of the last one, a tensor
    is exact if it is in each of them.

    `steps` gives each run's `cycles`, `bit_exact` and `simulation_seconds`; there is none for a single run.
    """
    report, mismatches = outcomes[-1]
    if len(outcomes) == 1:
        return report, mismatches
    worst = [{layer["index"]: layer for layer in other["layers"]} for other, _ in outcomes]
    for layer in report["layers"]:
        found = [layers[layer["index"]] for layers in worst]
        if layer["bit_exact"] is not None:
            layer["bit_exact"] = all(other["bit_exact"] for other in found)
            layer["max_abs_diff"] = max(other["max_abs_diff"] for other in found)
    steps = [{name: other[name] for name in ("cycles", "bit_exact", "simulation_seconds")} for other, _ in outcomes]
    if report["bit_exact"] is not None:
        report["bit_exact"] = all(step["bit_exact"] for step in steps)
    return report | {"steps": steps}, [
        replace(mismatch, step=number) for number, (_, found) in enumerate(outcomes) for mismatch in found
    ]


def _layer(
    plan: Plan, op: Op, step: NpuStep, execution: Execution, floor: Floor, has_timing: bool, utilisation, check
) -> dict[str, Any]:
    """One entry of `layers`."""
    graph = plan.graph
    cost, macs = execution.costs[op.index], dense_macs(graph, op)
    bit_exact, diff = check(op.index)
    split = cycle_split(cost.core_cycles, step.lane_macs.get(op.index, LaneMacs()), plan.config)
    timing = {"cycles": cost.cycles, "tp_cycles": cost.tp_cycles, **split}
    if not has_timing:
        timing = dict.fromkeys(timing)
    return {
        "index": op.index,
        "name": graph.name_of(op),
        "number": op.number,
        "op": op.title,
        "engine": step.engines.get(op.index, "alias"),
        **timing,
        "floor_cycles": floor.cycles,
        "floor_bytes": floor.num_bytes,
        "macs": macs,
        "utilisation": utilisation(macs, cost.cycles),
        **{name: getattr(cost.traffic, name) for name in TRAFFIC},
        "weight_bytes": cost.traffic.weight_bytes + cost.traffic.image_bytes,
        "bit_exact": bit_exact,
        "max_abs_diff": diff,
    }


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _loss(layer: Mapping[str, Any]) -> str:
    loss = largest_loss(layer)
    return "" if loss is None else f"{loss[0]} {loss[1]:.0%}"


_EXACT = {True: "yes", False: "no", None: "-"}
_EXACT_COLOURS = {"yes": "green", "no": "red"}


_COLUMNS: dict[str, JustifyMethod] = {
    "#": "right",
    "op": "left",
    "engine": "left",
    "cycles": "right",
    "floor": "right",
    "MACs": "right",
    "use": "right",
    "main loss": "left",
    "read B": "right",
    "written B": "right",
    "weights B": "right",
    "exact": "center",
}
_OPTIONAL = ("weights B", "written B", "read B", "engine", "main loss", "MACs", "floor", "use", "exact")
"""Columns that a narrow terminal does not get, the first to go first."""
COLUMN_MEANINGS = {
    "engine": "nn (convolutions), swapped (convolutions with weights in place of pixels), tp (tensor processor), cpu, "
    "fused (with another layer) or alias (nothing to do)",
    "floor": "least cycles: those of the multipliers or of the bytes that must be moved, whichever are more",
    "MACs": "multiply-accumulates as if no weight were zero",
    "use": "share of the peak of the multipliers, above 100% where zero weights are skipped",
    "main loss": "main cause of lost cycles (docs/tutorial.md, The report), and its share of the layer's cycles",
    "read B, written B, weights B": "bytes over the memory port, of which weights are read",
    "exact": "the result equals the reference",
}
"""What the titles of the table say, by title."""
_TRAFFIC = dict(zip(("read B", "written B", "weights B"), TRAFFIC, strict=True))


def layer_cells(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the table of operators (`COLUMN_MEANINGS`); those of the CPU cost no cycles of the NPU.
    The last rows are the cycles after the last completion, and the sums
    of all rows.
    """
    cells = []
    for layer in report["layers"]:
        cells.append(
            {
                "#": layer["number"],
                "op": layer["op"],
                "engine": layer["engine"],
                "cycles": _number(layer["cycles"]),
                "floor": _number(layer["floor_cycles"]) if layer["floor_cycles"] else "",
                "MACs": _number(layer["macs"]),
                "use": _percent(layer["utilisation"]) if layer["macs"] else "",
                "main loss": _loss(layer),
                "exact": _EXACT[layer["bit_exact"]],
            }
            | {title: _number(layer[name]) for title, name in _TRAFFIC.items()}
        )
    cells += [
        {
            "#": op["number"],
            "op": op["op"],
            "engine": "cpu",
            "cycles": "-",
            "MACs": _number(op["macs"]),
            "exact": _EXACT[op["bit_exact"]],
        }
        | dict.fromkeys(_TRAFFIC, "-")
        for op in report["host_ops"]
    ]
    cells.sort(key=lambda row: [int(digits) for digits in row["#"].split(".")])
    if report["end_cycles"]:
        cells.append({"op": "end of program", "cycles": _number(report["end_cycles"])})
    cells.append(
        {
            "op": "total",
            "cycles": _number(report["cycles"]),
            "floor": _number(report["floor_cycles"]),
            "MACs": _number(report["macs"] + report["host_macs"]),
            "use": _percent(report["utilisation"]),
        }
        | {title: _number(report[name]) for title, name in _TRAFFIC.items()}
    )
    return list(_COLUMNS), [[str(row.get(title, "")) for title in _COLUMNS] for row in cells]


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Table and summary of a report."""
    titles, rows = layer_cells(report)
    place = titles.index("exact")
    cells: list[list[str | Text]] = [
        [*row[:place], Text(row[place], _EXACT_COLOURS.get(row[place], "")), *row[place + 1 :]] for row in rows
    ]
    print_table(console, _COLUMNS, cells, _OPTIONAL)
    print_meanings(console, COLUMN_MEANINGS)
    for line in summary(report):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _floor_line(report: Mapping[str, Any]) -> str:
    """What a run took, as multiples of the least that it could take."""
    moved = (report["read_bytes"] + report["write_bytes"]) / report["floor_bytes"]
    time = "" if report["cycles"] is None else f"{report['cycles'] / report['floor_cycles']:.2f} times the cycles and "
    return (
        f"floor: {report['floor_cycles']:,} cycles, {report['floor_bytes']:,} bytes; {time}{moved:.2f} times the bytes"
    )


def _time_line(report: Mapping[str, Any]) -> str:
    """Milliseconds, or how to get them."""
    if report["milliseconds"] is None:
        return "time: this configuration was not placed; give a clock frequency (--clock 100MHz) for milliseconds"
    return (
        f"time: {report['milliseconds']:,.3f} ms, {report['inferences_per_second']:,.1f} inferences per second of the "
        f"NPU at {report['clock_mhz']:g} MHz ({report['clock_source']})"
    )


def _memory_line(report: Mapping[str, Any]) -> str:
    return (
        f"memory to deploy: {report['memory_bytes']:,} bytes: activations {report['activation_bytes']:,}, constants "
        f"{report['constant_bytes']:,}, program {report['program_bytes']:,}; moved per inference: "
        f"{report['bytes_per_inference']:,} bytes"
    )


def summary(report: Mapping[str, Any]) -> list[str]:
    """What a report says besides its table, in lines."""
    lines = list(report.get("notes", ()))
    lines += host_lines(report["host_ops"])
    lines += [share_line(report)] if report["host_ops"] else []
    cost = (
        "no timing"
        if report["cycles"] is None
        else (
            f"{report['cycles']:,} cycles, {_percent(report['utilisation'])} utilisation, "
            f"{'estimated' if report['device'] == 'estimate' else 'simulated'} in {report['simulation_seconds']:.2f} s"
        )
    )
    lines += [
        f"{layer['op']} (operator {layer['number']}): {layer['note']}" for layer in report["layers"] if "note" in layer
    ]
    lines.append(
        f"{report['device']}, config {report['config']} ({report['cores']} x {report['lanes']} MAC/cycle): "
        f"{report['macs']:,} MACs, {cost}"
    )
    lines += [_floor_line(report)] if report["floor_bytes"] else []
    lines += [_time_line(report)] if report["cycles"] else []
    lines.append(_memory_line(report))
    lines += [
        f"{layer['op']} (operator {layer['index']}): at ties its results may differ by one from the reference's; "
        f"{layer['num_at_ties']:,} do"
        for layer in report["layers"]
        if "num_doubts" in layer
    ]
    steps = f" in each of {len(report['steps'])} steps" if "steps" in report else ""
    checked = [*report["layers"], *report["host_ops"]]
    num_at_ties = sum(entry.get("num_at_ties", 0) for entry in checked)
    is_wrong = any(entry["bit_exact"] is False and not entry.get("num_at_ties") for entry in checked)
    at_ties = f"every tensor equals the reference{steps}, but {num_at_ties:,} values differ by one, as expected at ties"
    exact = {
        None: "not compared",
        True: f"every tensor equals the reference{steps}",
        False: "at least one tensor differs" if is_wrong else at_ties,
    }[report["bit_exact"]]
    note = f"; {report['reference_note']}" if report["reference_note"] else ""
    lines.append(f"reference {report['reference']}: {exact}{note}")
    if "answers" in report:
        lines.append("answer: " + ", ".join(str(Answer(**answer)) for answer in report["answers"]))
    return lines
