"""What the host executes: LiteRT's kernels, one operator at a time, from compile to run."""

from __future__ import annotations

from dataclasses import replace

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices import open_device
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.lower.host_ops import run_host_ops
from convoy.driver.runtime.session import Session
from convoy.spec.config import PRESETS
from convoy.verif.litert import ModelBuilder, run_reference, softmax_model, unary_model
from convoy.verif.models import check_model

Q = PRESETS["Q"]
FLOATS = np.float32, np.float32
NO_QUANT = None, 0


def _host_between() -> bytes:
    """A wide input that is dead before the host works, and two results of the NPU that are alive then."""
    rng, builder = np.random.default_rng(0), ModelBuilder()

    def conv(source: int, shape: tuple[int, ...], num_in: int, num_out: int) -> int:
        weights = builder.tensor(
            (num_out, 1, 1, num_in), np.int8, 0.01, data=rng.integers(-127, 128, (num_out, num_in))
        )
        bias = builder.tensor((num_out,), np.int32, 0.001, data=rng.integers(-900, 900, num_out))
        output = builder.tensor((*shape, num_out), np.int8, 0.1, 3)
        builder.op(
            "CONV_2D", [source, weights, bias], [output], strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1
        )
        return output

    source = builder.tensor((1, 6, 6, 8), np.int8, 0.1, 3)
    first = conv(source, (1, 6, 6), 8, 4)
    second = conv(first, (1, 6, 6), 4, 4)
    slopes, turned = (
        builder.tensor((1, 1, 4), np.int8, 0.01, 0, data=np.array([10, -20, 30, 5])),
        builder.tensor((1, 6, 6, 4), np.int8, 0.1, 3),
    )
    builder.op("PRELU", [first, slopes], [turned])
    return builder.finish([source], [conv(second, (1, 6, 6), 4, 4), turned])


def _argmax(out_shape=(1, 6)) -> bytes:
    builder = ModelBuilder()
    source = builder.tensor((1, 6, 9), np.int8, 0.1, 3)
    output = builder.tensor(out_shape, np.int64)
    builder.op(
        "ARG_MAX",
        [source, builder.tensor((), np.int32, data=np.array(2))],
        [output],
        outputType=schema.TensorType.INT64,
    )
    return builder.finish([source], [output])


def _prelu() -> bytes:
    builder = ModelBuilder()
    source, output = builder.tensor((1, 4, 5, 3), np.int8, 0.1, 3), builder.tensor((1, 4, 5, 3), np.int8, 0.08, -5)
    slopes = builder.tensor((1, 1, 3), np.int8, 0.01, 0, data=np.array([10, -20, 30]))
    builder.op("PRELU", [source, slopes], [output])
    return builder.finish([source], [output])


def _float_split() -> bytes:
    builder = ModelBuilder()
    source, axis = builder.tensor((1, 4, 5, 6), np.float32), builder.tensor((), np.int32, data=np.array(3))
    outputs = [builder.tensor((1, 4, 5, 2), np.float32) for _ in range(3)]
    builder.op("SPLIT", [axis, source], outputs, numSplits=3)
    return builder.finish([source], outputs)


def _float_sum_of_one() -> bytes:
    builder = ModelBuilder()
    source, output = builder.tensor((1, 7), np.float32), builder.tensor((1, 7), np.float32)
    builder.op("ADD", [source, source], [output])
    return builder.finish([source], [output])


def _scalars() -> bytes:
    builder = ModelBuilder()
    inputs, output = [builder.tensor((), np.int32) for _ in range(2)], builder.tensor((2,), np.int32)
    builder.op("PACK", inputs, [output], valuesCount=2)
    return builder.finish(inputs, [output])


def _division() -> bytes:
    builder = ModelBuilder()
    inputs, output = [builder.tensor((1, 5), np.int32) for _ in range(2)], builder.tensor((1, 5), np.int32)
    builder.op("FLOOR_DIV", inputs, [output])
    return builder.finish(inputs, [output])


