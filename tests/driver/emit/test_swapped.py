"""Layers with swapped operands: the compiled plan on the golden machine against the golden layers and LiteRT."""

from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import GraphError
from convoy.driver.plan import fitted, swap
from convoy.driver.workload.reference import run_reference
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.isa import NN, Opcode
from convoy.verif.graphs import GraphMaker, evaluate, random_values, run_plan
from convoy.verif.strategies import bytes_only, configs, conv_graphs, fully_connected_graphs, out_size, residual_graphs

SMALL = NpuConfig(num_cores=2, num_lanes=8, post_lanes=4, num_acc_entries=16, stripe_bytes=4096, window_words=16)
"""Has few channels and few positions of a layer at once."""


@pytest.fixture
def swapping(monkeypatch):
    """Every layer is taken to be faster with its operands swapped."""
    monkeypatch.setattr(fitted, "SWAPPED_CYCLES", -(1 << 40))
    swap._swap_once.cache_clear()
    yield
    swap._swap_once.cache_clear()


def jobs_of(plan):
    """The decoded NN descriptors of a plan."""
    return [NN.decode(raw) for step in plan.steps for raw in step.program.descriptors if raw[0] == Opcode.NN]


def check(graph, config):
    """Every tensor in NPU memory is what the golden layers make of random inputs; the jobs."""
    plan = compile_graph(graph, config, keep_tensors=True)
    inputs = random_values(graph, 0)
    expected, got = evaluate(graph, inputs), run_plan(plan, dict(inputs))
    for op in graph.ops:
        if op.outputs[0] in plan.placements:
            np.testing.assert_array_equal(got[op.outputs[0]], expected[op.outputs[0]], err_msg=op.kind)
    return jobs_of(plan)


@pytest.mark.usefixtures("swapping")
@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    st.one_of(
        conv_graphs(max_kernel=4, dtypes=bytes_only), fully_connected_graphs(dtypes=bytes_only), residual_graphs()
    ),
    st.one_of(configs(), st.just(SMALL)),
)
def test_layers(graph, config):
    with suppress(GraphError):  # what does not fit in any form
        check(graph, config)


def conv(size, num_ic, num_oc, kernel, stride=(1, 1), dilation=(1, 1), pads=(0, 0, 0, 0), dtype=np.int8):
    """A graph of one convolution."""
    maker = GraphMaker(num_ic + num_oc, dtype)
    source = maker.tensor((1, *size, num_ic))
    weights = maker.weights((num_oc, *kernel, num_ic), num_oc, 0)
    if dtype == np.uint8:  # weights less their zero point have 8 bits
        tensor = maker.tensors[weights]
        zero_point = int(tensor.quant.zero_point[0])
        maker.tensors[weights] = replace(
            tensor, data=np.clip(tensor.data, max(zero_point, 128) - 128, min(zero_point, 128) + 127)
        )
    bias = maker.bias(num_oc, num_ic * kernel[0] * kernel[1])
    sizes = [out_size(size[n], kernel[n], stride[n], dilation[n], *pads[2 * n : 2 * n + 2]) for n in range(2)]
    options = {"pads": pads, "stride_h": stride[0], "stride_w": stride[1]}
    options |= {"dilation_h": dilation[0], "dilation_w": dilation[1]}
    return maker.graph([source], [maker.op("CONV_2D", (source, weights, bias), (1, *sizes, num_oc), **options)])


@pytest.mark.usefixtures("swapping")
@pytest.mark.parametrize(
    "graph",
    [
        conv((4, 4), 5, 9, (3, 3), pads=(1, 1, 1, 1)),
        conv((7, 5), 3, 20, (3, 2), stride=(3, 2), pads=(0, 2, 1, 0)),
        conv((9, 9), 2, 17, (2, 3), stride=(8, 5), pads=(1, 0, 2, 1)),
        conv((7, 7), 3, 9, (3, 3), dilation=(2, 3), pads=(2, 2, 3, 3)),
        conv((3, 4), 70, 24, (1, 1)),
        conv((3, 3), 4, 9, (3, 3), pads=(1, 1, 1, 1), dtype=np.uint8),
    ],
    ids=["pads", "stride 3x2", "stride 8x5", "dilation", "pointwise", "uint8"],
)
@pytest.mark.parametrize("config", [SMALL, PRESETS["Q"]], ids=["small", "Q"])
def test_shapes(graph, config):
    assert all(job["is_swapped"] for job in check(graph, config))


