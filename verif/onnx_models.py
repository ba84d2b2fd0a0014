"""Small quantised ONNX networks, compiled and run on the golden machine, against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.program import HostStep, Plan
from convoy.driver.graph.onnx_reader import load_onnx
from convoy.driver.workload.onnx_reference import OnnxReference
from convoy.spec.config import NpuConfig

from .graphs import random_values, run_plan

__all__ = ["WEIGHTS", "Made", "check_onnx", "onnx_network", "plain", "qdq_model", "quantised_weights", "weighted"]

Made = tuple[list[onnx.NodeProto], dict[str, np.ndarray]]
"""Nodes and constants."""
WEIGHTS = np.random.default_rng(0).integers(-127, 128, (8, 6, 3, 3)).astype(np.int8)
"""Of a convolution with six channels, eight results and 3 x 3 taps."""
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
EDGES = {"TRANSPOSE", "RESHAPE", "QUANTIZE", "DEQUANTIZE"}
"""What the host does where float values come in, go out, or lie between."""


def _scaled(kind: str, x: str, y: str, scale: float, zero_point: int, dtype: type) -> Made:
    names = [f"{y}_scale", f"{y}_zero_point"]
    constants = dict(zip(names, (np.float32(scale), np.array(zero_point, dtype)), strict=True))
    return [helper.make_node(kind, [x, *names], [y])], constants


def quantised_weights(name: str, values: np.ndarray, scale: Any, zero_point: int = 0, axis: int = 0) -> Made:
    """int8 or uint8 values that a DequantizeLinear gives as `name`; one scale, or one per slice along `axis`."""
    scales = np.asarray(scale, np.float32)
    constants = {
        f"{name}_values": values,
        f"{name}_scale": scales,
        f"{name}_zero_point": np.full(scales.shape, zero_point, values.dtype),
    }
    attrs = {"axis": axis} if scales.ndim else {}
    return [helper.make_node("DequantizeLinear", list(constants), [name], **attrs)], constants


def plain(kind: str, x: Sequence[str], constants: Sequence[Any] = (), **attrs: Any) -> Made:
    """One node with constants behind its activations."""
    names = {f"c{n}": np.asarray(values) for n, values in enumerate(constants)}
    return [helper.make_node(kind, [*x, *names], ["y"], **attrs)], names


def weighted(
    kind: str, x: Sequence[str], weights: np.ndarray = WEIGHTS, scale: Any = 0.004, zero_point: int = 0, axis: int = 0,
    bias: Any = None, then: Sequence[str] = (), **attrs: Any,
) -> Made:  # fmt: skip
    """A node with quantised weights, perhaps a float bias, and nodes behind it."""
    nodes, constants = quantised_weights("w", weights, scale, zero_point, axis)
    more = {} if bias is None else {"bias": np.asarray(bias, np.float32)}
    names = ["m", *(f"m{n}" for n in range(len(then)))]
    names[-1] = "y"
    nodes = [*nodes, helper.make_node(kind, [*x, "w", *more], [names[0]], **attrs)]
    nodes += [helper.make_node(other, [names[n]], [names[n + 1]]) for n, other in enumerate(then)]
    return nodes, constants | more


def onnx_network(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[type, Sequence[int]]],
    outputs: Sequence[str],
    constants: Mapping[str, Any] | None = None,
    dtype: type = np.float32,
) -> bytes:
    """Any nodes; inputs as (dtype, shape) by name, the names of outputs and their dtype."""

    def info(name: str, dtype: type, shape: Sequence[int] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    graph = helper.make_graph(
        nodes,
        "network",
        [info(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
        [info(name, dtype, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=10).SerializeToString()


def qdq_model(
    shapes: Sequence[Sequence[int]],
    make: Callable[[list[str]], Made],
    *,
    dtype: type = np.int8,
    scale: float = 0.0517,
    scale_out: float = 0.0713,
    opset: int = 17,
) -> bytes:
    """Float operators between DequantizeLinear and QuantizeLinear; bytes come in and go out.

    Parameters
    ----------
    shapes : of the inputs
    make : from the names of the inputs, dequantised, the nodes and constants that give `y`
    dtype : of the inputs and the output
    """
    shift = 128 if dtype is np.uint8 else 0
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}

    def add(made: Made) -> None:
        nodes.extend(made[0])
        constants.update(made[1])

    for n in range(len(shapes)):
        add(_scaled("DequantizeLinear", f"x{n}", f"x{n}_d", scale, 3 + shift, dtype))
    add(make([f"x{n}_d" for n in range(len(shapes))]))
    add(_scaled("QuantizeLinear", "y", "y_q", scale_out, -4 + shift, dtype))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info(f"x{n}", kind, shape) for n, shape in enumerate(shapes)],
        [helper.make_tensor_value_info("y_q", kind, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10).SerializeToString()


def check_onnx(model: bytes, config: NpuConfig, num_doubts: int = 0) -> tuple[Plan, set[str]]:
    """Compile a network and run it on the golden machine, with random inputs; the plan, and what the host executes
    besides conversions at the edges.

    Raises
    ------
    AssertionError
        When a tensor is not onnxruntime's, or more than `num_doubts` results may not be.
    """
    loaded = load_onnx(model)
    plan = compile_graph(loaded.graph, config, keep_tensors=True)
    inputs = random_values(loaded.graph, 0)
    got = run_plan(plan, dict(inputs))
    ops = {op.index: op for op in plan.graph.ops}
    doubtful = frozenset(tensor for index in plan.doubts for tensor in ops[index].outputs if tensor in got)
    expected = OnnxReference(loaded, doubtful).run(list(inputs.values()), got)
    compared = sorted(set(expected) & set(got))
    assert set(loaded.graph.outputs) <= set(compared)
    for index in compared:
        np.testing.assert_array_equal(got[index], expected[index], err_msg=loaded.graph.tensors[index].name)
    assert sum(plan.doubts.values()) <= num_doubts
    hosted = [op for step in plan.steps if isinstance(step, HostStep) for op in step.ops]
    return plan, {op.kind for op in hosted} - EDGES
