"""Fully connected layers in other forms, against LiteRT."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest

from convoy.driver.compile import compile_graph
from convoy.driver.compile.lowering import lower_graph
from convoy.driver.emit.program import HostStep
from convoy.driver.graph.graph import GraphError, Quant
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.graph.tflite_writer import write_tflite
from convoy.driver.lower.work import HostWork
from convoy.driver.report.host_report import remedy
from convoy.spec.config import PRESETS
from convoy.verif.graphs import GraphMaker
from convoy.verif.models import check_model

Q = PRESETS["Q"]
NUM_IC = 1024


def dense(dtype, *, seed=1, small=(), has_bias=True, rows=1, activation="NONE", before=(), behind=(), dead=None):
    """A file of a fully connected layer of 16 channels with sums so large that some have no exact multiplier, between
    operators on one tensor; of int8, each with a scale of its own. The channels `small` have small weights.
    """
    maker, lowest, num_oc = GraphMaker(seed, dtype), int(np.iinfo(dtype).min), 16
    is_wide, is_unsigned = dtype == np.int16, dtype == np.uint8
    source = first = maker.tensor((rows, NUM_IC), scale=1.0, zero_point=lowest)
    for kind in before:
        source = maker.op(kind, (source,), (rows, NUM_IC))
    values = np.full((num_oc, NUM_IC), 127)
    values[list(small), 1:] = 0
    scales = maker.rng.uniform(1.0, 2.0, 1 if is_unsigned else num_oc).astype(np.float32)
    for channel, scale in (dead or {}).items():
        scales[channel] = scale
    weights = maker.tensor(values.shape, np.uint8 if is_unsigned else np.int8, None, zero_point=128 * is_unsigned)
    offset = int(maker.tensors[weights].quant.zero_point[0])
    maker.tensors[weights] = replace(
        maker.tensors[weights],
        data=(values + offset).astype(maker.tensors[weights].dtype),
        quant=Quant(scales, np.full(scales.shape, offset)),
    )
    inputs = [source, weights]
    if has_bias:
        bias = maker.rng.integers(-(10**6), 10**6, num_oc).astype(np.int64 if is_wide else np.int32)
        inputs.append(maker.tensor(bias.shape, bias.dtype, bias, zero_point=0))
    result = maker.op("FULLY_CONNECTED", inputs, (rows, num_oc), activation=activation, keep_num_dims=False)
    quant = Quant(127 * NUM_IC * maker.tensors[source].quant.scale, np.array([0 if is_wide else lowest]))
    maker.tensors[result] = replace(maker.tensors[result], quant=quant)
    for kind in behind:
        result = maker.op(kind, (result,), (rows, num_oc))
    return write_tflite(maker.graph([first], [result]))


def on_host(plan):
    """(kind, reason) of the operators of each step of the host."""
    return [
        [(op.kind, reason) for op, reason in zip(step.ops, step.reasons, strict=True)]
        for step in plan.steps
        if isinstance(step, HostStep)
    ]


SMALL = tuple(range(1, 16, 2))
"""More channels than are not exact."""


@pytest.mark.parametrize(
    ("dtype", "seed", "small", "channels"),
    [
        (np.int8, 1, (), "6 of 16 channels (0, 2, 5, ...)"),
        (np.int8, 2, SMALL, "2 of 16 channels (10, 14)"),
        (np.uint8, 1, SMALL, "8 of 16 channels (0, 2, 4, ...)"),
        (np.int16, 1, SMALL, "8 of 16 channels (0, 2, 4, ...)"),
    ],
)
@pytest.mark.parametrize(("rows", "activation", "has_bias"), [(1, "NONE", False), (3, "RELU", True)])
def test_the_host_computes_channels_that_are_not_exact(dtype, seed, small, channels, rows, activation, has_bias):
    model = dense(dtype, seed=seed, small=small, has_bias=has_bias, rows=rows, activation=activation)
    plan = check_model(model, Q)
    (step,) = on_host(plan)
    assert [kind for kind, _ in step] == ["FULLY_CONNECTED", "CONCATENATION", "GATHER"]
    bits = 8 * np.dtype(dtype).itemsize
    reason = f"factors of {channels} cannot be applied exactly by a multiplier of the NPU; results have {bits} bits"
    assert step[0][1] == reason
    assert remedy(reason) is not None


def test_channels_are_joined_once_within_a_network():
    plan = check_model(dense(np.int8, before=["LOGISTIC"], behind=["RELU", "TANH"]), Q)
    assert [kind for step in on_host(plan) for kind, _ in step] == ["FULLY_CONNECTED", "CONCATENATION", "GATHER"]
    assert [isinstance(step, HostStep) for step in plan.steps] == [False, True, False]


def test_a_layer_is_left_to_the_host_when_most_channels_are_not_exact():
    plan = check_model(dense(np.int16), Q, num_host_steps=1)
    (((kind, reason),),) = on_host(plan)
    assert kind == "FULLY_CONNECTED"
    assert reason.startswith("factors of most channels cannot be applied exactly")


def test_a_strict_compilation_names_the_channels():
    with pytest.raises(GraphError, match=r"factors of 6 of 16 channels \(0, 2, 5, \.\.\.\) .* the host would execute"):
        compile_graph(read_tflite(dense(np.int8, seed=1)), Q, is_strict=True)


@pytest.mark.parametrize("dead", [0.0, 1e-30])
def test_one_dead_neuron_does_not_cost_the_layer(dead):
    """Its scale is next to nothing."""
    model = dense(np.int8, seed=1, small=range(16), dead={3: dead})
    assert not on_host(check_model(model, Q))


def test_one_channel_of_a_large_factor_does_not_cost_the_layer():
    """The NPU multiplies by less than 128."""
    model = dense(np.int8, seed=1, small=range(16), dead={3: 200 * 127.0 * NUM_IC}, has_bias=False)
    (step,) = on_host(check_model(model, Q))
    assert "1 of 16 channels (3)" in step[0][1]


def test_a_thousand_channels_of_int16_are_given_up_at_once():
    maker = GraphMaker(0, np.int16)
    source = maker.tensor((1, 256), scale=0.01)
    result = maker.op("FULLY_CONNECTED", (source, maker.weights((1000, 256), 1000, 0)), (1, 1000), activation="NONE")
    graph = maker.graph([source], [result])
    start = perf_counter()
    (work,) = lower_graph(graph)
    assert isinstance(work, HostWork)
    assert "most channels" in work.reason
    assert perf_counter() - start < 1


def image_layer(dtype, *, size=(5, 4), has_pool=True, is_seen_as_row=True, is_read_twice=False):
    """A file of a fully connected layer that takes a whole image of 6 channels, behind a pool; with factors that are
    exact.
    """
    maker, shape, num_ic = GraphMaker(7, dtype), (1, *size, 6), 6 * size[0] * size[1]
    tensor = first = maker.tensor(shape, scale=2**-6)
    if has_pool:
        window = {"filter_h": 2, "filter_w": 2, "stride_h": 1, "stride_w": 1}
        tensor = maker.op("MAX_POOL_2D", (tensor,), shape, padding="SAME", activation="NONE", **window)
    row = maker.op("RESHAPE", (tensor, maker.constant((1, num_ic))), (1, num_ic), new_shape=(1, num_ic))
    weights = maker.weights((9, num_ic), 9, 0)
    quant = maker.tensors[weights].quant
    quant = replace(quant, scale=np.full(quant.scale.shape, 2**-8, np.float32))
    maker.tensors[weights] = replace(maker.tensors[weights], quant=quant)
    source = row if is_seen_as_row else tensor
    result = maker.op("FULLY_CONNECTED", (source, weights), (1, 9), activation="NONE", keep_num_dims=False)
    quant = replace(maker.tensors[result].quant, scale=np.array([0.25], np.float32))
    maker.tensors[result] = replace(maker.tensors[result], quant=quant)
    return write_tflite(maker.graph([first], [result, row] if is_read_twice else [result]))


def engines(plan):
    """By kind of the operators."""
    (step,) = plan.steps
    return {op.kind: step.engines[op.index] for op in plan.graph.ops}


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
@pytest.mark.parametrize("is_seen_as_row", [True, False], ids=["row", "image"])
def test_an_image_is_read_as_it_is(dtype, is_seen_as_row):
    found = engines(check_model(image_layer(dtype, is_seen_as_row=is_seen_as_row), Q))
    assert found["FULLY_CONNECTED"] in ("nn", "swapped")
    assert "RESHAPE" not in found


def test_an_image_in_the_order_of_tensors_is_read_as_a_row():
    assert engines(check_model(image_layer(np.int8, has_pool=False), Q)) == {"FULLY_CONNECTED": "swapped"}


def test_a_row_that_is_a_result_too_is_made():
    found = engines(check_model(image_layer(np.int8, is_read_twice=True), Q))
    assert (found["RESHAPE"], found["FULLY_CONNECTED"]) == ("tp", "swapped")


def test_an_image_that_windows_do_not_hold_is_a_row():
    small = Q.with_(num_lanes=8, post_lanes=4, window_words=16)
    assert engines(check_model(image_layer(np.int16, size=(10, 15)), small))["RESHAPE"] == "tp"
