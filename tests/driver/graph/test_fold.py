"""What does not depend on inputs is computed at import; what nobody needs goes; the rest is as it was."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import TensorType

from convoy.driver import cli
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.graph.tflite_reader import load_tflite, read_tflite
from convoy.driver.runtime.session import Session, plan_inputs
from convoy.spec.config import PRESETS
from convoy.verif.graphs import random_values, run_plan
from convoy.verif.litert import ModelBuilder, run_reference
from convoy.verif.operators import edited

Q = PRESETS["Q"]
MASKS = {"beginMask": 0, "endMask": 0, "ellipsisMask": 0, "newAxisMask": 0, "shrinkAxisMask": 0}


class Maker(ModelBuilder):
    """A builder with an int8 image and short ways to tensors."""

    def __init__(self):
        super().__init__()
        self.image = self.act(1, 4, 3, 2)

    def act(self, *shape, dtype=np.int8, scale=0.1, zero_point=3) -> int:
        return self.tensor(shape, dtype, scale, zero_point)

    def const(self, values, dtype=np.int32, **quant) -> int:
        return self.tensor(np.shape(values), dtype, data=np.array(values), **quant)

    def ints(self, *shape) -> int:
        return self.tensor(shape, np.int32)


def check(model: bytes, kinds: list[str], shapes=None) -> tuple[str, ...]:
    """These operators are left, and every tensor that there still is equals LiteRT's; the notes."""
    loaded = load_tflite(model, shapes)
    assert [op.kind for op in loaded.graph.ops] == kinds
    inputs = random_values(loaded.graph, 1)
    expected = run_reference(loaded.data, list(inputs.values()))
    got = run_plan(compile_graph(loaded.graph, Q, keep_tensors=True), dict(inputs))
    for op in loaded.graph.ops:
        np.testing.assert_array_equal(got[op.outputs[0]], expected[op.outputs[0]])
    for tensor in loaded.graph.tensors:
        if tensor.data is not None and tensor.index in expected:
            np.testing.assert_array_equal(tensor.data, expected[tensor.index])
    return loaded.graph.notes


def flattened(batch: int = 1) -> bytes:
    """As Keras flattens images of a batch that it does not know: SHAPE, STRIDED_SLICE, PACK, RESHAPE."""
    made = Maker()
    shape, size, target = made.ints(4), made.ints(), made.ints(2)
    result = made.act(batch, 24)
    made.op("SHAPE", [made.image], [shape], outType=TensorType.INT32)
    made.op("STRIDED_SLICE", [shape, *(made.const([n]) for n in (0, 1, 1))], [size], **{**MASKS, "shrinkAxisMask": 1})
    made.op("PACK", [size, made.const(24)], [target], axis=0, valuesCount=2)
    made.op("RESHAPE", [made.image, target], [result])

    def sign(packed, subgraph):
        subgraph.tensors[made.image].shapeSignature = [-1, 4, 3, 2]
        subgraph.tensors[result].shapeSignature = [-1, 24]

    return edited(made.finish([made.image], [result]), sign)


@pytest.mark.parametrize("shapes", [None, {"": (3, 4, 3, 2)}], ids=["batch of 1", "batch of 3"])
def test_computed_shapes_are_constants(shapes):
    assert check(flattened(), ["RESHAPE"], shapes)[-1] == (
        "3 operators are computed once, as nothing that changes is read: 1 PACK, 1 SHAPE, 1 STRIDED_SLICE"
    )


def test_results_that_nobody_needs_are_left_out():
    made = Maker()
    dead, result = made.act(1, 4, 3, 2), made.act(1, 4, 3, 2)
    made.op("LOGISTIC", [made.image], [made.tensor((1, 4, 3, 2), np.int8, 1 / 256, -128)])
    made.op("RELU", [made.image], [dead])
    made.op("ADD", [dead, dead], [made.act(1, 4, 3, 2)])
    made.op("RELU", [made.image], [result])
    notes = check(made.finish([made.image], [result]), ["RELU"])
    assert notes == ("3 operators are left out, as nobody needs them: 1 ADD, 1 LOGISTIC, 1 RELU",)


