"""Operators that only LiteRT has, as files of their own: loops, custom operators, states, packed weights, shapes that
depend on values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.emit.program import HostStep, NpuStep
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_group import group_model
from convoy.driver.graph.tflite_reader import load_tflite, read_tflite
from convoy.driver.runtime.session import Session
from convoy.driver.workload.reference import Reference
from convoy.spec.config import PRESETS
from convoy.verif.litert import ModelBuilder, fully_connected_model
from convoy.verif.models import check_model
from convoy.verif.operators import edited

Q = PRESETS["Q"]
RNG = np.random.default_rng(5)


def with_subgraphs(main: bytes, *others: bytes) -> bytes:
    """A file with the subgraphs of others behind its own."""

    def edit(packed: Any, subgraph: Any) -> None:
        for other in others:
            found = schema.ModelT.InitFromPackedBuf(other, 0)
            (part,) = found.subgraphs
            for tensor in part.tensors:
                tensor.buffer += len(packed.buffers) if tensor.buffer else 0
            for operator in part.operators:
                operator.opcodeIndex += len(packed.operatorCodes)
            packed.buffers += found.buffers
            packed.operatorCodes += found.operatorCodes
            packed.subgraphs.append(part)

    return edited(main, edit)


def _counted(kind: str, constant: int) -> bytes:
    """(i, x) -> i `kind` constant, or with a halved x for the body of a loop."""
    builder = ModelBuilder()
    count, x = builder.tensor((1,), np.int32), builder.tensor((1, 6), np.float32)
    other = builder.tensor((1,), np.int32, data=np.array([constant]))
    if kind == "LESS":
        result = builder.tensor((1,), np.bool_)
        builder.op(kind, [count, other], [result])
        return builder.finish([count, x], [result])
    half = builder.tensor((1,), np.float32, data=np.array([0.5]))
    following, halved = builder.tensor((1,), np.int32), builder.tensor((1, 6), np.float32)
    builder.op(kind, [count, other], [following])
    builder.op("MUL", [x, half], [halved])
    return builder.finish([count, x], [following, halved])


def loop() -> bytes:
    """A table of the NPU, five rounds of a loop on floats, and a table."""
    builder = ModelBuilder()
    source, risen = builder.tensor((1, 6), np.int8, 0.1, 3), builder.tensor((1, 6), np.int8, 1 / 256, -128)
    start = builder.tensor((1,), np.int32, data=np.array([0]))
    before, after = (builder.tensor((1, 6), np.float32) for _ in range(2))
    count = builder.tensor((1,), np.int32)
    back, last = builder.tensor((1, 6), np.int8, 0.002, -7), builder.tensor((1, 6), np.int8, 1 / 256, -128)
    builder.op("LOGISTIC", [source], [risen])
    builder.op("DEQUANTIZE", [risen], [before])
    builder.op("WHILE", [start, before], [count, after], condSubgraphIndex=1, bodySubgraphIndex=2)
    builder.op("QUANTIZE", [after], [back])
    builder.op("LOGISTIC", [back], [last])
    return with_subgraphs(builder.finish([source], [last]), _counted("LESS", 5), _counted("ADD", 1))


def test_a_loop_runs_within_a_group():
    plan = check_model(loop(), Q, num_host_steps=1)
    assert [type(step) for step in plan.steps] == [NpuStep, HostStep, NpuStep]
    assert [op.kind for op in plan.steps[1].ops] == ["DEQUANTIZE", "WHILE", "QUANTIZE"]
    assert read_tflite(loop()).notes == ()


def test_a_missing_subgraph_is_named():
    broken = edited(loop(), lambda packed, subgraph: packed.subgraphs.pop())
    with pytest.raises(GraphError, match="subgraph 2 does not exist"):
        read_tflite(broken)


def custom(name: str) -> bytes:
    """A detector's last operator under some name, behind two tables of the NPU."""
    builder = ModelBuilder()
    sources = [builder.tensor(shape, np.int8, 0.1, 3) for shape in ((1, 8, 4), (1, 8, 3))]
    risen = [builder.tensor(shape, np.int8, 1 / 256, -128) for shape in ((1, 8, 4), (1, 8, 3))]
    floats = [builder.tensor(shape, np.float32) for shape in ((1, 8, 4), (1, 8, 3))]
    anchors = builder.tensor((8, 4), np.float32, data=RNG.random((8, 4)))
    outputs = [builder.tensor(shape, np.float32) for shape in ((1, 5, 4), (1, 5), (1, 5), (1,))]
    for source, target, value in zip(sources, risen, floats, strict=True):
        builder.op("LOGISTIC", [source], [target])
        builder.op("DEQUANTIZE", [target], [value])
    builder.op("ABS", [*floats, anchors], outputs)

    def edit(packed: Any, subgraph: Any) -> None:
        code = packed.operatorCodes[-1]
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode, code.version = name, 1
        options = {"max_detections": 5, "max_classes_per_detection": 1, "num_classes": 3, "detections_per_class": 5}
        scales = {"y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0}
        thresholds = {"nms_score_threshold": 0.1, "nms_iou_threshold": 0.6, "use_regular_nms": False}
        record = subgraph.operators[-1]
        record.builtinOptions, record.builtinOptionsType = None, schema.BuiltinOptions.NONE
        record.customOptions = np.frombuffer(flexbuffers.Dumps(options | scales | thresholds), np.uint8)

    return edited(builder.finish(sources, outputs), edit)


def test_custom_operators_that_litert_has():
    plan = check_model(custom("TFLite_Detection_PostProcess"), Q, num_host_steps=1)
    assert [op.kind for op in plan.steps[-1].ops] == ["DEQUANTIZE"] * 2 + ["CUSTOM TFLite_Detection_PostProcess"]


def test_custom_operators_that_litert_has_not():
    with pytest.raises(GraphError, match=r"operator 4 CUSTOM CONV_2D .*LiteRT cannot execute it on the CPU: .*CONV_2D"):
        compile_graph(read_tflite(custom("CONV_2D")), Q)


def recurrent() -> bytes:
    """SVDF of floats between tables of the NPU: it remembers four steps."""
    builder = ModelBuilder()
    source, values = builder.tensor((1, 3), np.int8, 0.1, 3), builder.tensor((1, 3), np.float32)
    features = builder.tensor((2, 3), np.float32, data=RNG.standard_normal((2, 3)))
    times = builder.tensor((2, 4), np.float32, data=RNG.standard_normal((2, 4)))
    state, output = builder.tensor((1, 8), np.float32), builder.tensor((1, 2), np.float32)
    builder.op("DEQUANTIZE", [source], [values])
    builder.op("SVDF", [values, features, times, -1, state], [output], rank=1)
    return edited(
        builder.finish([source], [output]),
        lambda packed, subgraph: setattr(subgraph.tensors[state], "isVariable", True),
    )


def test_a_state_lasts_from_run_to_run():
    loaded = load_tflite(recurrent())
    plan, device, reference = compile_graph(loaded.graph, Q), open_device("golden", Q), Reference(loaded.data)
    session, values = Session(plan, device), RNG.integers(-128, 128, (3, 1, 3)).astype(np.int8)
    (output,) = loaded.graph.outputs
    found = [session.run({0: step}).tensors[output] for step in values]
    for step, got in zip(values, found, strict=True):
        np.testing.assert_array_equal(got, reference.run([step])[output])
    assert not np.array_equal(session.run({0: values[0]}).tensors[output], found[0])
    session.reset_state()
    np.testing.assert_array_equal(session.run({0: values[0]}).tensors[output], found[0])
    device.close()


@pytest.mark.parametrize("num_ic", [12, 13])
def test_weights_of_four_bits(num_ic):
    weights = RNG.integers(-7, 8, (5, num_ic)).astype(np.int8)
    flat = np.append(weights.reshape(-1), np.zeros(weights.size % 2, np.int8)).view(np.uint8) & 15

    def edit(packed: Any, subgraph: Any) -> None:
        tensor = subgraph.tensors[1]
        tensor.type = schema.TensorType.INT4
        packed.buffers[tensor.buffer].data = flat[::2] | flat[1::2] << 4

    model = fully_connected_model(
        (2, num_ic), weights, RNG.integers(-99, 99, 5).astype(np.int32), (0.05, 3), 0.01, (0.2, -5)
    )
    packed = edited(model, edit)
    np.testing.assert_array_equal(read_tflite(packed).tensors[1].data, weights)
    check_model(packed, Q)


def test_shapes_that_depend_on_values():
    builder = ModelBuilder()
    source, zero = builder.tensor((9,), np.float32), builder.tensor((), np.float32, data=np.array(0.1))
    is_large, places = builder.tensor((9,), np.bool_), builder.tensor((1, 1), np.int64)
    builder.op("GREATER", [source, zero], [is_large])
    builder.op("WHERE", [is_large], [places])
    model = edited(
        builder.finish([source], [places]),
        lambda packed, subgraph: setattr(subgraph.tensors[places], "shapeSignature", [-1, 1]),
    )
    plan = compile_graph(read_tflite(model), Q)
    device = open_device("golden", Q)
    for count in (0, 4, 9):
        values = np.linspace(-1, -0.5, 9, dtype=np.float32)
        values[:count] *= -1
        np.testing.assert_array_equal(
            Session(plan, device).run({source: values}).tensors[places], np.arange(count)[:, None]
        )
    device.close()


def test_only_what_is_wanted_leaves_the_file():
    graph = read_tflite(loop())
    ops = graph.ops[1:4]
    group = group_model(graph, ops, graph.ops[3].outputs)
    found = schema.ModelT.InitFromPackedBuf(group.data, 0)
    assert len(found.subgraphs) == 3
    assert group.inputs == graph.ops[1].inputs
    assert list(found.subgraphs[0].outputs) == [group.places[graph.ops[3].outputs[0]]]
