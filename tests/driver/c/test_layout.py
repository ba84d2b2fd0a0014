"""The parts of a network's memory for the C runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convoy.driver.c.layout import ALIGN_BYTES, layout_of
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.program import NpuStep
from convoy.driver.emit.relocate import DESCRIPTORS
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.spec.config import PRESETS

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"


@pytest.fixture(scope="module")
def program():
    plan = compile_graph(read_tflite(DIGITS), PRESETS["S"])
    (found,) = (step.program for step in plan.steps if isinstance(step, NpuStep))
    return found


def test_constants_are_found_where_descriptors_say(program):
    """Each table begins with the bytes that it has in the image of the plan."""
    layout = layout_of([program])
    memory = np.zeros(program.record_addr, np.uint8)
    for addr, data in program.image:
        memory[addr : addr + len(data)] = np.frombuffer(data, np.uint8)
    assert layout.constants_offset % ALIGN_BYTES == 0
    checked = 0
    for before, after in zip(program.descriptors, layout.descriptors, strict=True):
        record = DESCRIPTORS[before[0]]
        old, new = record.decode(before), record.decode(after)
        for name in record.fields:
            if name in ("wgt_addr", "param_addr", "tap_addr", "stream_addr") and old[name] >= layout.activation_bytes:
                start = new[name] - layout.constants_offset
                assert layout.constants[start : start + 16] == memory[old[name] : old[name] + 16].tobytes()
                checked += 1
            elif old[name] < layout.activation_bytes or not name.endswith("_addr"):
                assert new[name] == old[name]
    assert checked > len(program.descriptors)


def test_programs_follow_one_another(program):
    """The constants of each are kept apart, records are shared."""
    one, two = layout_of([program]), layout_of([program, program])
    count = len(program.descriptors)
    assert two.programs == ((0, count), (count, count))
    assert two.constants == 2 * one.constants
    assert two.descriptors[:count] == one.descriptors != two.descriptors[count:]
    assert two.num_records == one.num_records == count
    assert two.memory_bytes - one.memory_bytes == len(one.constants) + sum(map(len, one.descriptors))
