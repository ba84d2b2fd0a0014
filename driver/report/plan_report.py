"""What the compiler made of a network; files that `--save` leaves behind."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, JustifyMethod

from convoy.driver.emit.program import MemoryWindow, NpuStep, Plan
from convoy.driver.files import write_file, writing
from convoy.driver.graph.graph import Graph
from convoy.driver.plan.macs import dense_macs
from convoy.driver.runtime.session import plan_inputs
from convoy.spec.csr import WindowControl

from .host_report import host_groups, notes, remedy, share_line, shares
from .report import COLUMN_MEANINGS
from .tables import print_meanings, print_table

__all__ = ["plan_report", "print_plan", "save_plan", "save_tensors"]

_COLUMNS: dict[str, JustifyMethod] = {
    "#": "right",
    "op": "left",
    "engine": "left",
    "descriptors": "right",
    "MACs": "right",
    "stored weights B": "right",
    "reason": "left",
}

_COLUMN_MEANINGS = {
    "engine": COLUMN_MEANINGS["engine"],
    "descriptors": "jobs for the NPU",
    "MACs": COLUMN_MEANINGS["MACs"],
    "stored weights B": "bytes of the encoded weights in memory",
}


def plan_report(plan: Plan) -> dict[str, Any]:
    """Operators with engine, descriptors, MACs and bytes of encoded weights in memory; totals.

    `memory_bytes` is what the network needs to run.
    """
    graph = plan.graph
    ops = {op.index: op for op in graph.ops}
    rows, num_descriptors, image_bytes = [], 0, 0
    for step in plan.steps:
        if isinstance(step, NpuStep):
            counts = Counter(step.program.ops)
            num_descriptors += len(step.program.descriptors)
            image_bytes += sum(len(data) for _, data in step.program.image)
            rows += [
                {
                    "index": index,
                    "name": graph.name_of(ops[index]),
                    "number": ops[index].number,
                    "op": ops[index].title,
                    "engine": step.engines.get(index, "alias"),
                    "descriptors": counts[index],
                    "macs": dense_macs(graph, ops[index]),
                    "stored_weight_bytes": step.weight_bytes.get(index, 0),
                    "reason": plan.notes.get(index, ""),
                }
                for index in step.layers
            ]
        else:
            rows += [
                {
                    "index": op.index,
                    "name": graph.name_of(op),
                    "number": op.number,
                    "op": op.title,
                    "engine": "host",
                    "descriptors": 0,
                    "macs": dense_macs(graph, op),
                    "stored_weight_bytes": 0,
                    "reason": reason,
                    "remedy": remedy(reason),
                }
                for op, reason in zip(step.ops, step.reasons, strict=True)
            ]
    return {
        "memory_bytes": plan.memory_bytes,
        "image_bytes": image_bytes,
        "descriptors": num_descriptors,
        "macs": sum(row["macs"] for row in rows if row["engine"] != "host"),
        "host_macs": sum(row["macs"] for row in rows if row["engine"] == "host"),
        "notes": notes(graph),
        **shares(plan),
        "host_groups": host_groups(plan),
        "ops": sorted(rows, key=lambda row: ops[row["index"]].place),
    }


def print_plan(report: dict[str, Any], console: Console) -> None:
    """The operators of `plan_report` as a table, and totals."""
    rows = [
        (
            row["number"],
            row["op"],
            "cpu" if row["engine"] == "host" else row["engine"],
            f"{row['descriptors']:,}",
            f"{row['macs']:,}",
            f"{row['stored_weight_bytes']:,}",
            f"{row['reason']} ({row['remedy']})" if row.get("remedy") else row["reason"],
        )
        for row in report["ops"]
    ]
    print_table(console, _COLUMNS, rows, ("stored weights B", "MACs", "descriptors"))
    print_meanings(console, _COLUMN_MEANINGS)
    for note in report["notes"]:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    if report["host_groups"]:
        console.print(share_line(report), highlight=False, markup=False, soft_wrap=True)
    console.print(
        (
            f"{report['descriptors']:,} descriptors, {report['image_bytes']:,} bytes of constants, "
            f"{report['memory_bytes']:,} bytes of memory to run"
        ),
        highlight=False,
        soft_wrap=True,
    )


def save_plan(plan: Plan, report: dict[str, Any], folder: Path) -> None:
    """`memory.bin` (from address `plan.base`, constants and first values of variables in place) and `plan.json`
    (programs, with the registers of their memory windows; placements; the tensors to fill in before a run).
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    memory = np.zeros(plan.memory_bytes, np.uint8)
    programs = []
    for step in plan.steps:
        if isinstance(step, NpuStep):
            for addr, data in step.program.image:
                memory[addr - plan.base : addr - plan.base + len(data)] = np.frombuffer(data, np.uint8)
            programs.append(
                {
                    "program_addr": step.program.program_addr,
                    "program_count": len(step.program.descriptors),
                    "record_addr": step.program.record_addr,
                    "windows": [_window(window) for window in step.program.windows],
                }
            )
    for keep in plan.keeps:
        if keep.initial is not None:
            place = keep.placement
            memory[place.addr - plan.base : place.addr - plan.base + place.num_bytes] = np.frombuffer(
                place.pack(keep.initial), np.uint8
            )
    placements = [
        {
            "tensor": index,
            "name": plan.graph.tensors[index].name,
            "addr": place.addr,
            "shape": list(place.shape),
            "layout": place.layout,
            "value_bytes": place.value_bytes,
        }
        for index, place in sorted(plan.placements.items())
    ]
    write_file(folder / "memory.bin", memory.tobytes())
    saved = report | {"base": plan.base, "programs": programs, "placements": placements, "inputs": plan_inputs(plan)}
    write_file(folder / "plan.json", json.dumps(saved, indent=2) + "\n")


def _window(window: MemoryWindow) -> dict[str, int]:
    """Values of the registers WINDOW*_BASE, LIMIT and CONTROL."""
    control = WindowControl.READ * window.is_readable | WindowControl.WRITE * window.is_writable
    return {"base": window.base, "limit": window.limit, "control": int(control)}


def save_tensors(graph: Graph, tensors: dict[int, np.ndarray], report: dict[str, Any], folder: Path) -> None:
    """`NNN_name.npy` for each tensor, NNN its index, and `report.json`."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for index, values in tensors.items():
        name = "".join(char if char.isalnum() or char in "-_" else "_" for char in graph.tensors[index].name)[:80]
        path = folder / f"{index:03d}_{name}.npy"
        with writing(path):
            np.save(path, values)
    write_file(folder / "report.json", json.dumps(report, indent=2) + "\n")
