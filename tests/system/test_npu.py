"""The whole NPU, compiled by Verilator, against the golden layers: random layers, memories and configurations.

`CONVOY_EXAMPLES` sets the number of layers per configuration, `CONVOY_SEED` another starting point; `make campaign` uses both.
"""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from convoy.driver.compile import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.graph import GraphError
from convoy.driver.runtime import Session
from convoy.spec.config import PRESETS, NpuConfig
from convoy.verif.graphs import evaluate, random_values
from convoy.verif.strategies import layer_graphs, memory_models

CONFIGS = {
    "Q": PRESETS["Q"],
    "small": NpuConfig(num_cores=2, num_lanes=8, num_acc_entries=16, port_bits=128, post_lanes=2, stripe_bytes=4096, window_words=32,
                       weight_fifo_beats=32, tp_buffer_bytes=1024, max_reads=3, pool_line_bytes=32, pool_channels=8),
    "wide": NpuConfig(num_cores=1, num_lanes=32, port_bits=32, post_lanes=16, stripe_bytes=8192, max_burst_beats=4),
}
LIMITS = ("window memory", "stripe memory", "TP buffer")


@pytest.mark.parametrize("name", CONFIGS)
def test_random_layers(name):
    config = CONFIGS[name]

    @seed(int(os.environ.get("CONVOY_SEED", "1")))
    @settings(deadline=None, max_examples=int(os.environ.get("CONVOY_EXAMPLES", "60")), suppress_health_check=list(HealthCheck),
              phases=[Phase.explicit, Phase.generate, Phase.shrink], database=None)
    @given(layer_graphs(), memory_models(), st.integers(0, 1000))
    def check(graph, memory_model, input_seed):
        try:
            plan = compile_graph(graph, config, keep_tensors=True)
        except GraphError as error:
            assume(not any(limit in str(error) for limit in LIMITS))
            raise
        inputs = random_values(graph, input_seed)
        device = open_device("native", config, memory_model)
        try:
            execution = Session(plan, device).run(inputs)
        finally:
            device.close()
        expected = evaluate(graph, inputs)
        for op in graph.ops:
            if op.outputs[0] not in plan.placements:
                assert "is not stored" in plan.notes[op.index]
                continue
            np.testing.assert_array_equal(execution.tensors[op.outputs[0]], expected[op.outputs[0]])

    check()
