"""Campaigns: what counts as covered, and that a difference ends one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile.pipeline import compile_with_costs
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.graph.tflite_writer import write_tflite
from convoy.driver.runtime.device import MemoryModel
from convoy.golden import nn
from convoy.spec.config import PRESETS
from convoy.spec.isa import Rounding
from convoy.verif.campaign import (
    MAX_SKIPPED,
    Coverage,
    campaign,
    modes_of,
    reference_graph,
    required_modes,
    run_example,
)
from convoy.verif.graphs import GraphMaker
from convoy.verif.strategies import TABLE_ROOTS
from convoy.verif.tp_strategies import tp_graphs


def layer(**options):
    """A convolution with explicit pads and a table behind it."""
    maker = GraphMaker(1)
    source = maker.tensor((1, 9, 11, 4))
    bias = maker.tensor((6,), np.int32, np.arange(6, dtype=np.int32))
    options = {
        "stride_h": 3,
        "stride_w": 1,
        "dilation_h": 1,
        "dilation_w": 1,
        "pads": (2, 0, 1, 1),
        "activation": "RELU6",
    } | options
    target = maker.op("CONV_2D", (source, maker.weights((6, 2, 3, 4), 6, 0, 0.5), bias), (1, 4, 11, 6), **options)
    return maker.graph([source], [maker.op("TANH", (target,), (1, 4, 11, 6))])


def test_modes_are_read_from_network_plan_and_memory():
    graph = layer()
    found = modes_of(graph, compile_with_costs(graph, PRESETS["Q"]), MemoryModel(latency_cycles=7, is_shared=True))
    assert {
        "operator: CONV_2D",
        "operator: TANH",
        "type: int8",
        "activation: RELU6",
        "kernel h: 2-3",
        "kernel w: 2-3",
        "kernel: not square",
        "stride h: 3",
        "stride w: 1",
        "pad top: 2",
        "pad bottom: 0",
        "pad left: 1",
        "pad right: 1",
        "zero weights: some",
        "engine: nn+tp",
        "engine: fused",
        "fused: table into convolution",
        "cores: 4",
        "output channels: not a multiple of the cores",
        "memory latency: 7",
        "memory: shared",
    } <= found
    assert not any(mode.startswith(("padding", "depth multiplier", "fully connected")) for mode in found)


def test_modes_of_strides_runs_and_kernels():
    """Of stride 4 x 1 the tensor processor takes all or half; of a weight in fifty the tokens have runs; kernels as
    large as may be.
    """
    maker = GraphMaker(2)
    source, bias = maker.tensor((1, 47, 41, 3)), maker.bias(9, 2)
    weights = maker.weights((9, 43, 10, 3), 9, 0, 0.02)
    target = maker.op(
        "CONV_2D", (source, weights, bias), (1, 2, 32, 9), stride_h=4, stride_w=1, padding="VALID", activation="NONE"
    )
    graph = maker.graph([source], [target])
    found = modes_of(graph, compile_with_costs(graph, PRESETS["Q"]))
    assert {
        "kernel: the largest of its strides",
        "strides: unequal",
        "zero weights: nearly all",
        "stride on TP x on NN: 1 x 1",
        "bits of a zero run: 5",
    } <= found
    assert found & {"stride on TP x on NN: 4 x 1", "stride on TP x on NN: 2 x 2"}
    assert not found & {"kernel: 1x1", "kernel: 21x21 at stride 2", "zero runs: over several kernels"}


def test_modes_of_int16():
    """A pool and a stride of 3 behind it."""
    maker = GraphMaker(5, np.int16)
    source = maker.tensor((1, 12, 12, 3))
    last = maker.op(
        "CONV_2D",
        (source, maker.weights((4, 1, 1, 3), 4, 0), maker.bias(4, 3)),
        (1, 12, 12, 4),
        stride_h=1,
        stride_w=1,
        padding="SAME",
        activation="NONE",
    )
    last = maker.op(
        "MAX_POOL_2D",
        (last,),
        (1, 6, 6, 4),
        padding="VALID",
        filter_h=2,
        filter_w=2,
        stride_h=2,
        stride_w=2,
        activation="NONE",
    )
    last = maker.op(
        "CONV_2D",
        (last, maker.weights((4, 3, 3, 4), 4, 0), maker.bias(4, 36)),
        (1, 2, 2, 4),
        stride_h=3,
        stride_w=3,
        padding="SAME",
        activation="NONE",
    )
    graph = maker.graph(
        [source],
        [maker.op("MAXIMUM", (last, maker.tensor((1, 2, 2, 4), data=np.ones((1, 2, 2, 4), np.int16))), (1, 2, 2, 4))],
    )
    found = modes_of(graph, compile_with_costs(graph, PRESETS["Q"]))
    assert {
        "operator of int16: CONV_2D",
        "operator of int16: MAXIMUM",
        "fused of int16: MAX_POOL_2D into convolution",
        "stride of int16 on TP x on NN: 3 x 1",
    } <= found


def test_modes_of_transposed_convolutions_and_resizes():
    maker = GraphMaker(3)
    source, size = maker.tensor((1, 4, 5, 2)), maker.constant([8, 3])
    smooth = maker.op("RESIZE_BILINEAR", (source, size), (1, 8, 3, 2), align_corners=False, half_pixel_centers=True)
    shape = maker.constant([1, 16, 9, 3])
    target = maker.op(
        "TRANSPOSE_CONV",
        (shape, maker.weights((3, 4, 2, 2), 3, 0), smooth),
        (1, 16, 9, 3),
        stride_h=2,
        stride_w=3,
        padding="SAME",
        activation="RELU",
    )
    graph = maker.graph([source], [target])
    found = modes_of(graph, compile_with_costs(graph, PRESETS["Q"]))
    assert {
        "RESIZE_BILINEAR: pixels placed by half_pixel_centers",
        "RESIZE_BILINEAR: a multiple",
        "RESIZE_BILINEAR: fewer pixels",
        "transposed stride h: 2",
        "transposed stride w: 3",
        "transposed kernel: smaller than its stride",
        "transposed kernel: up to its stride and more",
        "transposed padding: SAME",
        "transposed bias: no",
        "activation: RELU",
    } <= found
    assert "RESIZE_BILINEAR: more pixels, no multiple" not in found


@settings(deadline=None, max_examples=30, derandomize=True)
@given(tp_graphs())
def test_what_is_drawn_can_be_written_and_read(graph):
    graph = reference_graph(graph)
    read = read_tflite(write_tflite(graph))
    assert read.ops == graph.ops
    assert [(tensor.shape, tensor.dtype) for tensor in read.tensors] == [
        (tensor.shape, tensor.dtype) for tensor in graph.tensors
    ]


def test_what_was_not_covered_is_listed():
    coverage = Coverage("golden")
    coverage.add(required_modes("golden") - {"stride h: 5"})
    assert coverage.missing() == ["stride h: 5"]
    assert "cores: 16" in required_modes("golden")
    assert "memory stalls: 60 %" in required_modes("native")
    assert coverage.table().row_count == len({mode.split(": ")[0] for mode in required_modes("golden")})


def test_the_last_examples_are_for_what_is_missing():
    coverage = Coverage("golden")
    rest = required_modes("golden") - {"stride h: 5"}
    for number in range(30):
        assert coverage.is_covered(rest, 30) == (number >= 20)
        coverage.add(rest)
    assert not coverage.is_covered({"stride h: 5"}, 30)
    coverage.num_skipped = MAX_SKIPPED
    assert not coverage.is_covered(rest, 30)
    coverage.num_skipped = 0
    coverage.add({"stride h: 5"})
    assert not coverage.is_covered(rest, 31)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.data(), st.sampled_from(sorted(TABLE_ROOTS)))
def test_roots_of_tables_are_what_they_are_called(data, name):
    graph = data.draw(TABLE_ROOTS[name])
    assert {"convolution": "CONV_2D"}.get(name, name) in graph.ops[-1].kind


def test_the_reference_gets_pads_as_operators():
    graph = read_tflite(write_tflite(reference_graph(layer())))
    assert [op.kind for op in graph.ops] == ["PAD", "CONV_2D", "TANH"]
    assert graph.tensors[graph.ops[0].outputs[0]].shape == (1, 11, 13, 4)
    assert graph.outputs == layer().outputs


def test_a_difference_is_named(monkeypatch):
    graph, genuine = layer(), nn._ROUNDINGS[Rounding.DOUBLE]
    compiled = compile_with_costs(graph, PRESETS["Q"], keep_tensors=True, is_fusing=False)
    run_example(graph, compiled, "golden", MemoryModel(), 0, True)
    monkeypatch.setitem(nn._ROUNDINGS, Rounding.DOUBLE, lambda *args: genuine(*args) + 1)
    with pytest.raises(AssertionError, match="run 0, operator 0 CONV_2D"):
        run_example(graph, compiled, "golden", MemoryModel(), 0, True)


def test_a_short_campaign():
    coverage = campaign("golden", 12, 1)
    assert coverage.num_examples >= 12
    assert sum(count for mode, count in coverage.counts.items() if mode.startswith("cores")) == coverage.num_examples