def test_weights_in_another_format_are_constants():
    """Stored in float16 and quantised at run, as a file may; the convolution is then one for the NPU."""
    made, rng = Maker(), np.random.default_rng(0)
    wgt, bias = made.const(rng.normal(size=(5, 1, 1, 2)), np.float16), made.const(rng.integers(-99, 99, 5))
    real, quantised = made.tensor((5, 1, 1, 2), np.float32), made.tensor((5, 1, 1, 2), np.int8, 0.02, 0)
    result = made.act(1, 4, 3, 5)
    made.op("DEQUANTIZE", [wgt], [real], version=3)
    made.op("QUANTIZE", [real], [quantised])
    made.op("CONV_2D", [made.image, quantised, bias], [result], strideH=1, strideW=1)
    model = made.finish([made.image], [result])
    check(model, ["CONV_2D"])
    plan = compile_graph(read_tflite(model), Q, is_strict=True)
    assert len(plan.steps) == 1


UNCHANGED = {
    "QUANTIZE": lambda made: ([], {}),
    "SLICE": lambda made: ([made.const([0, 0, 0, 0]), made.const([1, 4, 3, 2])], {}),
    "STRIDED_SLICE": lambda made: ([made.const(v) for v in ([0] * 4, [1, 4, 3, 2], [1] * 4)], MASKS),
    "PAD": lambda made: ([made.const(np.zeros((4, 2)))], {}),
    "TRANSPOSE": lambda made: ([made.const([0, 1, 2, 3])], {}),
    "CONCATENATION": lambda made: ([], {"axis": 3}),
}


@pytest.mark.parametrize("kind", UNCHANGED)
def test_what_hands_its_input_on_costs_nothing(kind):
    made = Maker()
    before, behind, result = (made.act(1, 4, 3, 2) for _ in range(3))
    inputs, options = UNCHANGED[kind](made)
    made.op("RELU", [made.image], [before])
    made.op(kind, [before, *inputs], [behind], **options)
    made.op("ADD", [behind, before], [result])
    check(made.finish([made.image], [result]), ["RELU", "RESHAPE", "ADD"])


def test_another_scale_or_order_is_kept():
    made = Maker()
    other, turned, result = made.act(1, 4, 3, 2, scale=0.2), made.act(1, 4, 3, 2), made.act(1, 4, 3, 2)
    made.op("QUANTIZE", [made.image], [other])
    made.op(
        "STRIDED_SLICE",
        [other, *(made.const(v) for v in ([0, 3, 0, 0], [1, -5, 3, 2], [1, -1, 1, 1]))],
        [turned],
        **MASKS,
    )
    made.op("RELU", [turned], [result])
    check(made.finish([made.image], [result]), ["QUANTIZE", "STRIDED_SLICE", "RELU"])


def test_chance_is_not_folded():
    made = Maker()
    drawn, rest = made.tensor((1, 4, 3, 2), np.float32), made.act(1, 4, 3, 2)
    made.op("RANDOM_UNIFORM", [made.const([1, 4, 3, 2])], [drawn], seed=1, seed2=2)
    made.op("RELU", [made.image], [rest])
    graph = read_tflite(made.finish([made.image], [rest, drawn]))
    assert [op.kind for op in graph.ops] == ["RANDOM_UNIFORM", "RELU"]


def constant_network() -> bytes:
    """A network whose only result is the same in every run."""
    made = Maker()
    shape, filled = made.ints(4), made.tensor((1, 4, 3, 2), np.int32)
    made.op("SHAPE", [made.image], [shape], outType=TensorType.INT32)
    made.op("FILL", [shape, made.const(7)], [filled])
    return made.finish([made.image], [filled])


def test_a_network_without_anything_to_run(tmp_path, capsys):
    """It has no operators left; its output is given all the same."""
    path, report = tmp_path / "constant.tflite", tmp_path / "report.json"
    path.write_bytes(constant_network())
    cli.app(["run", str(path), "--device", "golden", "--json", str(report)], standalone_mode=False)
    assert json.loads(report.read_text())["layers"] == []
    graph = read_tflite(path)
    plan = compile_graph(graph, Q)
    assert plan_inputs(plan) == []
    assert plan.steps == ()


@pytest.mark.parametrize("has_work", [False, True])
def test_outputs_that_are_constant(has_work):
    """Beside others or alone, and an input that nobody reads."""
    made = Maker()
    shape, result = made.ints(4), made.act(1, 4, 3, 2)
    made.op("SHAPE", [made.image], [shape], outType=TensorType.INT32)
    if has_work:
        made.op("RELU", [made.image], [result])
    plan = compile_graph(read_tflite(made.finish([made.image, made.act(1, 5)], [shape, result][: 1 + has_work])), Q)
    device = open_device("golden", Q)
    tensors = Session(plan, device, keep_tensors=False).run(random_values(plan.graph, 0)).tensors
    device.close()
    assert set(plan.graph.outputs) <= set(tensors)
    np.testing.assert_array_equal(tensors[shape], [1, 4, 3, 2])