@pytest.mark.usefixtures("swapping")
def test_taps_that_meet_pads_only_are_left_out():
    """Of a kernel of 3 x 3 on one pixel one tap is left and the channels are a row, of one of 3 x 5 on a row its middle
    row.
    """
    (job,) = check(conv((1, 1), 4, 8, (3, 3), pads=(1, 1, 1, 1)), PRESETS["Q"])
    assert (job["num_src_planes"], job["src_kernel_h"], job["src_kernel_w"], job["num_z"]) == (1, 1, 4, 4)
    (job,) = check(conv((1, 3), 4, 8, (3, 5), pads=(1, 1, 2, 2)), PRESETS["Q"])
    assert (job["src_kernel_h"], job["src_kernel_w"], job["src_start_y"], job["src_start_x"]) == (1, 5, 0, -2)


@pytest.mark.usefixtures("swapping")
def test_rings_follow_one_another():
    """Images larger than the memory; each is loaded behind the one before, while that is read."""
    jobs = check(conv((2, 2), 40, 150, (3, 3), pads=(1, 1, 1, 1)), SMALL)
    assert len(jobs) > 2
    for before, job in pairwise(jobs):
        end = before["stripe_word"] + before["num_ic"] * before["channel_words"]
        assert job["stripe_word"] == end % SMALL.stripe_words
        assert not job["load_after_fill"]
        assert job["num_ic"] > job["ring_channels"] > 1


@pytest.mark.usefixtures("swapping")
def test_positions_in_several_jobs():
    """32 positions fit; those of rows, or of the only row, are cut."""
    for size in ((10, 6), (1, 50)):
        jobs = check(conv(size, 3, 8, (1, 1)), SMALL)
        assert {job["src_oh"] * job["src_ow"] for job in jobs} <= set(range(33))
        assert len({job["out_addr"] for job in jobs}) > 1


@pytest.mark.usefixtures("swapping")
def test_a_chain_waits_for_what_it_gathers():
    """The second layer's pixels wait for the first one; a layer that is not swapped waits for itself, although a
    swapped one has waited before.
    """
    maker = GraphMaker(3)
    source = maker.tensor((1, 4, 4, 8))

    def layer(index, kernel):
        weights = maker.weights((8, kernel, kernel, 8), 8, 0)
        return maker.op("CONV_2D", (index, weights, -1), (1, 4, 4, 8), padding="SAME", stride_h=1, stride_w=1)

    first = layer(source, 1)
    second = layer(first, 3)
    kernels = maker.weights((1, 3, 3, 8), 8, 3)
    third = maker.op("DEPTHWISE_CONV_2D", (first, kernels, -1), (1, 4, 4, 8), padding="SAME")
    jobs = check(maker.graph([source], [second, third]), PRESETS["Q"])
    assert {(job["tag"], job["is_swapped"]): job["wait_nn"] for job in reversed(jobs)} == {
        (0, 1): 0,
        (1, 1): 1,
        (2, 0): 1,
    }


@pytest.mark.parametrize("lut", ["none", "tanh"])
@pytest.mark.usefixtures("swapping")
def test_equals_litert(lut):
    layer = make_layer(LayerSpec("conv", (4, 4, 16), 20, (3, 3), (2, 2), pads=(0, 1, 0, 1), activation="relu", lut=lut))
    plan = compile_graph(layer.graph, PRESETS["Q"], keep_tensors=True)
    assert all(job["is_swapped"] for job in jobs_of(plan))
    values = random_values(layer.graph, 1)
    got, expected = run_plan(plan, dict(values)), run_reference(layer.reference_model, list(values.values()))
    for index in plan.placements:
        if index in expected:
            np.testing.assert_array_equal(got[index], expected[index])
