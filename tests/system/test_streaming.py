"""Stock streaming networks (keyword spotters with state) over successive frames, every tensor against LiteRT's
reference kernels.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import random_inputs
from convoy.driver.workload.reference import Reference
from convoy.spec.config import PRESETS

Q = PRESETS["Q"]
NUM_STEPS = 20
NAMES = "alexa", "hey_jarvis", "hey_mycroft", "okay_nabu"

pytestmark = pytest.mark.skipif(
    find_spec("pymicro_wakeword") is None, reason="pymicro-wakeword, whose networks these are, is not installed"
)


def read(name: str) -> bytes:
    """A network of the package pymicro-wakeword, which need not be imported for that."""
    (folder,) = find_spec("pymicro_wakeword").submodule_search_locations
    return (Path(folder) / "models" / f"{name}.tflite").read_bytes()


@pytest.mark.parametrize("device_name", ["golden", "native"])
@pytest.mark.parametrize("name", NAMES)
def test_wake_words(name, device_name):
    model = read(name)
    graph = read_tflite(model)
    plan = compile_graph(graph, Q, keep_tensors=True)
    assert len(graph.variables) == len(plan.keeps) == 6
    device = open_device(device_name, Q)
    try:
        session = Session(plan, device)
        reference, first = Reference(model), None
        for step in range(NUM_STEPS):
            inputs = random_inputs([graph.tensors[index] for index in graph.inputs], step)
            execution, expected = session.run(inputs), reference.run(list(inputs.values()))
            first = first or execution
            for op in graph.ops:
                for index in op.outputs:
                    if index not in execution.tensors:
                        is_view = op.kind in ("RESHAPE", "STRIDED_SLICE")  # what reads it takes its source as it is
                        assert is_view or "is not stored" in plan.notes[op.index]
                        continue
                    np.testing.assert_array_equal(
                        execution.tensors[index],
                        expected[index],
                        err_msg=f"step {step}, operator {op.index} {op.kind}",
                        strict=True,
                    )
        session.reset_state()
        again = session.run(random_inputs([graph.tensors[index] for index in graph.inputs], 0))
        for index, values in first.tensors.items():
            np.testing.assert_array_equal(again.tensors[index], values)
    finally:
        device.close()
