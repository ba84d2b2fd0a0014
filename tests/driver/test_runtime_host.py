"""Operators of the host against LiteRT's reference kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.export import write_tflite
from convoy.driver.graph import Graph, GraphError, Op, Quant, Tensor
from convoy.driver.host import run_host_op
from convoy.driver.reference import run_reference

SCALES = st.one_of(st.integers(-8, 1).map(lambda e: 2.0**e), st.floats(0.004, 2.0))
INT8 = st.integers(-128, 127)


def quant(scale: float, zero_point: int) -> Quant:
    return Quant(np.array([scale], np.float32), np.array([zero_point], np.int64))


def network(kind: str, x: np.ndarray, quant_in, quant_out, dtype, **options) -> Graph:
    tensors = Tensor(0, "x", x.shape, x.dtype, quant_in), Tensor(1, "y", x.shape, np.dtype(dtype), quant_out)
    return Graph("host", tensors, (Op(0, kind, (0,), (1,), options),), (0,), (1,))


def check(kind: str, x: np.ndarray, quant_in, quant_out, dtype, **options) -> None:
    graph = network(kind, x, quant_in, quant_out, dtype, **options)
    np.testing.assert_array_equal(run_host_op(graph, graph.ops[0], {0: x}), run_reference(write_tflite(graph), [x])[1], strict=True)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(SCALES, INT8, st.integers(1, 40), st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 2**32 - 1))
def test_softmax(scale, zero_point, num_c, beta, seed):
    x = np.random.default_rng(seed).integers(-128, 128, (20, num_c)).astype(np.int8)
    check("SOFTMAX", x, quant(scale, zero_point), quant(1 / 256, -128), np.int8, beta=beta)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(SCALES, INT8, SCALES, INT8)
def test_requantise(scale_in, zero_point_in, scale_out, zero_point_out):
    x = np.arange(-128, 128).astype(np.int8)
    check("QUANTIZE", x, quant(scale_in, zero_point_in), quant(scale_out, zero_point_out), np.int8)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(SCALES, INT8, st.integers(0, 2**32 - 1), st.booleans())
def test_quantise_reals(scale, zero_point, seed, has_ties):
    rng = np.random.default_rng(seed)
    steps = rng.integers(-300, 300, 200) / 2 if has_ties else rng.normal(0, 100, 200)
    check("QUANTIZE", (steps * np.float32(scale)).astype(np.float32), None, quant(scale, zero_point), np.int8)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(SCALES, INT8)
def test_dequantise(scale, zero_point):
    check("DEQUANTIZE", np.arange(-128, 128).astype(np.int8), quant(scale, zero_point), None, np.float32)


def test_an_unknown_operator_is_refused_by_name():
    x = np.zeros((1, 4), np.int8)
    with pytest.raises(GraphError, match=r"operator 0 \(HARD_SWISH\): the host cannot"):
        run_host_op(network("HARD_SWISH", x, None, None, np.int8), Op(0, "HARD_SWISH", (0,), (1,)), {0: x})


def test_unsupported_dtypes_are_refused_by_name():
    x = np.zeros((1, 4), np.int16)
    graph = network("SOFTMAX", x, quant(1, 0), quant(1, 0), np.int16, beta=1.0)
    with pytest.raises(GraphError, match=r"operator 0 \(SOFTMAX\): the host does not convert int16 to int16"):
        run_host_op(graph, graph.ops[0], {0: x})