@pytest.mark.parametrize(
    "model",
    [
        unary_model("SOFTMAX", (3, 20), NO_QUANT, NO_QUANT, FLOATS, beta=0.5),
        unary_model("SOFTMAX", (3, 20), (0.1, 5), (1 / 65536, -32768), (np.int8, np.int16), version=3, beta=1.0),
        unary_model("SOFTMAX", (3, 20), (0.001, 0), (1 / 32768, 0), (np.int16, np.int16), version=3, beta=1.0),
        unary_model("SOFTMAX", (3, 20), (0.1, 5), (1 / 256, 0), (np.uint8, np.uint8), beta=2.0),
        softmax_model((3, 20), (0.1, 5)),
        unary_model("LOGISTIC", (4, 64), NO_QUANT, NO_QUANT, FLOATS),
        unary_model("TANH", (4, 64), NO_QUANT, NO_QUANT, FLOATS),
        unary_model("TANH", (4, 64), (1 / 4096, 0), (1 / 32768, 0), (np.int16, np.int16)),
        unary_model("QUANTIZE", (4, 64), NO_QUANT, (0.02, 7), (np.float32, np.int8)),
        unary_model("QUANTIZE", (4, 64), (0.001, 0), (0.02, 7), (np.int16, np.int8)),
        unary_model("DEQUANTIZE", (4, 64), (0.02, 7), NO_QUANT, (np.uint8, np.float32)),
        _argmax(),
        _prelu(),
        _host_between(),
        _float_split(),
        _float_sum_of_one(),
        _scalars(),
    ],
)
def test_what_litert_runs_compiles_and_is_exact(model):
    check_model(model, Q, num_host_steps=1)


def _refused(model: bytes) -> str:
    with pytest.raises(GraphError) as caught:
        compile_graph(read_tflite(model), Q)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_litert_refuses_does_not_compile():
    assert _refused(unary_model("SOFTMAX", (1, 4), (1.0, 0), (1.0, 0), (np.int16, np.int16), beta=1.0)).startswith(
        "operator 0 SOFTMAX ('output'): SOFTMAX is not supported by the NPU, and LiteRT cannot execute it on the CPU: "
    )
    assert "'tensor_1' is int64 [1, 7] in the file, but int64 [1, 6] there" in _refused(_argmax((1, 7)))


def _of_integers(kind: str, **options) -> bytes:
    builder = ModelBuilder()
    source, output = builder.tensor((3,), np.int32), builder.tensor((3,), np.int32 if kind == "WHILE" else np.float32)
    builder.op(kind, [source], [output], **options)
    return builder.finish([source], [output])


def test_what_litert_refuses_or_has_no_fixed_result_does_not_compile():
    """A loop that is its own body; random numbers."""
    assert "LiteRT cannot execute it on the CPU: " in _refused(
        _of_integers("WHILE", condSubgraphIndex=0, bodySubgraphIndex=0)
    )
    assert _refused(_of_integers("RANDOM_UNIFORM")).endswith(
        "nothing could be compared with RANDOM_UNIFORM, whose results are random"
    )


def test_values_that_litert_refuses():
    """Zero as a divisor: not when the network is compiled, where there are no values, but when it is run."""
    plan = compile_graph(read_tflite(_division()), Q)
    device = open_device("golden", Q)
    session, values = Session(plan, device), np.arange(5, dtype=np.int32).reshape(1, 5)
    assert session.run({0: values + 20, 1: values + 1}).tensors[2].tolist() == [[20, 10, 7, 5, 4]]
    with pytest.raises(
        GraphError, match=r"operator 0 FLOOR_DIV \('tensor_2'\): LiteRT cannot execute it on the CPU: .*"
    ):
        session.run({0: values, 1: values})
    device.close()


def test_a_kernel_that_aborts_gives_way_to_another():
    """600 equal inputs: their exponentials sum up to more than 512, where LiteRT's reference kernel aborts; 1/600 is
    less than half a step.
    """
    graph = read_tflite(softmax_model((2, 600), (0.1, 5)))
    plan, device = compile_graph(graph, Q), open_device("golden", Q)
    session, values = Session(plan, device), np.zeros((2, 600), np.int8)
    execution = session.run({0: values})
    assert (execution.tensors[1] == -128).all()
    assert execution.host_remarks == {
        0: "LiteRT's reference kernel fails: it aborts (its process ended without an answer); its ordinary kernel ran"
    }
    values[:, 7] = 100
    execution = session.run({0: values})
    assert execution.host_remarks == {}
    np.testing.assert_array_equal(execution.tensors[1], run_reference(softmax_model((2, 600), (0.1, 5)), values)[1])
    device.close()


def test_an_operator_without_a_file():
    graph = read_tflite(softmax_model((1, 9), (0.1, 5), beta=0.5))
    bare = replace(graph, ops=(replace(graph.ops[0], raw=None),))
    values = np.arange(9, dtype=np.int8).reshape(1, 9)
    np.testing.assert_array_equal(
        run_host_ops(bare, bare.ops, {0: values})[1],
        run_reference(softmax_model((1, 9), (0.1, 5), beta=0.5), values)[1],
    )
