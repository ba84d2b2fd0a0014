"""A profile: what a report says, as a timeline and as a page of charts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convoy.driver.emit.program import NpuStep, Plan, Program
from convoy.driver.emit.traffic import descriptor_traffic
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.runtime.session import Execution
from convoy.driver.timing.front import time_program
from convoy.spec.isa import COMPLETION, Opcode

from .perfetto import Event, encode_trace

__all__ = ["memory_map", "timeline", "write_profile_page"]

ENGINES = {Opcode.NN: "NN jobs", Opcode.TP: "TP jobs"}
BUS = "read bytes per cycle", "written bytes per cycle"


def timeline(plan: Plan, report: Mapping[str, Any], execution: Execution, memory: MemoryModel) -> bytes:
    """The run as a Perfetto trace: a track for the jobs of each engine, the loader, the weights, each core, the
    drain, the writer, and the three units of the tensor processor; counters for the memory port.

    The bytes of a descriptor are spread evenly over its time. Completions are those of `execution`. What the units do
    in between is from the model of `timing`, moved so that its completions fall on these.
    """
    cores = [f"core {number}" for number in range(plan.config.num_cores)]
    tracks = [
        ENGINES[Opcode.NN],
        "loader",
        "weights",
        *cores,
        "drain",
        "writer",
        ENGINES[Opcode.TP],
        "TP load",
        "TP process",
        "TP write",
    ]
    layers = {layer["index"]: layer for layer in report["layers"]}
    names = {index: f"{layer['number']} {layer['op']} {layer['name']}" for index, layer in layers.items()}
    events: list[Event] = []
    moved: defaultdict[tuple[str, int], float] = defaultdict(float)
    base = 0
    programs = [step.program for step in plan.steps if isinstance(step, NpuStep) and step.program.descriptors]
    for program, completed in zip(programs, execution.completions, strict=True):
        times = time_program(program, plan.config, memory)
        move = _moved([timed.completed for timed in times], completed)
        for timed, end in zip(times, completed, strict=True):
            op = program.ops[timed.index]
            start = min(base + move(timed.accepted), base + end - 1)
            traffic = descriptor_traffic(program, timed.index, plan.config)
            for name, num_bytes in zip(BUS, (traffic.read_bytes, traffic.write_bytes), strict=True):
                rate = num_bytes / (base + end - start)
                moved[name, start] += rate
                moved[name, base + end] -= rate
            events.append(
                Event(
                    ENGINES[timed.opcode],
                    names[op],
                    start,
                    base + end,
                    {"descriptor": timed.index, **_arguments(layers[op])},
                )
            )
            for part in timed.slices:
                events.append(
                    Event(
                        part.track,
                        names[op],
                        base + move(part.start),
                        base + move(part.end),
                        {"descriptor": timed.index},
                    )
                )
        base += max(completed)
    counters = {
        name: _summed(sorted((time, step) for (other, time), step in moved.items() if other == name)) for name in BUS
    }
    return encode_trace(f"Convoy {report['config']}: {report['model']}", tracks, events, counters)


def _summed(steps: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Values after each step, the last one 0."""
    values = np.maximum(np.cumsum([step for _, step in steps]), 0.0)
    return [(time, float(value)) for (time, _), value in zip(steps, (*values[:-1], 0.0), strict=True)]


def _moved(estimated: list[float], measured: tuple[int, ...]):
    """A function from estimated to measured time: linear between completions."""
    places = np.maximum.accumulate([0.0, *sorted(estimated)])
    ends = np.maximum.accumulate([0, *sorted(measured)])
    return lambda cycle: round(float(np.interp(cycle, places, ends)))


def _arguments(layer: Mapping[str, Any]) -> dict[str, int | float]:
    """What a click on a job shows."""
    return {"layer cycles": layer["cycles"], "busy cycles": layer["busy_cycles"]} | {
        f"lost: {cause}": cycles for cause, cycles in layer["lost"].items() if cycles
    }


