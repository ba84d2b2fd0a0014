"""Changed networks are networks: LiteRT runs them, their outputs keep their shape, and some compute the same."""

from __future__ import annotations

import numpy as np
import pytest

from convoy.driver.advise import edits
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.graph.tflite_writer import write_tflite
from convoy.verif.litert import run_reference

from .networks import VALID, Layers, offender

GRAPH = read_tflite(offender())
IMAGE = np.random.default_rng(2).integers(-128, 128, GRAPH.tensors[GRAPH.inputs[0]].shape, np.int8)


def result(graph):
    """What LiteRT makes of a graph, and the shape of each operator's result by name."""
    tensors = run_reference(write_tflite(graph), IMAGE if graph.tensors[graph.inputs[0]].shape == IMAGE.shape else ZERO)
    return tensors[graph.outputs[0]], {graph.name_of(op): graph.tensors[op.outputs[0]].shape for op in graph.ops}


ZERO = np.random.default_rng(3).integers(-128, 128, (1, 16, 16, 4), np.int8)


@pytest.mark.parametrize(
    ("edit", "name", "shape"),
    [
        (edits.with_channels("seventeen", 16), "seventeen", (1, 36, 36, 16)),
        (edits.with_channels("seventeen", 20), "seventeen", (1, 36, 36, 20)),
        (edits.with_channels("strided", 12), "depthwise", (1, 6, 6, 12)),
        (edits.with_pool_before("strided"), "strided", (1, 12, 12, 16)),
        (edits.with_pool_behind("strided"), "strided/all", (1, 36, 36, 16)),
        (edits.with_pool_window("pool", 2), "pool", (1, 6, 6, 16)),
        (edits.with_kernel("column", (1, 5)), "column", (1, 6, 6, 16)),
        (edits.with_stacked_kernels("wide"), "wide/first", (1, 6, 6, 12)),
        (edits.pooled_by_stride("large"), "large", (1, 3, 3, 12)),
        (edits.as_dense("depthwise"), "depthwise", (1, 6, 6, 16)),
        (edits.prune_weights(0.5), "last", (1, 3, 3, 8)),
    ],
)
def test_changed_networks_run(edit, name, shape):
    output, shapes = result(edit(GRAPH))
    assert output.shape == GRAPH.tensors[GRAPH.outputs[0]].shape
    assert shapes[name] == shape


def test_changes_follow_one_another():
    graph = GRAPH
    for edit in (
        edits.with_pool_before("strided"),
        edits.with_channels("seventeen", 16),
        edits.with_channels("strided", 12),
        edits.pooled_by_stride("large"),
    ):
        graph = edit(graph)
    assert [op.index for op in graph.ops] == list(range(len(graph.ops)))
    assert result(graph)[0].shape == GRAPH.tensors[GRAPH.outputs[0]].shape


def test_same_function():
    expected = result(GRAPH)[0]
    assert np.array_equal(result(edits.with_activation("depthwise", "RELU")(GRAPH))[0], expected)
    layers = Layers((1, 16, 16, 4))
    layers.pool("pool", 8, 8, VALID)
    graph = read_tflite(layers.finish())
    steps = edits.with_pools_in_steps("pool")(graph)
    assert len(steps.ops) == 3
    assert np.array_equal(result(steps)[0], result(graph)[0])


def test_as_many_weights_are_zero():
    pruned = edits.prune_weights(0.75)(GRAPH)
    edited = edits.with_kernel("column", (3, 3))(pruned)
    weights = edited.tensors[edits.producer(edited, "column").inputs[1]].values
    assert 0.6 < np.mean(weights == 0) < 0.9
    for op in pruned.ops:
        if op.kind == "CONV_2D":
            assert np.mean(pruned.tensors[op.inputs[1]].values == 0) >= 0.75


def test_channels_that_are_read_with_their_pixels():
    layers = Layers((1, 4, 4, 4))
    layers.conv("conv", 7, (1, 1))
    layers.dense("dense", 3)
    with pytest.raises(edits.CannotEdit, match="FULLY_CONNECTED reads its channels in groups, with its pixels"):
        edits.with_channels("conv", 4)(read_tflite(layers.finish()))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edits.with_channels("last", 4), "an output of the network"),
        (edits.with_channels("depthwise", 4), "as many channels as what it reads"),
        (edits.with_channels("nothing", 4), "no operator makes 'nothing'"),
        (edits.with_pools_in_steps("pool"), "only windows of 4x4"),
        (edits.pooled_by_stride("pool"), "stride 1"),
        (edits.with_pool_window("pool", 3), "another size"),
    ],
)
def test_what_cannot_be_changed(edit, message):
    with pytest.raises(edits.CannotEdit, match=message):
        edit(GRAPH)
