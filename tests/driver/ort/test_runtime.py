"""onnxruntime: its optimiser, its kernels, its errors."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest

from convoy.driver.errors import GraphError
from convoy.driver.ort.runtime import OrtError, OrtModel, first_line, optimised, ort_package
from convoy.verif.onnx_models import qdq_model


def _sum(names):
    return [onnx.helper.make_node("Add", names, ["y"])], {}


def test_quantised_operators_are_in_one_piece_and_every_tensor_has_a_value():
    model = optimised(qdq_model([(1, 4), (1, 4)], _sum))
    assert [node.op_type for node in model.graph.node] == ["QLinearAdd"]
    values = OrtModel(model, keeps_tensors=True).run({name: np.full((1, 4), 3, np.int8) for name in ("x0", "x1")})
    assert values["y_q"].tolist() == [[-4] * 4]


def test_errors_are_one_line():
    with pytest.raises(OrtError, match="onnxruntime refuses the model"):
        optimised(b"no model")
    with pytest.raises(OrtError, match="onnxruntime cannot run it"):
        OrtModel(optimised(qdq_model([(1, 4), (1, 4)], _sum))).run({"x0": np.ones((1, 4), np.int8)})
    assert first_line(ValueError("a\nb")) == "a"
    assert first_line(ValueError()) == "ValueError"


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(GraphError, match=r"pip install 'convoy-npu\[onnx\]'"):
        ort_package()