def memory_map(plan: Plan) -> list[dict[str, Any]]:
    """Memory in use: `kind`, `name`, first byte, and the byte behind the last one, in order of addresses."""
    tensors = plan.graph.tensors
    pieces = [
        {"kind": "activations", "name": tensors[index].name, "start": place.addr, "end": place.addr + place.num_bytes}
        for index, place in plan.placements.items()
    ]
    for step in plan.steps:
        if isinstance(step, NpuStep) and step.program.descriptors:
            pieces += _program_map(step.program)
    return sorted(pieces, key=lambda piece: (piece["start"], piece["end"]))


def _program_map(program: Program) -> list[dict[str, Any]]:
    *constants, descriptors = program.image
    pieces = [
        {
            "kind": "descriptors",
            "name": "program",
            "start": descriptors[0],
            "end": descriptors[0] + len(descriptors[1]),
        },
        {
            "kind": "records",
            "name": "completion records",
            "start": program.record_addr,
            "end": program.record_addr + COMPLETION.num_bytes * len(program.descriptors),
        },
    ]
    if constants:
        start, end = constants[0][0], constants[-1][0] + len(constants[-1][1])
        pieces.append({"kind": "constants", "name": "weights, parameters, tables", "start": start, "end": end})
    return pieces


def write_profile_page(path: Path, plan: Plan, deployed: Plan, report: Mapping[str, Any]) -> None:
    """Roofline, lost cycles, utilisation, traffic and memory map as one page that needs no other file; needs the
    extra `plots`.

    `plan` is the one of `report`; `deployed` has the memory that the network needs to run, without tensors kept for a
    comparison.
    """
    from .host_report import share_line
    from .html_page import Section, write_page
    from .profile_charts import losses, memory, roofline, traffic, utilisation
    from .report import COLUMN_MEANINGS, layer_cells, summary
    from .tables import meanings_text

    columns, rows = layer_cells(report)
    sections = [
        Section(
            "Where cycles go",
            (
                "The cycles of each layer, mean over the cores. Useful: a core multiplies; edge: it multiplies for "
                "pixels past an edge of the image. The others are lost, by cause: it waits for weights, for a window "
                "of pixels, for other cores (imbalance), for results to be written (drain), for the "
                "memory port (bus), for a job (dispatch), or for the tensor processor (tp)."
            ),
            [losses(report)],
        ),
        Section(
            "Roofline",
            "Speed against bytes read or written, whichever are more: no layer can be above the line, which is what "
            "the memory port (left) or the multipliers (right) allow. Only zero weights, which are counted but "
            "skipped, take a layer above it. The larger a dot, the more cycles the layer takes. The largest layers, "
            "as many as there is room for, have their number and how many times their floor they take.",
            [roofline(report)],
        ),
        Section(
            "Utilisation",
            (
                "Multiplications of the dense layer, zeros included, as a share of the peak: more than the busy share "
                "where weights are zero."
            ),
            [utilisation(report)],
        ),
        Section(
            "Traffic",
            "Bytes over the memory port that belong to each layer, also those that were read ahead.",
            [traffic(report)],
        ),
        Section(
            "Memory",
            f"{deployed.memory_bytes:,} bytes, as `convoy compile` makes it: tensors that are not alive at the same "
            "time share memory. In this run every tensor "
            f"had a place of its own, so that it can be compared: {plan.memory_bytes:,} bytes.",
            [memory(memory_map(deployed))],
        ),
        Section("Layers", meanings_text(COLUMN_MEANINGS), columns=columns, rows=rows),
    ]
    if report["host_ops"]:
        sections.append(
            Section(
                "On the CPU",
                f"Operators that the NPU does not execute; their time is not counted. {share_line(report)}.",
                columns=("#", "op", "step", "reason", "remedy"),
                rows=[
                    (op["number"], op["op"], str(op["group"]), op["reason"], op["remedy"] or "")
                    for op in report["host_ops"]
                ],
            )
        )
    write_page(
        path,
        f"Profile of {Path(report['model']).name}",
        " ".join(f"{line[0].upper()}{line[1:]}." for line in summary(report)[-5:]),
        sections,
    )
