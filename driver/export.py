"""`Graph` -> TFLite file: what makes LiteRT the reference of networks that no file holds yet."""

from __future__ import annotations

from collections.abc import Callable

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Graph, GraphError, Op, Tensor

__all__ = ["write_tflite"]

_VERSION = 3
_OP_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "ADD": 2, "MAX_POOL_2D": 2, "AVERAGE_POOL_2D": 2, "SOFTMAX": 2,
                "QUANTIZE": 2, "RELU": 2, "RELU6": 2, "LOGISTIC": 2, "TANH": 2, "LEAKY_RELU": 2, "GELU": 2}
_TYPES = {np.dtype(dtype): code for dtype, code in (
    (np.float32, schema.TensorType.FLOAT32), (np.int8, schema.TensorType.INT8), (np.uint8, schema.TensorType.UINT8),
    (np.int16, schema.TensorType.INT16), (np.int32, schema.TensorType.INT32), (np.int64, schema.TensorType.INT64))}


def write_tflite(graph: Graph) -> bytes:
    """The bytes of a TFLite file that `read_tflite` reads back as the same graph.

    Raises
    ------
    GraphError
        When an operator or a dtype cannot be written (`_OPTIONS` and `_TYPES` list what can).
    """
    model = schema.ModelT()
    model.version = _VERSION
    model.description = graph.name
    model.buffers = [schema.BufferT()]
    kinds = sorted({op.kind for op in graph.ops})
    model.operatorCodes = [_code(kind) for kind in kinds]
    subgraph = schema.SubGraphT()
    subgraph.name = "main"
    subgraph.tensors = [_tensor(tensor, model.buffers) for tensor in graph.tensors]
    subgraph.operators = [_op(op, kinds) for op in graph.ops]
    subgraph.inputs, subgraph.outputs = list(graph.inputs), list(graph.outputs)
    model.subgraphs = [subgraph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _code(kind: str) -> schema.OperatorCodeT:
    if kind not in _OPTIONS:
        raise GraphError(f"{kind} cannot be written to a TFLite file")
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = min(code.builtinCode, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    code.version = _OP_VERSIONS.get(kind, 1)
    return code


def _tensor(tensor: Tensor, buffers: list[schema.BufferT]) -> schema.TensorT:
    if tensor.dtype not in _TYPES:
        raise GraphError(f"tensor {tensor.index}: {tensor.dtype} cannot be written to a TFLite file")
    record = schema.TensorT()
    record.name, record.shape, record.type, record.buffer = tensor.name, list(tensor.shape), _TYPES[tensor.dtype], 0
    if tensor.data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
        record.buffer = len(buffers)
        buffers.append(buffer)
    if tensor.quant is not None:
        record.quantization = schema.QuantizationParametersT()
        record.quantization.scale = np.asarray(tensor.quant.scale, np.float32)
        record.quantization.zeroPoint = np.asarray(tensor.quant.zero_point, np.int64)
        record.quantization.quantizedDimension = tensor.quant.axis
    return record


def _op(op: Op, kinds: list[str]) -> schema.OperatorT:
    record = schema.OperatorT()
    record.opcodeIndex = kinds.index(op.kind)
    record.inputs, record.outputs = list(op.inputs), list(op.outputs)
    cls, fill = _OPTIONS[op.kind]
    if cls is not None and fill is not None:
        options = cls()
        fill(op, options)
        record.builtinOptions = options
        record.builtinOptionsType = getattr(schema.BuiltinOptions, cls.__name__.removesuffix("T"))
    return record


def _fill_activation(op: Op, options) -> None:
    options.fusedActivationFunction = getattr(schema.ActivationFunctionType, op.options.get("activation", "NONE"))


def _fill_window(op: Op, options) -> None:
    _fill_activation(op, options)
    options.padding = getattr(schema.Padding, op.options["padding"])
    options.strideH, options.strideW = op.options["stride_h"], op.options["stride_w"]


def _fill_conv(op: Op, options) -> None:
    _fill_window(op, options)
    options.dilationHFactor, options.dilationWFactor = op.options.get("dilation_h", 1), op.options.get("dilation_w", 1)


def _fill_depthwise(op: Op, options) -> None:
    _fill_conv(op, options)
    options.depthMultiplier = op.options["depth_multiplier"]


def _fill_pool(op: Op, options) -> None:
    _fill_window(op, options)
    options.filterHeight, options.filterWidth = op.options["filter_h"], op.options["filter_w"]


def _fill_fully_connected(op: Op, options) -> None:
    _fill_activation(op, options)
    options.keepNumDims = op.options.get("keep_num_dims", False)


def _fill_reshape(op: Op, options) -> None:
    if "new_shape" in op.options:
        options.newShape = list(op.options["new_shape"])


def _fill_softmax(op: Op, options) -> None:
    options.beta = op.options.get("beta", 1.0)


def _fill_leaky_relu(op: Op, options) -> None:
    options.alpha = op.options["alpha"]


def _fill_gelu(op: Op, options) -> None:
    options.approximate = op.options["approximate"]


_OPTIONS: dict[str, tuple[type | None, Callable | None]] = {
    "CONV_2D": (schema.Conv2DOptionsT, _fill_conv),
    "DEPTHWISE_CONV_2D": (schema.DepthwiseConv2DOptionsT, _fill_depthwise),
    "AVERAGE_POOL_2D": (schema.Pool2DOptionsT, _fill_pool),
    "MAX_POOL_2D": (schema.Pool2DOptionsT, _fill_pool),
    "FULLY_CONNECTED": (schema.FullyConnectedOptionsT, _fill_fully_connected),
    "ADD": (schema.AddOptionsT, _fill_activation),
    "RESHAPE": (schema.ReshapeOptionsT, _fill_reshape),
    "SOFTMAX": (schema.SoftmaxOptionsT, _fill_softmax),
    "PAD": (schema.PadOptionsT, lambda op, options: None),
    **dict.fromkeys(("QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "TANH", "ELU"), (None, None)),
    "HARD_SWISH": (schema.HardSwishOptionsT, lambda op, options: None),
    "LEAKY_RELU": (schema.LeakyReluOptionsT, _fill_leaky_relu),
    "GELU": (schema.GeluOptionsT, _fill_gelu),
    "DEQUANTIZE": (None, None),
}
