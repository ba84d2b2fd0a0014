"""What reports say of the host: reasons, remedies, bytes and turns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.report.host_report import (
    NOT_QUANTISED,
    REMEDIES,
    host_groups,
    host_lines,
    notes,
    remedy,
    share_line,
    shares,
)
from convoy.driver.report.plan_report import plan_report
from convoy.spec.config import PRESETS
from convoy.verif.litert import ModelBuilder, unary_model

DRIVER = Path(__file__).parents[3] / "driver"


def island() -> bytes:
    """LOGISTIC on the NPU, SOFTMAX twice on the host, LOGISTIC on the NPU."""
    builder = ModelBuilder()
    tensors = [builder.tensor((1, 8), np.int8, 1 / 256, -128) for _ in range(5)]
    for kind, source, target in zip(("LOGISTIC", "SOFTMAX", "SOFTMAX", "LOGISTIC"), tensors, tensors[1:], strict=False):
        builder.op(kind, [source], [target], **({"beta": 1.0} if kind == "SOFTMAX" else {}))
    return builder.finish(tensors[:1], tensors[4:])


def test_bytes_and_turns():
    plan = compile_graph(read_tflite(island()), PRESETS["Q"])
    assert host_groups(plan) == [{"ops": [1, 2], "bytes_to_host": 8, "bytes_to_npu": 8}]
    assert shares(plan) == {"npu_macs_percent": None, "npu_ops_percent": 50.0, "host_round_trips": 1}
    report = plan_report(plan)
    assert share_line(report) == (
        "the NPU does 50% of the operators; CPU: 1 step, 1 round trip, 8 bytes from the NPU, 8 bytes to it"
    )


def test_operators_of_one_kind_and_reason_are_one_line():
    entries = [{"op": "EXP", "reason": "why", "remedy": "how", "group": 0, "number": str(index)} for index in range(9)]
    assert host_lines([*entries, {**entries[0], "group": 1, "remedy": None}]) == [
        "EXP (operators 0, 1, 2, 3, 4, 5 and 3 more) run on the CPU: why (how)",
        "EXP (operator 0) runs on the CPU: why",
    ]


@pytest.mark.parametrize("part", REMEDIES)
def test_each_remedy_is_for_a_reason_of_the_compiler(part):
    text = " ".join(
        path.read_text() for folder in ("lower", "graph", "compile") for path in (DRIVER / folder).glob("*.py")
    )
    assert part in text or part.rpartition(" ")[0] in text  # the last word may be a dtype
    assert remedy(f"... {part} ...")


def test_a_network_of_floats_is_told_how_to_be_quantised():
    floats = unary_model("LOGISTIC", (4, 64), (None, 0), (None, 0), (np.float32, np.float32))
    assert notes(read_tflite(floats)) == [NOT_QUANTISED]
    assert notes(read_tflite(island())) == []
