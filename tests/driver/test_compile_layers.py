"""Single layers of random shape on random, mostly small configurations: the compiled plan on the golden machine against the golden layers."""

import numpy as np
import pytest
from hypothesis import given, settings

from convoy.driver.compile import compile_graph, compile_with_costs
from convoy.driver.graph import GraphError
from convoy.spec.config import PRESETS, NpuConfig
from convoy.verif.graphs import GraphMaker, evaluate, run_plan
from convoy.verif.strategies import configs, layer_graphs, out_size

PROPERTY = settings(deadline=None, max_examples=30, derandomize=True)


def check(graph, config):
    """Every tensor in NPU memory is what the golden layers make of random inputs."""
    plan = compile_graph(graph, config, keep_tensors=True)
    rng = np.random.default_rng(0)
    inputs = {index: rng.integers(-128, 128, graph.tensors[index].shape).astype(np.int8) for index in graph.inputs}
    expected, got = evaluate(graph, inputs), run_plan(plan, dict(inputs))
    for op in graph.ops:
        if op.outputs[0] not in plan.placements:
            assert "is not stored" in plan.notes[op.index]
            continue
        np.testing.assert_array_equal(got[op.outputs[0]], expected[op.outputs[0]], err_msg=f"{op.index} {op.kind}")


def refusal(graph, config) -> str:
    """What the compiler says when it refuses the graph; empty when it does not."""
    try:
        compile_graph(graph, config)
    except GraphError as error:
        return str(error)
    return ""


@PROPERTY
@given(layer_graphs(), configs())
def test_layers(graph, config):
    if message := refusal(graph, config):
        assert "window memory" in message or "stripe memory" in message
    else:
        check(graph, config)


@pytest.mark.parametrize(("height", "width", "num_ic", "num_oc", "kernel", "limit"), [
    (4, 4, 500, 8, 3, "stripe memory of 4096 bytes"), (1, 1, 4099, 8, 1, "stripe memory of 4096 bytes"), (40, 200, 1, 1, 10, "window memory of 16 words"),
])
def test_what_does_not_fit_is_refused(height, width, num_ic, num_oc, kernel, limit):
    maker = GraphMaker()
    source = maker.tensor((1, height, width, num_ic))
    weights = maker.weights((num_oc, kernel, kernel, num_ic), num_oc, 0)
    dilation = 7 if kernel == 10 else 1
    sizes = height - (kernel - 1) * dilation, width - (kernel - 1) * dilation
    if min(sizes) < 1:
        height, width = 64 + height, width
        source = maker.tensor((1, height, width, num_ic))
        sizes = height - (kernel - 1) * dilation, width - (kernel - 1) * dilation
    target = maker.op("CONV_2D", (source, weights, -1), (1, *sizes, num_oc), dilation_h=dilation, dilation_w=dilation)
    with pytest.raises(GraphError, match=rf"operator 0 CONV_2D \('t\d'\): .*{limit}"):
        compile_graph(maker.graph([source], [target]), NpuConfig(stripe_bytes=4096, window_words=16, num_lanes=8, post_lanes=4))


def test_all_pad_combinations_of_one_axis():
    """Pads 0..7 on either side, wider than the kernel too, in stripes of few rows."""
    for top in (0, 1, 3, 7):
        for bottom in (0, 2, 5, 7):
            maker = GraphMaker(top * 8 + bottom)
            source, weights = maker.tensor((1, 9, 6, 3)), maker.weights((5, 3, 2, 3), 5, 0)
            sizes = out_size(9, 3, 1, 1, top, bottom), out_size(6, 2, 1, 1, bottom, top)
            bias = maker.tensor((5,), np.int32, np.zeros(5, np.int32))
            target = maker.op("CONV_2D", (source, weights, bias), (1, *sizes, 5), pads=(top, bottom, bottom, top))
            check(maker.graph([source], [target]), NpuConfig(num_cores=2, num_lanes=8, post_lanes=4, stripe_bytes=4096, window_words=16))


def test_lanes_are_well_filled():
    """Estimates of layers that the dataflow is made for come within 15 % of one multiply per lane and cycle."""
    for height, width, num_ic, num_oc, kernel in ((32, 32, 16, 16, 3), (16, 16, 32, 32, 3), (8, 8, 64, 64, 3), (25, 5, 64, 64, 1), (48, 48, 32, 16, 1)):
        maker = GraphMaker(1)
        source, weights = maker.tensor((1, height, width, num_ic)), maker.weights((num_oc, kernel, kernel, num_ic), num_oc, 0)
        target = maker.op("CONV_2D", (source, weights, -1), (1, height, width, num_oc), padding="SAME")
        compiled = compile_with_costs(maker.graph([source], [target]), PRESETS["Q"])
        ideal = height * width * num_ic * num_oc * kernel * kernel / 64
        assert compiled.tilings[0].cost.cycles < 1.15 * ideal
