"""NPUs that lack features: networks give the same results, every tensor against LiteRT, for what is lacking is computed
another way; what nothing else computes goes to the CPU, or is refused by name.
"""

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph, compile_with_costs
from convoy.driver.emit.program import HostStep
from convoy.driver.errors import GraphError
from convoy.driver.runtime.device import MemoryModel
from convoy.spec.config import FEATURES, PRESETS, NpuConfig
from convoy.spec.isa import NN, NN_FEATURES, TP, TP_FEATURES, Opcode
from convoy.verif.campaign import RTL_CONFIGS, reference_graph, run_example
from convoy.verif.estimates import compare
from convoy.verif.graphs import GraphMaker

LACKING = {name: (name,) for name in FEATURES} | {"all": FEATURES}


def network(dtype=np.int8, size=13, channels=16):
    """Convolutions that a table, a sum and pools of both sizes follow; of int16 no table."""
    maker = GraphMaker(3, dtype)
    source = maker.tensor((1, size, size, channels))

    def conv(source):
        shape = maker.tensors[source].shape
        inputs = source, maker.weights((channels, 3, 3, channels), channels, 0), maker.bias(channels, 9 * channels)
        options = {"stride_h": 1, "stride_w": 1, "padding": "SAME", "activation": "RELU"}
        return maker.op("CONV_2D", inputs, shape, **options)

    def pool(source, kernel):
        _, *sizes, num_c = maker.tensors[source].shape
        options = {f"{name}_{axis}": value for name, value in (("filter", kernel), ("stride", 2)) for axis in "hw"}
        shape = (1, *((size - kernel) // 2 + 1 for size in sizes), num_c)
        return maker.op("MAX_POOL_2D", (source,), shape, padding="VALID", activation="NONE", **options)

    first = pool(conv(source), 3)
    last = conv(first) if dtype == np.int16 else maker.op("TANH", (conv(first),), maker.tensors[first].shape)
    both = maker.op("ADD", (conv(last), first), maker.tensors[first].shape, activation="NONE")
    return maker.graph([source], [pool(conv(both), 2)])


def used(plan):
    """The features that descriptors of a plan ask for."""
    found = set()
    for step in plan.steps:
        for raw in () if isinstance(step, HostStep) else step.program.descriptors:
            record, features = (NN, NN_FEATURES) if raw[0] == Opcode.NN else (TP, TP_FEATURES)
            fields = record.decode(raw)
            found |= {feature for name, feature in features.items() if fields[name]}
    return found


@pytest.mark.parametrize("lacking", LACKING)
def test_what_is_lacking_is_done_another_way(lacking):
    config = PRESETS["Q"].with_(**dict.fromkeys(LACKING[lacking], False))
    graph = network()
    compiled = compile_with_costs(graph, config, keep_tensors=True)
    assert not any(isinstance(step, HostStep) for step in compiled.plan.steps)
    fused = {"has_residual", "has_fused_pool", "has_lut"}
    assert used(compile_graph(graph, PRESETS["Q"])) == fused
    assert used(compiled.plan) == fused - {*LACKING[lacking]}
    run_example(graph, compiled, "golden", MemoryModel(), 1, True)


def test_int16_goes_to_the_cpu_or_is_refused():
    config, graph = PRESETS["Q"].with_(has_int16=False), reference_graph(network(np.int16))
    assert used(compile_graph(graph, PRESETS["Q"])) == {"has_int16", "has_fused_pool"}
    compiled = compile_with_costs(graph, config, keep_tensors=True)
    assert used(compiled.plan) == set()
    run_example(graph, compiled, "golden", MemoryModel(), 1, True)
    with pytest.raises(GraphError, match=r"operator 0 CONV_2D .* is int16, and this NPU has has_int16 = false"):
        compile_graph(graph, config, is_strict=True)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_on_the_rtl(dtype):
    graph, memory = reference_graph(network(dtype)), MemoryModel(latency_cycles=7, stall_percent=30, seed=3)
    compiled = compile_with_costs(graph, RTL_CONFIGS["lean"], keep_tensors=True)
    run_example(graph, compiled, "native", memory, 1, True)
    if dtype == np.int8:
        assert abs(compare(compiled.plan).error) < 0.03


@pytest.mark.parametrize("num_cores", [4, 16])
def test_one_result_a_cycle(num_cores):
    """However many cores make them; `test_drain.py` runs as few lanes on the RTL."""
    config = NpuConfig(num_cores=num_cores, num_lanes=8, post_lanes=1, num_acc_entries=16, window_words=16)
    graph = network(size=5, channels=20)
    run_example(graph, compile_with_costs(graph, config, keep_tensors=True), "golden", MemoryModel(), 1, True)
