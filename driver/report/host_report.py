"""What the host does of a network, why, what it costs, and what would help."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from convoy.driver.emit.program import HostStep, NpuStep, Plan
from convoy.driver.graph.graph import Graph
from convoy.driver.plan.macs import dense_macs

__all__ = ["REMEDIES", "host_groups", "host_lines", "notes", "remedy", "share_line", "shares"]

_MAX_NUMBERS = 6
"""Operators of one kind that a line names."""
NOT_QUANTISED = (
    "the network is not quantised, so that all of it runs on the CPU: convert it with "
    "converter.optimizations = [tf.lite.Optimize.DEFAULT] and a converter.representative_dataset"
)
_QUANTISE_TOO = "quantise activations too: convert with a representative dataset"
REMEDIES = {
    "SOFTMAX is not supported": "usual at the end; where only the largest value matters leave it out",
    "conversion between number formats": "at an edge let it be int8; inside quantise what lies between",
    "not on float": _QUANTISE_TOO,
    "not on int": "use int8 activations",
    "tables of 256 bytes": "use int8 activations",
    "has_int16 = false": "use int8 activations there, or an NPU with has_int16",
    "is int16": "use int8 activations there",
    "keeps a state of its own": "unroll the loop, or keep the state with READ_VARIABLE and ASSIGN_VARIABLE",
    "; the limit is 1..": "stay within the limit, or do it in several layers",
    "the limit is": "stay within the limit",
    "grouped convolutions": "split the channels into convolutions of their own",
    "batch ": "run the images one after another",
    "results have 16": "use int8 activations",
    "cannot be applied exactly": "calibrate again: another scale of that tensor will do",
    "must have the same scale": "quantise both tensors alike",
    "quantise both alike": "convert again: activations and weights of one kind",
    "quantise anew": "convert again",
    "the default weights format": "store the weights in the default format",
    "needs one scale": "quantise activations per tensor",
    "is not supported by the NPU": "`convoy operators` lists what the NPU takes",
}
"""By a part of the reason; the first one that fits."""


def remedy(reason: str) -> str | None:
    """What would bring an operator with this reason to the NPU, if there is something to say."""
    return next((text for part, text in REMEDIES.items() if part in reason), None)


def notes(graph: Graph) -> list[str]:
    """What is to be said of the network before anything else, in sentences."""
    made = [graph.tensors[index].dtype for op in graph.ops for index in op.outputs]
    is_float = bool(made) and all(dtype.kind in "fc" for dtype in made)
    return [*graph.notes, *([NOT_QUANTISED] if is_float else [])]


def host_groups(plan: Plan) -> list[dict[str, Any]]:
    """For each step of the host, in order: `ops` (operator indices), and the bytes that it takes from the NPU
    (`bytes_to_host`) and leaves to it (`bytes_to_npu`).
    """
    ops = {op.index: op for op in plan.graph.ops}
    layers = [ops[index] for step in plan.steps if isinstance(step, NpuStep) for index in step.layers]
    made, read = ({index for op in layers for index in getattr(op, side)} for side in ("outputs", "inputs"))

    def num_bytes(indices: set[int]) -> int:
        tensors = [plan.graph.tensors[index] for index in indices]
        return sum(prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors)

    return [
        {
            "ops": [op.index for op in step.ops],
            "bytes_to_host": num_bytes(made & set(step.inputs(plan.graph))),
            "bytes_to_npu": num_bytes(read & set(step.outputs)),
        }
        for step in plan.steps
        if isinstance(step, HostStep)
    ]


def shares(plan: Plan) -> dict[str, Any]:
    """What the NPU does of the network: `npu_macs_percent` (None without any), `npu_ops_percent`; and
    `host_round_trips`, the steps of the host between programs of the NPU.
    """
    macs, count = {True: 0, False: 0}, {True: 0, False: 0}
    ops = {op.index: op for op in plan.graph.ops}
    for step in plan.steps:
        done = list(step.ops) if isinstance(step, HostStep) else [ops[index] for index in step.layers]
        macs[isinstance(step, NpuStep)] += sum(dense_macs(plan.graph, op) for op in done)
        count[isinstance(step, NpuStep)] += len(done)
    programs = [
        number for number, step in enumerate(plan.steps) if isinstance(step, NpuStep) and step.program.descriptors
    ]
    between = range(programs[0], programs[-1]) if programs else range(0)
    return {
        "npu_macs_percent": _percent(macs[True], sum(macs.values())),
        "npu_ops_percent": _percent(count[True], sum(count.values())),
        "host_round_trips": sum(isinstance(plan.steps[number], HostStep) for number in between),
    }


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 3) if whole else None


def host_lines(host_ops: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each kind of operator and reason in each group; `host_ops` have `op`, `number`, `reason`, `remedy` and
    `group`.
    """
    found: dict[tuple, list[str]] = defaultdict(list)
    for op in host_ops:
        found[op["group"], op["op"], op["reason"], op["remedy"]].append(op["number"])
    return [
        f"{kind} ({_numbered(numbers)}) {'runs' if len(numbers) == 1 else 'run'} on the CPU: {reason}"
        + (f" ({advice})" if advice else "")
        for (_, kind, reason, advice), numbers in found.items()
    ]


def _numbered(numbers: list[str]) -> str:
    text = ", ".join(numbers[:_MAX_NUMBERS])
    more = f" and {len(numbers) - _MAX_NUMBERS} more" if len(numbers) > _MAX_NUMBERS else ""
    return f"operator{'s' * (len(numbers) > 1)} {text}{more}"


def share_line(report: Mapping[str, Any]) -> str:
    """What the NPU does, and what the work of the host costs, in a line; `report` has `shares` and `host_groups`."""
    macs = report["npu_macs_percent"]
    groups = report["host_groups"]
    to_host, to_npu = (sum(group[name] for group in groups) for name in ("bytes_to_host", "bytes_to_npu"))
    return (
        f"the NPU does {report['npu_ops_percent']:g}% of the operators"
        + (f" and {macs:g}% of the multiplications" if macs is not None else "")
        + f"; CPU: {len(groups)} step{'s' * (len(groups) != 1)}, "
        f"{report['host_round_trips']} round trip{'s' * (report['host_round_trips'] != 1)}, "
        f"{to_host:,} bytes from the NPU, {to_npu:,} bytes to it"
    )
