"""onnxruntime as the reference: every tensor, and what follows doubtful ones from the values that were found."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.onnx_reader import load_onnx
from convoy.driver.workload.onnx_reference import OnnxReference
from convoy.driver.workload.reference import Compared
from convoy.spec.config import PRESETS
from convoy.verif.graphs import random_values, run_plan
from convoy.verif.onnx_models import plain, qdq_model

from ..graph.test_onnx_float import FLOATS


def test_what_follows_a_doubtful_tensor_is_computed_from_what_was_found():
    shapes, make = FLOATS["conv_relu"]
    network = onnx.load_model_from_string(qdq_model(shapes, make))
    network.graph.node.append(onnx.helper.make_node("DequantizeLinear", ["y_q", "y_q_scale", "y_q_zero_point"], ["z"]))
    network.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None))
    model = load_onnx(network.SerializeToString())
    plan = compile_graph(model.graph, PRESETS["Q"], keep_tensors=True)
    inputs = random_values(model.graph, 0)
    got = run_plan(plan, dict(inputs))
    (doubtful,) = (op.outputs[0] for op in model.graph.ops if op.index in plan.doubts)
    changed = got | {doubtful: np.bitwise_xor(got[doubtful], 1)}
    plain_values = OnnxReference(model).run(list(inputs.values()), {})
    expected = OnnxReference(model, frozenset({doubtful})).run(list(inputs.values()), changed)
    np.testing.assert_array_equal(expected[doubtful], plain_values[doubtful])
    np.testing.assert_array_equal(expected[doubtful], got[doubtful])
    (last,) = model.graph.outputs
    assert (expected[last] != plain_values[last]).all()
    assert "onnxruntime 1." in OnnxReference.version()


def test_without_a_reference_there_is_a_note():
    model = load_onnx(qdq_model([(1, 4)], partial(plain, "Relu")))
    compared = Compared(model)
    assert compared.name == "onnxruntime"
    assert compared.run([np.zeros((9, 9), np.float32)]) is None
    assert "onnxruntime cannot run it" in str(compared.note)
