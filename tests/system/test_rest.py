"""Units at rest miss nothing: random layers take the same cycles, and give the same tensors, as when every unit has
its clock all the time.

`CONVOY_EXAMPLES` and `CONVOY_SEED` as in test_npu.py.
"""

import os

import numpy as np
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices.native import NativeDevice
from convoy.driver.graph.graph import GraphError
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import random_inputs
from convoy.spec.config import NpuConfig
from convoy.verif.strategies import layer_graphs, memory_models

CONFIG = NpuConfig(
    num_cores=2,
    num_lanes=8,
    num_acc_entries=16,
    port_bits=128,
    post_lanes=2,
    stripe_bytes=4096,
    window_words=32,
    weight_fifo_beats=32,
    tp_buffer_bytes=1024,
    max_reads=3,
)


def run(plan, graph, memory_model, input_seed, never_rests):
    device = NativeDevice(CONFIG, memory_model, never_rests=never_rests)
    try:
        return Session(plan, device).run(random_inputs([graph.tensors[index] for index in graph.inputs], input_seed))
    finally:
        device.close()


@seed(int(os.environ.get("CONVOY_SEED", "1")))
@settings(
    deadline=None,
    max_examples=int(os.environ.get("CONVOY_EXAMPLES", "20")),
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    database=None,
)
@given(layer_graphs(), memory_models(), st.integers(0, 1000))
def test_rest_changes_nothing(graph, memory_model, input_seed):
    try:
        plan = compile_graph(graph, CONFIG, keep_tensors=True)
    except GraphError:
        assume(False)
    resting, awake = (run(plan, graph, memory_model, input_seed, never_rests) for never_rests in (False, True))
    assert resting.cycles == awake.cycles
    for index, values in awake.tensors.items():
        np.testing.assert_array_equal(resting.tensors[index], values)
