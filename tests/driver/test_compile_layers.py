"""Single layers of random shape on random, mostly small configurations: the compiled plan on the golden machine against the golden layers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile import compile_graph, compile_with_costs
from convoy.driver.graph import GraphError
from convoy.spec.config import PRESETS, NpuConfig
from convoy.verif.graphs import GraphMaker, evaluate, run_plan

PROPERTY = settings(deadline=None, max_examples=30, derandomize=True)


@st.composite
def configs(draw) -> NpuConfig:
    lanes = draw(st.sampled_from([8, 16, 32]))
    return NpuConfig(
        num_cores=draw(st.sampled_from([1, 2, 4, 8, 16])), num_lanes=lanes, num_acc_entries=draw(st.sampled_from([16, 64])),
        post_lanes=draw(st.sampled_from([1, 4, lanes // 2])), stripe_bytes=draw(st.sampled_from([4096, 65536])),
        window_words=draw(st.sampled_from([32, 64])), port_bits=draw(st.sampled_from([32, 64, 256])),
        tp_buffer_bytes=draw(st.sampled_from([1024, 16384])),
    )


def out_size(size, kernel, stride, dilation, before, after):
    return (size + before + after - (kernel - 1) * dilation - 1) // stride + 1


def same_pads(size, kernel, stride, dilation):
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


@st.composite
def conv_graphs(draw):
    """A convolution or depthwise convolution, and its input."""
    maker = GraphMaker(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 70))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride, dilation = (draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) for _ in range(2))
    options = {"stride_h": stride[0], "stride_w": stride[1], "dilation_h": dilation[0], "dilation_w": dilation[1],
               "activation": draw(st.sampled_from(["NONE", "RELU", "RELU6"]))}
    if draw(st.booleans()):
        options["padding"] = "SAME"
        pads = sum((same_pads(size, *rest) for size, *rest in zip((height, width), kernel, stride, dilation, strict=True)), ())
    else:
        pads = options["pads"] = draw(st.tuples(*[st.integers(0, 7)] * 4))
    sizes = [out_size(size, kernel[axis], stride[axis], dilation[axis], *pads[2 * axis:2 * axis + 2]) for axis, size in enumerate((height, width))]
    if min(sizes) < 1:
        height, width = height + 10, width + 10
        options.pop("pads", None)
        options["padding"] = "SAME"
        sizes = [-(-height // stride[0]), -(-width // stride[1])]
    num_ic, is_depthwise, density = draw(st.integers(1, 9)), draw(st.booleans()), draw(st.sampled_from([1.0, 0.5, 0.05]))
    num_oc = num_ic * draw(st.integers(1, 3)) if is_depthwise else draw(st.integers(1, 20))
    source = maker.tensor((1, height, width, num_ic))
    if is_depthwise:
        weights = maker.weights((1, *kernel, num_oc), num_oc, 3, density)
    else:
        weights = maker.weights((num_oc, *kernel, num_ic), num_oc, 0, density)
    bias = maker.tensor((num_oc,), np.int32, maker.rng.integers(-2000, 2000, num_oc).astype(np.int32))
    kind = "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D"
    target = maker.op(kind, (source, weights, bias), (1, *sizes, num_oc), **options)
    return maker.graph([source], [target])


def refusal(graph, config) -> str:
    """What the compiler says when it refuses the graph; empty when it does not."""
    try:
        compile_graph(graph, config)
    except GraphError as error:
        return str(error)
    return ""


def check(graph, config):
    """Every tensor in NPU memory is what the golden layers make of random inputs."""
    plan = compile_graph(graph, config, keep_tensors=True)
    rng = np.random.default_rng(0)
    inputs = {index: rng.integers(-128, 128, graph.tensors[index].shape).astype(np.int8) for index in graph.inputs}
    expected, got = evaluate(graph, inputs), run_plan(plan, dict(inputs))
    for op in graph.ops:
        np.testing.assert_array_equal(got[op.outputs[0]], expected[op.outputs[0]], err_msg=f"{op.index} {op.kind}")


@PROPERTY
@given(conv_graphs(), configs())
def test_convolutions(graph, config):
    if message := refusal(graph, config):
        assert config.window_words == 32 or config.stripe_bytes == 4096, message
        assert "window memory" in message or "stripe memory" in message
    else:
        check(graph, config)


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.sampled_from(["MAX_POOL_2D", "AVERAGE_POOL_2D"]), st.integers(1, 40), st.integers(1, 40), st.integers(1, 20),
       st.tuples(*[st.integers(1, 6)] * 4), st.booleans(), st.sampled_from(["NONE", "RELU6"]), configs())
def test_pools(seed, kind, height, width, num_ic, shape, is_same, activation, config):
    kernel_h, kernel_w, stride_h, stride_w = shape
    kernel_h, kernel_w = min(kernel_h, height), min(kernel_w, width)
    maker = GraphMaker(seed)
    source = maker.tensor((1, height, width, num_ic))
    sizes = (-(-height // stride_h), -(-width // stride_w)) if is_same else ((height - kernel_h) // stride_h + 1, (width - kernel_w) // stride_w + 1)
    target = maker.op(kind, (source,), (1, *sizes, num_ic), padding="SAME" if is_same else "VALID", filter_h=kernel_h, filter_w=kernel_w,
                      stride_h=stride_h, stride_w=stride_w, activation=activation)
    check(maker.graph([source], [target]), config)


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 300), st.integers(1, 40), st.booleans(), st.booleans(), configs())
def test_fully_connected(seed, batch, num_ic, num_oc, is_per_channel, is_flat_input, config):
    maker = GraphMaker(seed)
    source = maker.tensor((batch, num_ic) if is_flat_input else (batch, 1, 1, num_ic))
    weights = maker.weights((num_oc, num_ic), num_oc if is_per_channel else 1, 0)
    bias = maker.tensor((num_oc,), np.int32, maker.rng.integers(-2000, 2000, num_oc).astype(np.int32))
    target = maker.op("FULLY_CONNECTED", (source, weights, bias), (batch, num_oc))
    graph = maker.graph([source], [target])
    if message := refusal(graph, config):
        assert num_ic > config.stripe_words, "batches and prime numbers of channels are not folded"
        assert "stripe memory" in message
    else:
        check(graph, config)


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.floats(0.001, 1.0), st.floats(0.001, 1.0), configs())
def test_add(seed, height, width, num_ic, scale_a, scale_b, config):
    maker = GraphMaker(seed)
    a, b = (maker.tensor((1, height, width, num_ic), scale=scale) for scale in (scale_a, scale_b))
    target = maker.op("ADD", (a, b), (1, height, width, num_ic), activation="RELU")
    check(maker.graph([a, b], [target]), config)


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
