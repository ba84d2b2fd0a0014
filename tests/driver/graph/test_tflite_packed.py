"""Weights in sparse storage and of 4 bits are read as LiteRT reads them."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.spec.config import PRESETS
from convoy.verif.graphs import random_values, run_plan
from convoy.verif.litert import ModelBuilder, run_reference
from convoy.verif.operators import edited

WEIGHTS = np.array([[0, 3, 0, 0, -7], [0, 0, 0, 0, 0], [5, 0, 7, 0, -8]], np.int8)


def fully_connected(edit) -> bytes:
    """A layer of 3 outputs with `WEIGHTS`, tensor 1, after `edit`."""
    made = ModelBuilder()
    source, wgt = made.tensor((2, 5), np.int8, 0.1, 4), made.tensor((3, 5), np.int8, 0.3, 0, data=WEIGHTS)
    bias, dense = made.tensor((3,), np.int32, 0.03, data=np.array([5, -40, 7])), made.tensor((3, 5), np.int8, 0.3, 0)
    result = made.tensor((2, 3), np.int8, 0.5, -3)
    made.op("FULLY_CONNECTED", [source, wgt, bias], [result])
    made.op("DENSIFY", [wgt], [dense])
    model = made.finish([source], [result])
    return edited(model, lambda packed, subgraph: edit(packed, subgraph, subgraph.tensors[wgt], dense))


def four_bits(packed, subgraph, record, dense):
    """Two weights a byte, the first one below."""
    values = np.append(WEIGHTS.reshape(-1), np.int8(0)).view(np.uint8).reshape(-1, 2) & 0xF
    packed.buffers[record.buffer].data = values[:, 0] | values[:, 1] << 4
    record.type = schema.TensorType.INT4
    del subgraph.operators[1]


def sparse(packed, subgraph, record, dense):
    """Rows are dense, in each only weights that are not zero are stored; DENSIFY gives all."""
    rows, cols = schema.DimensionMetadataT(), schema.DimensionMetadataT()
    rows.format, rows.denseSize = schema.DimensionType.DENSE, 3
    cols.format = schema.DimensionType.SPARSE_CSR
    cols.arraySegmentsType = cols.arrayIndicesType = schema.SparseIndexVector.Uint8Vector
    cols.arraySegments, cols.arrayIndices = schema.Uint8VectorT(), schema.Uint8VectorT()
    cols.arraySegments.values, cols.arrayIndices.values = np.uint8([0, 2, 2, 5]), np.uint8([1, 4, 0, 2, 4])
    record.sparsity = schema.SparsityParametersT()
    record.sparsity.traversalOrder, record.sparsity.dimMetadata = np.int32([0, 1]), [rows, cols]
    packed.buffers[record.buffer].data = WEIGHTS[WEIGHTS != 0].view(np.uint8)
    subgraph.operators[0].inputs = [0, dense, 2]
    subgraph.operators.reverse()


@pytest.mark.parametrize("edit", [four_bits, sparse])
def test_stored_weights_are_read(edit):
    model = fully_connected(edit)
    graph = read_tflite(model)
    (op,) = graph.ops
    np.testing.assert_array_equal(graph.tensors[op.inputs[1]].data, WEIGHTS)
    inputs = random_values(graph, 0)
    got = run_plan(compile_graph(graph, PRESETS["Q"], is_strict=True), dict(inputs))
    np.testing.assert_array_equal(got[op.outputs[0]], run_reference(model, list(inputs.values()))[op.outputs[0]])


def test_damaged_sparse_storage_is_refused():
    def edit(packed, subgraph, record, dense):
        sparse(packed, subgraph, record, dense)
        record.sparsity.dimMetadata = []

    with pytest.raises(GraphError, match=r"tensor 1 \(tensor_1\): LiteRT cannot read its sparse storage: "):
        read_tflite(fully_connected(edit))
