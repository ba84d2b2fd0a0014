"""What the host executes of ONNX networks: onnxruntime's kernels, one operator after another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.onnx_reader import load_onnx
from convoy.driver.lower.host_ops import host_group
from convoy.driver.lower.onnx_host import OnnxHostGroup
from convoy.driver.workload.onnx_reference import OnnxReference
from convoy.verif.graphs import random_values
from convoy.verif.onnx_models import qdq_model

from ..graph.test_onnx_reader import CASES


def test_a_whole_network_is_onnxruntimes():
    model = load_onnx(qdq_model(*CASES["prelu"][:2]))
    inputs = random_values(model.graph, 0)
    group = host_group(model.graph, model.graph.ops)
    assert isinstance(group, OnnxHostGroup)
    group.reset_state()
    found, expected = group.run(inputs), OnnxReference(model).run(list(inputs.values()), {})
    assert set(found) == {index for op in model.graph.ops for index in op.outputs}
    for index in found.keys() & expected.keys():
        np.testing.assert_array_equal(found[index], expected[index])
    (last,) = model.graph.outputs
    assert set(host_group(model.graph, model.graph.ops, [last]).run(inputs)) == {last}


def test_an_operator_that_is_not_in_the_file_is_refused():
    graph = load_onnx(qdq_model(*CASES["prelu"][:2])).graph
    with pytest.raises(GraphError, match="the ONNX file has no such operator"):
        host_group(graph, [replace(graph.ops[0], raw=None)])
