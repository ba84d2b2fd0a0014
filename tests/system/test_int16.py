"""Layers of int16 on the compiled RTL of several configurations, every tensor against LiteRT: operations on two
tensors, strides split by TP, fused pools.
"""

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_with_costs
from convoy.driver.runtime.device import MemoryModel
from convoy.verif.campaign import RTL_CONFIGS, run_example
from convoy.verif.graphs import GraphMaker
from convoy.verif.strategies import out_size

WITH_INT16 = [name for name, config in RTL_CONFIGS.items() if config.has_int16]
STALLING = MemoryModel(latency_cycles=7, stall_percent=30, seed=3)


def check(graph, name, memory=MemoryModel()):
    """Run the graph; the plan."""
    compiled = compile_with_costs(graph, RTL_CONFIGS[name], keep_tensors=True)
    run_example(graph, compiled, "native", memory, 1, True)
    return compiled.plan


@pytest.mark.parametrize("name", WITH_INT16)
@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"])
@pytest.mark.parametrize("b_shape", [(1, 9, 11, 6), (1, 1, 1, 6), (1, 9, 1, 1)])
def test_operations_on_two_tensors(name, kind, b_shape):
    """B of the same shape, repeated, and constant with the least value in it."""
    shape, scale = (1, 9, 11, 6), 0.002
    maker = GraphMaker(len(b_shape), np.int16)
    data = maker.rng.integers(-32768, 32768, b_shape).astype(np.int16)
    data.flat[0] = -32768
    a, b, constant = (
        maker.tensor(shape, scale=scale),
        maker.tensor(b_shape, scale=scale),
        maker.tensor(b_shape, data=data, scale=scale),
    )
    options = {} if kind in ("MAXIMUM", "MINIMUM") else {"activation": "NONE"}
    outputs = [maker.op(kind, operands, shape, **options) for operands in ((a, b), (constant, a))]
    plan = check(maker.graph([a, b], outputs), name, STALLING)
    assert set(plan.steps[0].engines.values()) == {"tp"}


@pytest.mark.parametrize("name", WITH_INT16)
@pytest.mark.parametrize(("stride", "kernel"), [((3, 3), (3, 3)), ((5, 1), (4, 2)), ((4, 7), (3, 9)), ((8, 6), (2, 2))])
@pytest.mark.parametrize("is_depthwise", [False, True])
def test_strides_that_the_core_does_not_have(name, stride, kernel, is_depthwise):
    maker, sizes = GraphMaker(stride[0], np.int16), (26, 23)
    num_ic, num_oc = 5, 5 if is_depthwise else 6
    shape, axis = ((1, *kernel, num_oc), 3) if is_depthwise else ((num_oc, *kernel, num_ic), 0)
    source, weights = maker.tensor((1, *sizes, num_ic)), maker.weights(shape, num_oc, axis)
    outs = [out_size(size, taps, step, 1, 0, 0) for size, taps, step in zip(sizes, kernel, stride, strict=True)]
    bias = maker.bias(num_oc, maker.tensors[weights].data.size // num_oc, is_long=is_depthwise)
    last = maker.op(
        "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D",
        (source, weights, bias),
        (1, *outs, num_oc),
        stride_h=stride[0],
        stride_w=stride[1],
        padding="VALID",
        activation="NONE",
    )
    assert check(maker.graph([source], [last]), name).steps[0].engines == {0: "nn+tp"}


@pytest.mark.parametrize("name", WITH_INT16)
@pytest.mark.parametrize(("extent", "size"), [(12, 2), (15, 3)])
@pytest.mark.parametrize("stride", [1, 3])
def test_fused_pools(name, extent, size, stride):
    """Behind native strides, and behind phase planes."""
    maker = GraphMaker(extent, np.int16)
    source, side = maker.tensor((1, extent * stride, extent * stride, 5)), extent // 2
    weights = maker.weights((7, 3, 3, 5), 7, 0)
    last = maker.op(
        "CONV_2D",
        (source, weights, maker.bias(7, 45)),
        (1, extent, extent, 7),
        stride_h=stride,
        stride_w=stride,
        padding="SAME",
        activation="RELU",
    )
    last = maker.op(
        "MAX_POOL_2D",
        (last,),
        (1, side, side, 7),
        padding="VALID",
        filter_h=size,
        filter_w=size,
        stride_h=2,
        stride_w=2,
        activation="NONE",
    )
    assert check(maker.graph([source], [last]), name, STALLING).steps[0].engines[1] == "fused"
