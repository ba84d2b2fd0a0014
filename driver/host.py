"""Operators that the host executes at the edges of the network, bit-exact with LiteRT's reference kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .graph import Graph, GraphError, Op, Tensor
from .quantise import activation_range, quantise_multiplier

__all__ = ["HOST_OPS", "run_host_op"]


def run_host_op(graph: Graph, op: Op, values: Mapping[int, np.ndarray]) -> np.ndarray:
    """The output of an operator of `HOST_OPS`, in the output tensor's shape and dtype.

    Parameters
    ----------
    values
        The operator's activations by tensor index, in the graph's shapes.

    Raises
    ------
    GraphError
        When the host has no such operator, or not for these dtypes. FULLY_CONNECTED it has for int16.
    """
    if op.kind not in HOST_OPS and op.kind != "FULLY_CONNECTED":
        raise GraphError(f"operator {op.index} ({op.kind}): the host cannot execute it")
    source, target = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    try:
        if op.kind == "FULLY_CONNECTED":
            return _fully_connected(graph, op, values[source.index])
        return HOST_OPS[op.kind](values[source.index], source, target, op)
    except _Unsupported as error:
        raise GraphError(f"operator {op.index} ({op.kind}): the host does not convert {source.dtype} to {target.dtype} {error}".rstrip()) from None


class _Unsupported(Exception):
    """An operator with dtypes that are not implemented."""


def _params(tensor: Tensor) -> tuple[np.float32, int]:
    """Scale and zero point of a tensor that is quantised as a whole."""
    if tensor.quant is None or tensor.quant.scale.size != 1:
        raise _Unsupported("without one scale each")
    return np.float32(tensor.quant.scale[0]), int(tensor.quant.zero_point[0])


def _clip(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.clip(values, info.min, info.max).astype(dtype)


def _softmax(x: np.ndarray, source: Tensor, target: Tensor, op: Op) -> np.ndarray:
    """Softmax over the last axis; exponentials from a table of 256 float32 values, summed in order."""
    if source.dtype != target.dtype or source.dtype.itemsize != 1:
        raise _Unsupported
    scale_in, _ = _params(source)
    scale_out, zero_point_out = _params(target)
    exponents = -(scale_in * np.float32(op.options.get("beta", 1.0))) * np.arange(256, dtype=np.float32)
    table = np.exp(exponents.astype(np.float64)).astype(np.float32)
    wide = x.astype(np.int32)
    terms = table[wide.max(axis=-1, keepdims=True) - wide]
    total = np.zeros(terms.shape[:-1], np.float32)
    for c in range(terms.shape[-1]):
        total += terms[..., c]
    rescaled = terms * (np.float32(1) / (total * scale_out))[..., np.newaxis]
    return _clip(np.floor(rescaled + np.float32(0.5)).astype(np.int64) + zero_point_out, target.dtype)


def _reshape(x: np.ndarray, source: Tensor, target: Tensor, op: Op) -> np.ndarray:
    return x.reshape(target.shape)


def _quantise(x: np.ndarray, source: Tensor, target: Tensor, op: Op) -> np.ndarray:
    """float32 to 8 or 16 bits, half away from zero; or from one quantisation to another with double rounding."""
    if target.dtype.kind not in "iu" or target.dtype.itemsize > 2:
        raise _Unsupported
    scale_out, zero_point_out = _params(target)
    if source.dtype == np.float32:
        ratio = (x / scale_out).astype(np.float32)
        rounded = np.sign(ratio) * np.floor(np.abs(ratio).astype(np.float64) + 0.5)
        return _clip(rounded + zero_point_out, target.dtype)
    if source.dtype.kind not in "iu" or source.dtype.itemsize > 2:
        raise _Unsupported
    scale_in, zero_point_in = _params(source)
    mult, exponent = quantise_multiplier(float(scale_in) / float(scale_out))
    acc = (x.astype(np.int64) - zero_point_in) << max(exponent, 0)
    high = (acc * mult + (1 << 30)) >> 31
    shift = max(-exponent, 0)
    rounded = (high + (1 << (shift - 1)) - (high < 0)) >> shift if shift else high
    return _clip(rounded + zero_point_out, target.dtype)


def _dequantise(x: np.ndarray, source: Tensor, target: Tensor, op: Op) -> np.ndarray:
    """8 or 16 bits to float32."""
    if target.dtype != np.float32 or source.dtype.kind not in "iu" or source.dtype.itemsize > 2:
        raise _Unsupported
    scale, zero_point = _params(source)
    return (scale.astype(np.float64) * (x.astype(np.int32) - zero_point)).astype(np.float32)


def _fully_connected(graph: Graph, op: Op, x: np.ndarray) -> np.ndarray:
    """int16 activations, int8 weights: exact sums, their product by the factor in float64, rounded half away from zero."""
    source, weights, target = graph.tensors[op.inputs[0]], graph.tensors[op.inputs[1]], graph.tensors[op.outputs[0]]
    if source.dtype != np.int16 or target.dtype != np.int16 or weights.data is None or weights.dtype != np.int8 or weights.quant is None:
        raise _Unsupported
    (scale_in, _), (scale_out, _) = _params(source), _params(target)
    acc = x.reshape(-1, weights.shape[1]).astype(np.int64) @ weights.data.astype(np.int64).T
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        acc = acc + graph.tensors[op.inputs[2]].data.astype(np.int64).reshape(-1)
    product = acc * (float(scale_in) * weights.quant.scale.astype(np.float64) / float(scale_out))
    low, high = activation_range(op.options.get("activation", "NONE"), target.quant, target.dtype)
    return np.clip(np.trunc(product + np.copysign(0.5, product)), low, high).astype(np.int16).reshape(target.shape)


def _on_float(function: Callable[[np.ndarray, Op], np.ndarray]) -> Callable[[np.ndarray, Tensor, Tensor, Op], np.ndarray]:
    """A function of each element, on float32 only."""
    def apply(x: np.ndarray, source: Tensor, target: Tensor, op: Op) -> np.ndarray:
        if source.dtype != np.float32 or target.dtype != np.float32:
            raise _Unsupported
        return function(x, op).astype(np.float32)

    return apply


HOST_OPS = {
    "SOFTMAX": _softmax, **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), _reshape), "QUANTIZE": _quantise, "DEQUANTIZE": _dequantise,
    "LOGISTIC": _on_float(lambda x, op: 1 / (1 + np.exp(-np.maximum(x.astype(np.float64), -700)))),
    "TANH": _on_float(lambda x, op: np.tanh(x.astype(np.float64))),
    "RELU": _on_float(lambda x, op: np.maximum(x, 0)),
    "RELU6": _on_float(lambda x, op: np.clip(x, 0, 6)),
    "RELU_N1_TO_1": _on_float(lambda x, op: np.clip(x, -1, 1)),
    "LEAKY_RELU": _on_float(lambda x, op: np.where(x > 0, x, x * np.float32(op.options["alpha"]))),
}
"""Operators that `run_host_op` knows."""
