"""Pruned files: which weights go, and that everything else stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.graph.tflite_writer import write_tflite
from convoy.driver.workload.prune import least_share, prune_file
from convoy.verif.graphs import GraphMaker
from convoy.verif.operators import edited

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"


def _conv(weights: np.ndarray, scales: list[float]) -> bytes:
    """A 1x1 convolution with int8 weights (OC, IC) and a scale per output channel."""
    maker = GraphMaker(0)
    source = maker.tensor((1, 2, 2, weights.shape[1]))
    kernels = maker.weights((weights.shape[0], 1, 1, weights.shape[1]), weights.shape[0], 0)
    maker.tensors[kernels].data[:] = weights.reshape(maker.tensors[kernels].shape)
    maker.tensors[kernels].quant.scale[:] = scales
    bias = maker.tensor((weights.shape[0],), np.int32, np.zeros(weights.shape[0], np.int32))
    options = {"padding": "VALID", "stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "activation": "NONE"}
    return write_tflite(
        maker.graph([source], [maker.op("CONV_2D", (source, kernels, bias), (1, 2, 2, weights.shape[0]), **options)])
    )


def _weights(model: bytes) -> np.ndarray:
    graph = read_tflite(model)
    return graph.tensors[graph.ops[0].inputs[1]].data.reshape(graph.tensors[graph.ops[0].outputs[0]].shape[-1], -1)


def test_the_smallest_real_values_go():
    """By hand: the second channel's scale makes its 3 as large as a 30 of the first; of the equal 4s the later one
    goes.
    """
    model = _conv(np.array([[10, -4, 4, 20], [1, -2, 3, 0]], np.int8), [0.1, 1.0])
    pruned, (layer,) = prune_file(model, 0.5)
    assert _weights(pruned).tolist() == [[10, 0, 0, 20], [0, -2, 3, 0]]
    assert (layer.num_weights, layer.num_zero_before, layer.num_zero) == (8, 1, 4)


@pytest.mark.parametrize("share", [0.0, 0.75, 1.0])
def test_only_weights_of_convolutions_change(share):
    model = DIGITS.read_bytes()
    pruned, layers = prune_file(model, share)
    before, after = read_tflite(model), read_tflite(pruned)
    assert [(op.kind, op.inputs, op.outputs, op.options) for op in after.ops] == [
        (op.kind, op.inputs, op.outputs, op.options) for op in before.ops
    ]
    kernels = {op.inputs[1] for op in before.ops if op.kind == "CONV_2D"}
    assert len(layers) == len(kernels)
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert (new.name, new.shape, new.dtype) == (old.name, old.shape, old.dtype)
        if old.data is None:
            continue
        is_kept = new.data == old.data
        if old.index in kernels:
            assert np.all(new.data[~is_kept] == 0)
            assert np.count_nonzero(new.data == 0) >= share * new.data.size
        else:
            assert is_kept.all()
    assert all(layer.num_zero >= max(layer.num_zero_before, share * layer.num_weights) for layer in layers)
    if share == 0:
        assert all(layer.num_zero == layer.num_zero_before for layer in layers)


def test_every_other_byte_stays():
    """Also where a text that nobody reads lies outside the file."""
    model = bytearray(DIGITS.read_bytes())
    table = schema.Model.GetRootAs(model, 0)._tab
    place = table.Pos + table.Offset(10)  # of the description
    model[place : place + 4] = (1 << 30).to_bytes(4, "little")
    pruned, layers = prune_file(bytes(model), 0.75)
    assert len(pruned) == len(model)
    num_changed = sum(layer.num_zero - layer.num_zero_before for layer in layers)
    assert sum(old != new for old, new in zip(model, pruned, strict=True)) == num_changed > 0


@pytest.mark.parametrize(
    "change",
    [
        {"scale": np.full(3, 0.1, np.float32), "zeroPoint": np.zeros(3, np.int64)},
        {"zeroPoint": np.zeros(3, np.int64)},
        {"zeroPoint": np.array([200, 0])},
    ],
)
def test_scales_that_do_not_fit(change):
    def edit(packed, subgraph):
        for name, value in change.items():
            setattr(subgraph.tensors[1].quantization, name, value)

    with pytest.raises(
        GraphError,
        match=(
            r"operator 0 CONV_2D: 'w1' needs one scale and zero point, or one per output channel, with zero points "
            r"in -128..127"
        ),
    ):
        prune_file(edited(_conv(np.array([[1, 2], [3, 4]]), [0.1, 0.1]), edit), 0.5)


def test_refusals():
    with pytest.raises(GraphError, match=r"a share of 1.5 zero weights; use 0 .. 1"):
        prune_file(DIGITS.read_bytes(), 1.5)
    with pytest.raises(GraphError, match="not a TFLite file"):
        prune_file(b"nothing at all", 0.5)
    maker = GraphMaker(0)
    source = maker.tensor((1, 4, 4, 2))
    pool = maker.op(
        "MAX_POOL_2D",
        (source,),
        (1, 2, 2, 2),
        padding="VALID",
        filter_h=2,
        filter_w=2,
        stride_h=2,
        stride_w=2,
        activation="NONE",
    )
    with pytest.raises(GraphError, match="the network has no CONV_2D to prune"):
        prune_file(write_tflite(maker.graph([source], [pool])), 0.5)


def test_the_least_share_for_a_target():
    model = DIGITS.read_bytes()

    def cycles(data):
        graph = read_tflite(data)
        convs = [op for op in graph.ops if op.kind == "CONV_2D"]
        return sum(int(np.count_nonzero(graph.tensors[op.inputs[1]].data)) for op in convs)

    dense = cycles(model)
    tried = least_share(model, dense // 2, cycles)
    share = list(tried)[-1]
    assert tried[share] <= dense // 2 < cycles(prune_file(model, share - 0.01)[0])
    assert list(least_share(model, dense, cycles))[-1] == 0
    with pytest.raises(GraphError, match="with all weights of its convolutions zero the network takes 7"):
        least_share(model, 1, lambda data: 7)
