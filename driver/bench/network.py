"""What Convoy makes of one network: does it run, exactly, on which engine, how fast, how near to what is possible."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.reader import load_network
from convoy.driver.report.report import build_report, estimate_report
from convoy.driver.runtime.device import DeviceError, MemoryModel
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import random_inputs
from convoy.driver.workload.reference import Compared
from convoy.spec.config import NpuConfig

from .peer import find_peer, run_peer

__all__ = ["examine"]

SEED = 1
"""Of the inputs."""


def examine(model: Path, npu: NpuConfig, rtl_cycles: int = 0) -> dict[str, Any]:
    """Compile a network, run it on the golden model, compare every tensor with the reference, estimate its cycles and
    those of the peer, if that is installed.

    Parameters
    ----------
    rtl_cycles
        A network that is estimated to take no more is simulated on the RTL instead of the golden model, and its
        cycles are measured.

    Returns
    -------
    dict
        `refusal` when the compiler or a run refuses it, and then `reference_refusal`, None if the reference runs it;
        otherwise the figures of a row of the table.
    """
    found: dict[str, Any] = {"refusal": None}
    try:
        return found | _run(model, npu, rtl_cycles)
    except (GraphError, DeviceError) as error:
        return {"refusal": str(error), "reference_refusal": _refusal_of_reference(model)}


def _run(model: Path, npu: NpuConfig, rtl_cycles: int) -> dict[str, Any]:
    memory = MemoryModel()
    loaded = load_network(model)
    begin = time.process_time()
    plan = compile_graph(loaded.graph, npu, keep_tensors=True)
    seconds = time.process_time() - begin
    timed = estimate_report(plan, memory, model=model.name, config=npu.name)
    device_name = "native" if timed["cycles"] <= rtl_cycles else "golden"
    inputs = random_inputs([plan.graph.tensors[index] for index in plan.graph.inputs], SEED)
    device = open_device(device_name, npu, memory)
    try:
        execution = Session(plan, device).run(inputs)
    finally:
        device.close()
    reference = Compared(loaded, plan.doubtful)
    expected = reference.run(list(inputs.values()), execution.tensors)
    report, mismatches = build_report(
        plan,
        device,
        execution,
        model=model.name,
        config=npu.name,
        device_name=device_name,
        reference=reference.name,
        expected=expected,
        reference_note=reference.note,
    )
    reasons = Counter((op["op"], op["reason"]) for op in report["host_ops"])
    kinds = sorted({kind for kind, _ in reasons})
    program = find_peer()
    peer = run_peer(program, model, npu, memory, kinds) if program else None
    return {
        "device": device_name,
        "bit_exact": report["bit_exact"],
        "note": reference.note,
        "mismatches": [str(mismatch) for mismatch in mismatches[:3]],
        "macs": report["macs"],
        "host_macs": report["host_macs"],
        "host_ops": [{"op": kind, "reason": reason, "number": number} for (kind, reason), number in reasons.items()],
        "num_ops": len(plan.graph.ops),
        "cycles": execution.cycles if device_name == "native" else timed["cycles"],
        "estimated_cycles": timed["cycles"],
        "floor_cycles": timed["floor_cycles"],
        "worst": _worst(timed),
        "peer_cycles": peer.cycles if peer and not peer.refusal else None,
        "peer_refusal": peer.refusal if peer else None,
        "compile_seconds": round(seconds, 2),
    }


def _worst(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The kinds of operators that are farthest above their floor, in cycles."""
    lost: Counter[str] = Counter()
    for layer in report["layers"]:
        lost[layer["op"]] += layer["cycles"] - layer["floor_cycles"]
    return [{"op": kind, "cycles": cycles} for kind, cycles in lost.most_common(3)]


def _refusal_of_reference(model: Path) -> str | None:
    try:
        loaded = load_network(model)
    except GraphError as error:
        return str(error)
    reference = Compared(loaded)
    inputs = random_inputs([loaded.graph.tensors[index] for index in loaded.graph.inputs], SEED)
    return None if reference.run(list(inputs.values())) is not None else reference.note
