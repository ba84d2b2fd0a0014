"""The TFLite importer: what it reads, and that nothing damaged gets past it or hurts it."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import Graph, GraphError, Quant
from convoy.driver.graph.tflite_reader import load_tflite, read_tflite
from convoy.driver.graph.tflite_writer import write_tflite
from convoy.spec.config import PRESETS
from convoy.verif import operators
from convoy.verif.litert import run_reference

DIGITS_PATH = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"
DIGITS = DIGITS_PATH.read_bytes()
KINDS = [
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "CONV_2D",
    "ADD",
    "CONV_2D",
    "CONV_2D",
    "MAX_POOL_2D",
    "RESHAPE",
    "FULLY_CONNECTED",
    "SOFTMAX",
]


def edited(edit) -> bytes:
    """The digits network after `edit` (given the object-API model)."""
    return operators.edited(DIGITS, edit)


def same(a: Graph, b: Graph) -> bool:
    """Two graphs are equal, constants and quantisation included."""

    def quant(q: Quant | None):
        return None if q is None else (q.scale.tolist(), q.zero_point.tolist(), q.axis)

    def tensor(t):
        return t.index, t.name, t.shape, t.dtype, quant(t.quant), None if t.data is None else t.data.tobytes()

    return [*map(tensor, a.tensors)] == [*map(tensor, b.tensors)] and (a.ops, a.inputs, a.outputs) == (
        b.ops,
        b.inputs,
        b.outputs,
    )


def test_digits_network():
    graph = read_tflite(DIGITS_PATH)
    assert graph.name == "digits_int8"
    assert [op.kind for op in graph.ops] == KINDS
    assert graph.tensors[graph.inputs[0]].shape == (1, 8, 8, 1)
    assert graph.tensors[graph.outputs[0]].shape == (1, 10)
    stem = graph.ops[0]
    assert stem.options == {
        "stride_h": 1,
        "stride_w": 1,
        "dilation_h": 1,
        "dilation_w": 1,
        "padding": "SAME",
        "activation": "RELU",
    }
    weights = graph.tensors[stem.inputs[1]]
    assert weights.data.shape == (16, 3, 3, 1)
    assert weights.quant.scale.shape == (16,)
    assert weights.quant.axis == 0
    assert graph.tensors[graph.ops[1].inputs[1]].quant.axis == 3


def test_what_is_written_is_read_back():
    graph = read_tflite(DIGITS)
    assert same(read_tflite(write_tflite(graph)), graph)


def test_unwritable_operator_is_named():
    graph = read_tflite(DIGITS)
    with pytest.raises(GraphError, match="FLOOR cannot be written"):
        write_tflite(dataclasses.replace(graph, ops=(dataclasses.replace(graph.ops[0], kind="FLOOR"),)))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not a TFLite file"),
        (b"TFL3", "not a TFLite file"),
        (DIGITS[:4] + b"TFL2" + DIGITS[8:], "not a TFLite file"),
        (DIGITS[:8], "corrupt or truncated"),
        (DIGITS[:20000], "corrupt|truncated|buffer|tensor"),
        (b"\xff\xff\xff\x7fTFL3", "corrupt or truncated"),
    ],
)
def test_damage_is_named(raw, message):
    with pytest.raises(GraphError, match=message):
        read_tflite(raw)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m, g: setattr(g, "operators", []), "no operators"),
        (lambda m, g: setattr(g, "inputs", []), "no inputs"),
        (lambda m, g: setattr(g, "outputs", []), "no outputs"),
        (lambda m, g: setattr(g.operators[0], "inputs", [999, 1, 2]), r"operator 0 \(CONV_2D\): inputs: tensor 999"),
        (lambda m, g: setattr(g.operators[0], "outputs", [-1]), r"operator 0 \(CONV_2D\): outputs: tensor -1"),
        (lambda m, g: setattr(g.operators[0], "opcodeIndex", 77), "operator 0: operator code 77"),
        (
            lambda m, g: setattr(g.operators[0], "builtinOptions", None),
            r"operator 0 \(CONV_2D\): its Conv2DOptions are missing",
        ),
        (lambda m, g: setattr(g.operators[0].builtinOptions, "strideW", 0), r"operator 0 \(CONV_2D\): stride_w = 0"),
        (lambda m, g: setattr(g.tensors[0], "buffer", 500), r"tensor 0 \(input\): buffer 500"),
        (
            lambda m, g: setattr(g.tensors[0], "shape", [1, -1, 8, 1]),
            r"input input is 1x\?x8x1, of unknown \(\?\) size; give its shape: --shape input=1x\?x8x1",
        ),
        (lambda m, g: setattr(g.tensors[0], "shape", [1, 8, 9, 1]), r"operator 0 \(CONV_2D\): the output should be"),
        (lambda m, g: setattr(g.tensors[0], "type", schema.TensorType.STRING), "type STRING is not supported"),
        (
            lambda m, g: setattr(m.buffers[g.tensors[1].buffer], "data", [1, 2, 3]),
            r"tensor 1 \(stem/weights\): its buffer has 3 bytes",
        ),
        (
            lambda m, g: setattr(m.buffers[g.tensors[1].buffer], "data", None),
            r"reads tensor 1 \(stem/weights\), which nothing has written",
        ),
        (lambda m, g: g.operators.reverse(), "which nothing has written"),
        (lambda m, g: g.operators.append(g.operators[0]), "which already has a value"),
        (lambda m, g: setattr(m, "version", 4), "schema version 4; only version 3 is known"),
        (lambda m, g: setattr(m.operatorCodes[0], "builtinCode", 9999), "builtin operator 9999 is unknown"),
    ],
)
def test_refusals_name_the_thing(edit, message):
    with pytest.raises(GraphError, match=message) as caught:
        read_tflite(edited(edit))
    assert "\n" not in str(caught.value)


def _extra_tensor(**fields):
    def edit(model, subgraph):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = "extra", [3], schema.TensorType.INT8, 0
        for name, value in fields.items():
            setattr(tensor, name, value)
        subgraph.tensors.append(tensor)

    return edit


def _extra_code(model, subgraph):
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = (
        schema.BuiltinOperator.CUSTOM,
        schema.BuiltinOperator.CUSTOM,
        "MyOp",
    )
    model.operatorCodes.append(code)


def _extra_subgraph(model, subgraph):
    model.subgraphs.append(copy.deepcopy(subgraph))
    model.subgraphs[1].operators = []


@pytest.mark.parametrize(
    "edit",
    [
        _extra_code,
        _extra_subgraph,
        *(_extra_tensor(type=getattr(schema.TensorType, name)) for name in ("STRING", "COMPLEX64", "INT4", "VARIANT")),
        _extra_tensor(shape=[1] * 12),
        _extra_tensor(shape=[1 << 30, 1 << 20]),
        _extra_tensor(isVariable=True),
        _extra_tensor(name=None),
        lambda m, g: setattr(g.tensors[3], "isVariable", True),
        lambda m, g: setattr(g.tensors[3], "sparsity", schema.SparsityParametersT()),
        lambda m, g: setattr(g.tensors[1], "name", b"\xff"),
        lambda m, g: setattr(m.buffers[0], "data", [1, 2, 3]),
        lambda m, g: setattr(g.tensors[1], "shapeSignature", [-1, -1]),
        lambda m, g: setattr(m.operatorCodes[0], "version", 2),
        lambda m, g: setattr(g.operators[0], "customOptions", [1, 2, 3]),
        lambda m, g: setattr(g.tensors[1], "name", g.tensors[0].name),
    ],
)
def test_what_nobody_reads_refuses_nothing(edit):
    """LiteRT runs such a file as it runs the network without the change; so does the compiler."""
    loaded, image = (
        load_tflite(edited(edit)),
        np.random.default_rng(1).integers(-128, 128, (1, 8, 8, 1)).astype(np.int8),
    )
    expected, found = run_reference(DIGITS, image), run_reference(loaded.data, image)
    for index in loaded.graph.outputs:
        np.testing.assert_array_equal(found[index], expected[index])
    constants = [tensor for tensor in read_tflite(DIGITS).tensors if tensor.data is not None]
    assert [op.kind for op in loaded.graph.ops] == KINDS
    assert all(np.array_equal(loaded.graph.tensors[tensor.index].data, tensor.data) for tensor in constants)
    compile_graph(loaded.graph, PRESETS["Q"])


def test_other_subgraphs_are_mentioned():
    assert read_tflite(edited(_extra_subgraph)).notes == (
        "the file has 2 subgraphs: the first one is run, without 1 that it does not call",
    )


def test_an_operator_the_npu_does_not_know_is_imported():
    def edit(model, subgraph):
        code = next(code for code in model.operatorCodes if code.builtinCode == schema.BuiltinOperator.SOFTMAX)
        code.builtinCode, code.deprecatedBuiltinCode = (
            schema.BuiltinOperator.HARD_SWISH,
            schema.BuiltinOperator.HARD_SWISH,
        )
        subgraph.operators[-1].builtinOptionsType, subgraph.operators[-1].builtinOptions = 0, None

    op = read_tflite(edited(edit)).ops[-1]
    assert (op.kind, op.options) == ("HARD_SWISH", {})


def test_a_missing_file_is_a_graph_error(tmp_path):
    with pytest.raises(GraphError, match="cannot be read"):
        read_tflite(tmp_path / "none.tflite")


def reads_or_refuses(raw: bytes) -> bool:
    """The importer gives a graph or one line of refusal; anything else raises."""
    try:
        return bool(read_tflite(raw).ops)
    except GraphError as error:
        return "\n" not in str(error)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.integers(0, len(DIGITS) - 1))
def test_truncated_files(length):
    assert reads_or_refuses(DIGITS[:length])


# The tables are in the middle of the file: buffers before and after them are bytes without structure.
POSITION = st.one_of(
    st.integers(0, 200), st.integers(0, len(DIGITS) - 1), st.integers(len(DIGITS) - 6000, len(DIGITS) - 1)
)


@settings(deadline=None, max_examples=1000, derandomize=True)
@given(st.lists(st.tuples(POSITION, st.integers(0, 255)), min_size=1, max_size=12))
@example([(0, 0), (1, 0), (2, 0), (3, 0)])
def test_flipped_bytes(changes):
    raw = bytearray(DIGITS)
    for position, value in changes:
        raw[position] = value
    assert reads_or_refuses(bytes(raw))


def test_importing_copies_the_constants():
    graph = read_tflite(DIGITS)
    assert np.abs(graph.tensors[1].data).max() == 127
